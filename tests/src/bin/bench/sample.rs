//! What the kernel counts of a process: read by a shell script, so that it is the same here and in a guest.

use anyhow::{Context, Result};

/// One look at a process and all of its threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Time on a CPU, in ns (schedstat; threads that have ended are not in it).
    pub cpu: u64,
    /// Context switches, voluntary and not: each one is a wake-up.
    pub switches: u64,
    /// Memory that is its own, with its part of what is shared, in KiB.
    pub pss: u64,
    /// Memory that it has changed and nobody shares, in KiB.
    pub dirty: u64,
    pub threads: u64,
}

/// A script that prints one line for each process, in the order of `pids`.
pub fn script(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    format!(
        "for p in {}; do \
         set -- $(cat /proc/$p/task/*/schedstat | awk '{{c += $1; n++}} END {{print c, n}}') \
         $(cat /proc/$p/task/*/status | awk '/ctxt_switches/ {{s += $2}} END {{print s}}') \
         $(awk '/^Pss:/ {{p = $2}} /^Private_Dirty:/ {{d = $2}} END {{print p, d}}' /proc/$p/smaps_rollup); \
         echo \"$@\"; done",
        pids.join(" ")
    )
}

/// What that script printed.
pub fn parse(text: &str) -> Result<Vec<Sample>> {
    let line = |line: &str| {
        // awk writes large numbers with an exponent.
        let numbers: Option<Vec<u64>> =
            line.split_whitespace().map(|word| Some(word.parse::<f64>().ok()? as u64)).collect();
        match numbers.as_deref() {
            Some([cpu, threads, switches, pss, dirty]) => {
                Ok(Sample { cpu: *cpu, switches: *switches, pss: *pss, dirty: *dirty, threads: *threads })
            }
            _ => Err(anyhow::anyhow!("{line:?}")),
        }
    };
    text.lines().map(line).collect::<Result<_>>().context("a process ended, or /proc says something new")
}
