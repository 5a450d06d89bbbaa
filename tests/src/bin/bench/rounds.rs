//! The measurements, each alternating between the two agents within a round: a machine's own pace changes from one second
//! to the next, so only figures of one moment can be compared.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::agent::{Agent, BLOCKS, Transfer, WINDOW};
use crate::qga::Qga;
use crate::raw::Raw;
use crate::sample::{self, Sample};
use crate::table::{Better, Table, percentile};
use crate::va::Va;

/// How much is done; less for a quick look, less in an emulated guest.
#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub pings: usize,
    /// Of [`WINDOW`] calls each.
    pub windows: usize,
    pub file: usize,
    pub runs: usize,
    pub idle: Duration,
    /// Nothing else, where one thing is looked at.
    pub only: Option<Only>,
}

/// The groups of measurements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Only {
    Pings,
    Files,
    Runs,
}

impl Effort {
    /// Whether that group is wanted.
    pub fn wants(&self, group: Only) -> bool {
        self.only.is_none_or(|only| only == group)
    }

    /// Whether what takes no part in a group is: starts, idle time.
    pub fn wants_all(&self) -> bool {
        self.only.is_none()
    }
}

/// The sizes of a file's blocks.
const CHUNKS: [(usize, &str); 4] =
    [(4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (256 << 10, "256 KiB"), (1 << 20, "1 MiB")];

/// Both agents and the raw channel beside them, connected.
pub struct Bench {
    pub va: Va,
    pub qga: Qga,
    pub raw: Option<Raw>,
    /// The user at whose level calls are made, too.
    pub user: String,
    pub pids: Pids,
    /// A directory for the files that are moved.
    pub dir: String,
    /// Whether the daemons run in a guest.
    pub guest: bool,
}

/// The daemons' processes.
#[derive(Clone, Copy)]
pub struct Pids {
    pub system: u32,
    pub user: u32,
    pub qga: u32,
}

impl Pids {
    pub fn all(&self) -> [u32; 3] {
        [self.system, self.user, self.qga]
    }
}

impl Bench {
    /// Runs a shell script beside the daemons. In a guest an agent has to run it; who does pays for it, so the one that is
    /// being measured never does.
    fn shell(&mut self, by_qga: bool, script: &str) -> Result<String> {
        match (self.guest, by_qga) {
            (false, _) => here(script),
            (true, true) => self.qga.run(&["/bin/sh", "-c", script]),
            (true, false) => {
                self.va.at(None)?;
                self.va.run(&["/bin/sh", "-c", script])
            }
        }
    }

    fn sample(&mut self, by_qga: bool) -> Result<[Sample; 3]> {
        let pids = self.pids.all();
        let text = self.shell(by_qga, &sample::script(&pids))?;
        sample::parse(&text)?.try_into().map_err(|_| anyhow::anyhow!("not three processes: {text}"))
    }

    /// All rounds of all that is measured under load.
    pub fn rounds(&mut self, effort: Effort, table: &mut Table) -> Result<()> {
        for round in 0..effort.rounds {
            eprintln!("   round {} of {}", round + 1, effort.rounds);
            if effort.wants(Only::Pings) {
                self.pings(effort, table)?;
                self.pipelined(effort, table)?;
            }
            if effort.wants(Only::Files) {
                for (chunk, name) in CHUNKS {
                    // Small blocks take long: less of them tells as much.
                    let size = effort.file.min(chunk * 1024);
                    self.files(table, size, chunk, name, 1)?;
                    self.files(table, size, chunk, name, BLOCKS)?;
                }
                self.stream(effort, table)?;
            }
            if effort.wants(Only::Runs) {
                self.runs(effort, table)?;
            }
        }
        Ok(())
    }

    fn pings(&mut self, effort: Effort, table: &mut Table) -> Result<()> {
        let count = effort.pings;
        let cpu = |before: Sample, after: Sample| (after.cpu.saturating_sub(before.cpu)) as f64 / 1e3 / count as f64;

        self.va.at(None)?;
        self.va.ping()?;
        let before = self.sample(true)?;
        let ours = times(count, || self.va.ping())?;
        let after = self.sample(true)?;
        let our_cpu = cpu(before[0], after[0]);

        let before = self.sample(false)?;
        self.qga.ping()?;
        let theirs = times(count, || self.qga.ping())?;
        let after = self.sample(false)?;
        let their_cpu = cpu(before[2], after[2]);

        let raw = match &mut self.raw {
            Some(raw) => times(count, || raw.ping())?,
            None => vec![],
        };

        let user = self.user.clone();
        self.va.at(Some(&user))?;
        self.va.ping()?;
        let before = self.sample(true)?;
        let as_user = times(count, || self.va.ping())?;
        let after = self.sample(true)?;
        let user_cpu = cpu(before[0], after[0]) + cpu(before[1], after[1]);
        self.va.at(None)?;

        for (level, ours, cpu) in [("system", &ours, our_cpu), ("user", &as_user, user_cpu)] {
            for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
                let row = table.row(&format!("ping, {level} level, {name}"), "µs", Better::Less);
                row.ours.extend(percentile(ours, part));
                row.theirs.extend(percentile(&theirs, part));
                row.raw.extend(percentile(&raw, part));
            }
            let row = table.row(&format!("ping, {level} level, CPU"), "µs", Better::Less);
            row.ours.push(cpu);
            row.theirs.push(their_cpu);
        }
        Ok(())
    }

    fn pipelined(&mut self, effort: Effort, table: &mut Table) -> Result<()> {
        let rate = |took: Duration| (effort.windows * WINDOW) as f64 / took.as_secs_f64() / 1e3;
        let ours = rate(total(effort.windows, || self.va.pings())?);
        let theirs = rate(total(effort.windows, || self.qga.pings())?);
        let row = table.row("pings, 64 under way", "k/s", Better::More);
        row.ours.push(ours);
        row.theirs.push(theirs);
        Ok(())
    }

    fn files(&mut self, table: &mut Table, size: usize, chunk: usize, name: &str, window: usize) -> Result<()> {
        let path = format!("{}/file", self.dir);
        let transfer = Transfer { path: &path, size, chunk, window };
        let rate = |took: Duration| size as f64 / took.as_secs_f64() / 1e6;
        let remove = format!("rm -f {path}");
        let how = if window == 1 { "one by one".to_owned() } else { format!("{window} under way") };

        // On a virtio-serial port a run ended waiting for qemu-ga with several blocks under way: there it gets one at a time.
        let to_qga = Transfer { window: if self.guest { 1 } else { window }, ..transfer };
        let step = |who: &str, what: &str| format!("{who}: file {what}, {name}, {how}");
        let theirs = rate(total(1, || self.qga.write_file(to_qga)).with_context(|| step("qemu-ga", "write"))?);
        let their_read = rate(total(1, || self.qga.read_file(to_qga)).with_context(|| step("qemu-ga", "read"))?);
        self.shell(true, &remove)?;
        let ours = rate(total(1, || self.va.write_file(transfer)).with_context(|| step("virtagent", "write"))?);
        let our_read = rate(total(1, || self.va.read_file(transfer)).with_context(|| step("virtagent", "read"))?);
        self.shell(true, &remove)?;
        for (what, ours, theirs) in [("read", our_read, their_read), ("write", ours, theirs)] {
            let row = table.row(&format!("file {what}, {name}, {how}"), "MB/s", Better::More);
            row.ours.push(ours);
            row.theirs.push(theirs);
        }
        Ok(())
    }

    /// The raw channel's rate, beside every file's.
    fn stream(&mut self, effort: Effort, table: &mut Table) -> Result<()> {
        let Some(raw) = &mut self.raw else { return Ok(()) };
        let took = raw.stream(effort.file).context("the raw channel, many bytes")?;
        let rate = effort.file as f64 / took.as_secs_f64() / 1e6;
        table.rows.iter_mut().filter(|row| row.what.starts_with("file ")).for_each(|row| row.raw.push(rate));
        Ok(())
    }

    fn runs(&mut self, effort: Effort, table: &mut Table) -> Result<()> {
        let ours = times(effort.runs, || self.va.run(&["/bin/true"]).map(drop))?;
        let theirs = times(effort.runs, || self.qga.run(&["/bin/true"]).map(drop))?;
        let row = table.row("run /bin/true, p50", "µs", Better::Less);
        row.ours.extend(percentile(&ours, 0.5));
        row.theirs.extend(percentile(&theirs, 0.5));
        Ok(())
    }

    /// Memory at this moment.
    pub fn memory(&mut self, when: &str, table: &mut Table) -> Result<()> {
        let samples = self.sample(true)?;
        let [system, user, theirs] = samples;
        for (name, ours) in [("system daemon", system), ("user daemon", user)] {
            let mut push = |what: &str, ours: u64, theirs: u64| {
                let row = table.row(&format!("{what}, {name}, {when}"), "MiB", Better::Less);
                row.ours.push(ours as f64 / 1024.0);
                row.theirs.push(theirs as f64 / 1024.0);
            };
            push("PSS", ours.pss, theirs.pss);
            push("private dirty", ours.dirty, theirs.dirty);
        }
        eprintln!("   threads {when}: virtagentd {} and {}, qemu-ga {}", system.threads, user.threads, theirs.threads);
        Ok(())
    }
}

