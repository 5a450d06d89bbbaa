//! Nothing runs unrecorded, and what is recorded stays.

use std::path::{Path, PathBuf};
use std::process::Command;

use agent_core::rpc::FaultCode;
use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Guest, HostDouble, Setup, is_root};

use crate::support::{refused, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chain_of_a_whole_run_verifies_and_holds_every_call() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let config = "[policy]\ndefault = \"allow\"\n[[policy.rule]]\naction = \"deny\"\nmethod = \"file.remove\"\n";
    let mut guest = Setup::default().config(config).start()?;
    let mut nobody = guest.user("nobody")?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let mut made = Vec::new();
    for user in [None, Some("nobody"), Some("games"), Some("no-such-user-here")] {
        for (method, params) in [
            ("va.ping", json!(null)),
            ("va.capabilities", json!(null)),
            ("exec.run", json!({"argv": ["true"]})),
            ("exec.run", json!({"argv": ["/no/such/program"]})),
            ("file.stat", json!(["/etc/hostname"])),
            ("file.remove", json!({"path": "/no/such/file"})),
            ("no.such.method", json!([1, 2])),
            ("file.stat", json!({"wrong": "parameters"})),
        ] {
            let outcome = match user {
                Some(user) => host.call_as(user, method, params).await,
                None => host.call(method, params).await,
            };
            made.push((user, method, outcome.err().map(|fault| fault.code)));
        }
    }
    let mut games = guest.session(virtagent_tests::local::account("games")?.uid.as_raw())?;
    games.hello()?;
    games.ask("from-the-user-00", "va.ping", json!([]))??;
    games.ask("from-the-user-01", "host.event", json!({"topic": "t", "data": 1}))??;
    drop(host);
    nobody.kill()?;
    guest.restart_system()?;
    guest.verify_audit()?;

    let records = guest.audit();
    let mut opened: Vec<_> = records.iter().filter(|record| record["type"] == "call").collect();
    for (user, method, code) in made {
        // Each call has a record of its own, with its outcome.
        let found = opened.iter().position(|record| {
            let id = &record["id"];
            let ending = records.iter().find(|r| r["type"] == "outcome" && &r["id"] == id).unwrap_or(record);
            let fault = ending["fault"]["code"].as_i64();
            record["method"] == method
                && record["origin"] == "host"
                && (record["user"].as_str() == user)
                && fault == code
        });
        let Some(found) = found else { panic!("no record of {method} for {user:?} with {code:?}: {opened:#?}") };
        opened.remove(found);
    }
    for method in ["va.ping", "host.event"] {
        let found = opened.iter().any(|r| r["method"] == method && r["origin"] == "user" && r["user"] == "games");
        assert!(found, "no record of the user's {method}: {opened:#?}");
    }
    let unclosed = records.iter().filter(|r| r["type"] == "call" && r["verdict"] == "allow");
    for record in unclosed {
        assert!(records.iter().any(|r| r["type"] == "outcome" && r["id"] == record["id"]), "not closed: {record}");
    }
    Ok(())
}

#[test]
fn a_changed_removed_or_moved_record_is_found() -> Result<()> {
    let mut guest = Guest::start()?;
    let mut host = guest.raw()?;
    for number in 0..5 {
        host.ask(&format!("recorded-{number:07}"), "va.ping", json!([]))??;
    }
    drop(host);
    guest.system().signal(nix::sys::signal::Signal::SIGTERM)?;
    guest.system().ended(virtagent_tests::local::LIMIT)?;
    guest.verify_audit()?;
    let log = std::fs::read_to_string(guest.audit_file())?;
    let lines: Vec<&str> = log.lines().collect();
    let joined = |lines: Vec<&str>| lines.join("\n") + "\n";
    let middle = lines.len() / 2;
    let removed = joined([&lines[..middle], &lines[middle + 1..]].concat());
    let swapped = joined([&lines[..middle], &[lines[middle + 1], lines[middle]], &lines[middle + 2..]].concat());
    let doubled = joined([&lines[..=middle], &lines[middle..]].concat());
    let headless = joined(lines[1..].to_vec());
    for (what, text) in [
        ("changed", log.replacen("va.ping", "va.pong", 1)),
        ("removed", removed),
        ("swapped", swapped),
        ("doubled", doubled),
        ("without its beginning", headless),
    ] {
        std::fs::write(guest.audit_file(), text)?;
        let output = guest.tool(&["audit", "verify"])?;
        assert_eq!(output.status.code(), Some(1), "{what}: {}", String::from_utf8_lossy(&output.stdout));
    }
    std::fs::write(guest.audit_file(), log)?;
    guest.verify_audit()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_record_is_opened_before_the_call_runs() -> Result<()> {
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let marker = format!("marked-{}", std::process::id());
    let show = json!({"argv": ["sh", "-c", format!("cat {} # {marker}", guest.audit_file().display())]});
    let seen = text(&host.call("exec.run", show).await?["stdout"]);
    assert!(seen.contains(&marker), "the program does not find its own call in the log: {seen}");
    Ok(())
}

#[test]
fn the_log_is_roots_alone() -> Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let guest = Guest::start()?;
    let meta = std::fs::metadata(guest.audit_file())?;
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert_eq!(meta.uid(), nix::unistd::geteuid().as_raw());
    Ok(())
}

