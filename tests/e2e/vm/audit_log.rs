//! The guest owner's proof of what the host did.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::guest::{Guest, ensure_says};

/// What the whole test asked for: the user's name (empty for the system level) and the method.
const CALLS: &[(&str, &str)] = &[
    ("", "session.list"),
    ("", "va.capabilities"),
    ("", "exec.start"),
    ("alice", "exec.start"),
    ("bob", "exec.start"),
    ("", "file.open"),
    ("", "file.write"),
    ("", "file.read"),
    ("", "file.close"),
    ("", "file.digest"),
    ("", "file.remove"),
    ("bob", "file.write"),
    ("alice", "file.mkdir"),
    ("alice", "demo.greet"),
    ("bob", "demo.greet"),
    ("alice", "host.event"),
    ("", "power.shutdown"),
    ("", "power.cancel_shutdown"),
    ("", "va.shutdown"),
    ("", "info.dmesg"),
    ("", "va.getdmesg"),
    ("", "info.logins"),
    ("", "info.get"),
];

pub fn verifies_and_holds_every_call_of_this_test(guest: &mut Guest) -> Result<()> {
    guest.inside_ok("virtagentd audit verify")?;
    ensure!(
        guest.inside_ok("stat -c '%a %U' /var/log/virtagent/audit.jsonl")?.trim() == "600 root",
        "others may read the log"
    );

    let copy = guest.dir().join("audit.jsonl");
    guest.host_ok(&["file", "get", "/var/log/virtagent/audit.jsonl", &copy.display().to_string()])?;
    let text = std::fs::read_to_string(&copy)?;
    let records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: {line}")))
        .collect::<Result<_>>()?;
    let calls: Vec<&Value> = records.iter().filter(|record| record["type"] == "call").collect();
    let seen: BTreeSet<(&str, &str)> =
        calls.iter().map(|call| (call["user"].as_str().unwrap_or(""), call["method"].as_str().unwrap_or(""))).collect();
    for call in CALLS {
        ensure!(seen.contains(call), "the log does not hold {call:?}; it holds {seen:?}");
    }
    refusals_are_there(&records, &calls)?;
    nothing_that_was_moved_is_in_the_log(&text)?;
    every_call_has_its_outcome(&records, &calls)?;

    // One changed byte is found.
    let forge = "cp -a /var/log/virtagent /tmp/forged && sed -i '3s/\"method\":\"./\"method\":\"x/; 3s/\"time\":\"2/\"time\":\"1/' \
        /tmp/forged/audit.jsonl && sed 's,/var/log/virtagent,/tmp/forged,' /etc/virtagent/virtagentd.toml > /tmp/forged.toml && \
        ! cmp -s /var/log/virtagent/audit.jsonl /tmp/forged/audit.jsonl && virtagentd audit verify --config /tmp/forged.toml 2>&1";
    let ended = guest.inside(forge)?;
    ensure!(ended.code != 0, "a forged log verifies: {}", ended.stdout);
    ensure_says(&ended.stdout, "audit.jsonl")
}

/// A user's own policy is judged by that user's daemon: the refusal is then the outcome of a call that the owner allowed.
fn refusals_are_there(records: &[Value], calls: &[&Value]) -> Result<()> {
    let diary = |call: &&&Value| call["user"] == "alice" && call["params"].to_string().contains("private/diary");
    let denied = |call: &&Value| {
        let outcome =
            |record: &&Value| record["type"] == "outcome" && record["id"] == call["id"] && !record["fault"].is_null();
        call["verdict"] == "deny" || records.iter().any(|record| outcome(&record))
    };
    ensure!(calls.iter().filter(diary).any(denied), "the refusal by alice's own policy is not in the log");
    Ok(())
}

fn nothing_that_was_moved_is_in_the_log(text: &str) -> Result<()> {
    let longest = text.lines().map(str::len).max().unwrap_or(0);
    ensure!(longest < 64 << 10, "a record is {longest} bytes long: bulk data belongs not in the log");
    Ok(())
}

/// Each call has one outcome, but for the one that reads the log and those whose daemon was killed or restarted meanwhile.
fn every_call_has_its_outcome(records: &[Value], calls: &[&Value]) -> Result<()> {
    // Numbers begin anew with each daemon, so they are counted, not matched.
    let outcomes = records.iter().filter(|record| record["type"] == "outcome").count();
    let opened = calls.iter().filter(|call| call["fault"].is_null()).count();
    ensure!(opened >= outcomes && opened - outcomes <= 8, "{opened} calls were opened and {outcomes} closed");
    Ok(())
}
