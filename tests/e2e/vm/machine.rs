//! What only a machine of its own can be asked: power, the kernel's messages, logins, and to sleep undisturbed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::guest::{Guest, ensure_says};

const ENCODINGS: [&str; 3] = ["xml", "json", "cbor"];

/// Every method of power, by position and by name; each plan is far enough away to be taken back.
pub fn power_is_planned_and_taken_back_in_every_encoding(guest: &Guest) -> Result<()> {
    for encoding in ENCODINGS {
        let call =
            |method: &str, params: &str| guest.host_ok(&["--encoding", encoding, "--json", "call", method, params]);
        for params in [r#"["reboot", 3600]"#, r#"{"mode": "halt", "delay": 3600, "message": "not yet"}"#] {
            ensure_says(&call("power.shutdown", params)?, "\"at\"")?;
            ensure_says(&call("power.cancel_shutdown", "[]")?, "true")?;
        }
        ensure_says(&call("power.cancel_shutdown", "{}")?, "false")?;
        // The 2011 method acts after 5 s; in one multicall it is taken back at once.
        for params in [r#"["powerdown"]"#, r#"{"mode": "powerdown"}"#] {
            let calls = format!(
                r#"[[{{"methodName": "va.shutdown", "params": {params}}}, {{"methodName": "power.cancel_shutdown"}}]]"#
            );
            ensure_says(&call("system.multicall", &calls)?, "true")?;
        }
    }
    let refused = guest.host_refused(&["call", "power.shutdown", r#"["explode"]"#])?;
    ensure_says(&refused, "explode")
}

pub fn the_kernels_messages_and_the_logins_are_told_in_every_encoding(guest: &Guest) -> Result<()> {
    for encoding in ENCODINGS {
        let call =
            |method: &str, params: &str| guest.host_ok(&["--encoding", encoding, "--json", "call", method, params]);
        for params in ["[4096]", r#"{"max_bytes": 4096}"#] {
            ensure_says(&call("info.dmesg", params)?, "\"text\"")?;
        }
        ensure_says(&call("va.getdmesg", "[]")?, "] ")?;
        ensure_says(&call("info.logins", "{}")?, "alice")?;
        ensure_says(&call("info.get", "[]")?, "bookworm")?;
    }
    Ok(())
}

/// With no host at the port the daemons sleep: no thread of theirs runs, but for systemd's watchdog twice a minute.
pub fn nothing_wakes_while_the_host_is_away(guest: &mut Guest) -> Result<()> {
    // A thread and its turns so far, one line each.
    const COUNT: &str = "for p in $(pgrep -x virtagentd); do for t in /proc/$p/task/*; do \
        awk -v t=$t '/ctxt_switches/ {n += $2} END {print t, n}' $t/status; done; done";
    let count = |guest: &mut Guest| -> Result<BTreeMap<String, u64>> {
        let said = guest.inside_ok(COUNT)?;
        let line = |line: &str| {
            let (thread, turns) = line.split_once(' ').context("a thread and its turns")?;
            Ok((thread.to_owned(), turns.trim().parse()?))
        };
        said.lines().map(line).collect()
    };
    let begin = Instant::now();
    loop {
        let before = count(guest)?;
        guest.inside_ok("sleep 10")?;
        let after = count(guest)?;
        // A worker thread that ended meanwhile is counted no more; one that came is.
        let woken: u64 = after.iter().map(|(thread, turns)| turns - before.get(thread).unwrap_or(&0)).sum();
        // Three daemons, each with one turn for the watchdog at most.
        if woken <= 6 {
            return Ok(());
        }
        // What was done before may still have an end to write; but it has one.
        eprintln!("{woken} wake-ups of the three daemons in 10 s with the host away; looking again");
        ensure!(begin.elapsed() < Duration::from_secs(180), "no quieter for 180 s: {woken} wake-ups in 10 s");
    }
}