/// A small file system of its own.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(path: &Path) -> Option<Self> {
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=0755", "none"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            other => {
                eprintln!("skipped: a tmpfs can't be mounted here: {other:?}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_full_disk_calls_are_refused_saying_so_and_run_again_when_there_is_room() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Setup::default().prepare()?;
    let Some(_disk) = Tmpfs::mount(&guest.path("log")) else { return Ok(()) };
    guest.start_system()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let touched = guest.path("touched");
    let touch = json!({"argv": ["touch", touched]});
    for round in 0..2 {
        let filler = guest.path("log/filler");
        assert!(std::fs::write(&filler, vec![0; 1 << 20]).is_err(), "the disk is full");
        for user in [None, Some("nobody")] {
            // Whatever room the last page had is used up at some time.
            let mut fault = None;
            for _ in 0..200 {
                let _ = std::fs::remove_file(&touched);
                let outcome = match user {
                    Some(user) => host.call_as(user, "exec.run", touch.clone()).await,
                    None => host.call("exec.run", touch.clone()).await,
                };
                if let Err(refusal) = outcome {
                    fault = Some(refusal);
                    break;
                }
            }
            let fault = fault.expect("a full disk ends the recording");
            refused(Err::<(), _>(fault.clone()), FaultCode::Unavailable);
            assert!(fault.message.contains("recorded") && fault.message.contains("space"), "{fault}");
            assert!(!touched.exists(), "a call that was refused has run, round {round}");
        }
        std::fs::remove_file(&filler)?;
        let done = host.call("exec.run", touch.clone()).await?;
        assert_eq!(done["exit_code"], 0);
        assert!(touched.exists());
        assert_eq!(host.call_as("nobody", "va.ping", json!(null)).await?, "pong");
    }
    drop(host);
    guest.verify_audit()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_a_multicall_to_a_user_is_judged_and_recorded_by_the_system_daemon() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let config = "[policy]\ndefault = \"allow\"\n[[policy.rule]]\naction = \"deny\"\nmethod = \"file.open\"\n";
    let guest = Setup::default().config(config).start()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let calls = json!([
        {"methodName": "exec.run", "params": {"argv": ["id", "-un"]}},
        {"methodName": "file.open", "params": ["/etc/hostname", "read"]},
        {"methodName": "system.multicall", "params": [[]]},
    ]);
    let results = host.call_as("nobody", "system.multicall", json!([calls])).await?;
    assert_eq!(text(&results[0][0]["stdout"]), "nobody\n");
    assert_eq!(results[1]["faultCode"], FaultCode::Denied.number());
    assert_eq!(results[2]["faultCode"], FaultCode::InvalidParams.number(), "it does not nest");
    // Only `calls` is looked at, so only `calls` may come.
    let sly = json!([{"a": [{"methodName": "exec.run", "params": {"argv": ["true"]}}], "calls": []}]);
    refused(host.call_as("nobody", "system.multicall", sly).await, FaultCode::InvalidParams);

    let records = guest.audit();
    let of = |method: &str, verdict: &str| {
        let is = |r: &&serde_json::Value| r["type"] == "call" && r["method"] == method && r["verdict"] == verdict;
        records.iter().filter(is).filter(|record| record["user"] == "nobody" && record["level"] == "user").count()
    };
    assert_eq!((of("exec.run", "allow"), of("file.open", "deny")), (1, 1), "{records:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_results_of_a_multicall_are_bounded_together() -> Result<()> {
    let guest = Setup::default().config("[policy]\ndefault = \"allow\"\n").start()?;
    let host = guest.host().await?;
    let opened = host.call("file.open", json!(["/dev/zero", "read"])).await?;
    let read = json!({"methodName": "file.read", "params": {"handle": opened["handle"], "length": 1 << 20}});
    let fault = refused(host.call("system.multicall", json!([vec![read; 200]])).await, FaultCode::LimitExceeded);
    assert!(fault.message.contains("limits.body"), "{fault}");
    let reads = guest.audit().iter().filter(|record| record["method"] == "file.read").count();
    assert!(reads < 5, "it went on for {reads} reads");
    Ok(())
}