/// Wake-ups while nobody calls, once with the host there and once without: `disconnect` makes the difference. A script that
/// runs by itself looks at both ends of the time.
pub fn idle(
    effort: Effort,
    bench: Bench,
    table: &mut Table,
    reconnect: impl FnOnce(Bench) -> Result<Bench>,
) -> Result<Bench> {
    let mut bench = bench;
    if !effort.wants_all() {
        return Ok(bench);
    }
    eprintln!("   idle, for a minute");
    rest(effort, &mut bench, "present")?;
    std::thread::sleep(SETTLE + effort.idle + MARGIN);
    wake_ups(effort, &mut bench, "host there", "present", table)?;
    // It starts to count when the host is away for long.
    rest(effort, &mut bench, "away")?;
    let mut bench = reconnect(bench)?;
    wake_ups(effort, &mut bench, "host away", "away", table)?;
    Ok(bench)
}

/// Threads that had something to do go after 10 s without.
const SETTLE: Duration = Duration::from_secs(12);
/// What looking takes in an emulated guest: nobody calls before it is done.
const MARGIN: Duration = Duration::from_secs(8);

/// How long [`idle`]'s reconnecting has to stay away.
pub fn absence(effort: Effort) -> Duration {
    SETTLE + effort.idle + MARGIN
}

fn rest(effort: Effort, bench: &mut Bench, name: &str) -> Result<()> {
    let look = sample::script(&bench.pids.all());
    let dir = &bench.dir;
    let script = format!(
        "(sleep {}; ({look}) > {dir}/{name}.1; sleep {}; ({look}) > {dir}/{name}.part; mv {dir}/{name}.part {dir}/{name}.2) </dev/null >/dev/null 2>&1 &",
        SETTLE.as_secs(),
        effort.idle.as_secs()
    );
    bench.shell(true, &script).map(drop)
}

fn wake_ups(effort: Effort, bench: &mut Bench, name: &str, file: &str, table: &mut Table) -> Result<()> {
    let script = "for i in $(seq 60); do [ -e FILE.2 ] && break; sleep 1; done; cat FILE.1 FILE.2";
    let text = bench.shell(true, &script.replace("FILE", &format!("{}/{file}", bench.dir)))?;
    let samples = sample::parse(&text)?;
    let [system, user, theirs, system2, user2, theirs2] = samples[..] else {
        anyhow::bail!("the script that counts wake-ups did not end in time: {text}");
    };
    let ten = |before: Sample, after: Sample| {
        after.switches.saturating_sub(before.switches) as f64 * 10.0 / effort.idle.as_secs_f64()
    };
    for (daemon, before, after) in [("system daemon", system, system2), ("user daemon", user, user2)] {
        let row = table.row(&format!("wake-ups in 10 s, {daemon}, {name}"), "", Better::Less);
        row.ours.push(ten(before, after));
        row.theirs.push(ten(theirs, theirs2));
    }
    Ok(())
}

/// A script on this machine.
pub fn here(script: &str) -> Result<String> {
    let output = std::process::Command::new("/bin/sh").args(["-c", script]).output().context("can't start /bin/sh")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long each of so many took, in µs.
fn times(count: usize, mut ask: impl FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let begin = Instant::now();
        ask()?;
        times.push(begin.elapsed().as_nanos() as f64 / 1e3);
    }
    Ok(times)
}

/// How long so many took together.
fn total(count: usize, mut ask: impl FnMut() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    (0..count).try_for_each(|_| ask())?;
    Ok(begin.elapsed())
}
