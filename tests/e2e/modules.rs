//! A module that panics, blocks or hangs harms no other; one that is not there is named.

use std::time::{Duration, Instant};

use agent_core::link::CallOptions;
use agent_core::rpc::FaultCode;
use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{ALLOW_ALL, Daemon, Guest, Host, LIMIT, Setup, is_root};
use virtagent_tests::wait;

use crate::support::{refused, text};

fn troubled() -> Setup {
    Setup::default().program("test-daemon").modules(&["files", "exec", "trouble"])
}

async fn call(host: &Host, user: Option<&str>, method: &str, params: serde_json::Value) -> Outcome {
    match user {
        Some(user) => host.call_as(user, method, params).await,
        None => host.call(method, params).await,
    }
}

type Outcome = Result<serde_json::Value, agent_core::rpc::Fault>;

/// Other modules and the router answer, and soon.
async fn others_work(host: &Host, user: Option<&str>) -> Result<()> {
    let begin = Instant::now();
    assert_eq!(call(host, user, "va.ping", json!(null)).await?, "pong");
    let done = call(host, user, "exec.run", json!({"argv": ["echo", "well"]})).await?;
    assert_eq!(text(&done["stdout"]), "well\n");
    call(host, user, "file.stat", json!({"path": "/etc/hostname"})).await?;
    assert!(begin.elapsed() < Duration::from_secs(5), "it took {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_costs_its_module_the_calls_of_that_moment_and_no_other_module_anything() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = troubled().start()?;
    let mut nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    for user in [None, Some("nobody")] {
        for expected in 1..=3 {
            assert_eq!(call(&host, user, "trouble.count", json!(null)).await?, expected);
        }
        let fault = refused(call(&host, user, "trouble.panic", json!(null)).await, FaultCode::Internal);
        assert!(fault.message.contains("trouble") && fault.message.contains("as it was asked to"), "{fault}");
        others_work(&host, user).await?;
        // It is built again, with a fresh state.
        let begin = Instant::now();
        let count = loop {
            match call(&host, user, "trouble.count", json!(null)).await {
                Ok(count) => break count,
                Err(fault) if fault.is(FaultCode::Unavailable) && begin.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(fault) => panic!("{fault}"),
            }
        };
        assert_eq!(count, 1);
    }
    assert!(guest.system().runs()? && nobody.runs()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_panics_again_and_again_is_built_again_less_and_less_often() -> Result<()> {
    let guest = troubled().start()?;
    let host = guest.host().await?;
    let (mut panics, mut waits) = (0, 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        let fault = call(&host, None, "trouble.panic", json!(null)).await.unwrap_err();
        match fault.kind() {
            Some(FaultCode::Internal) => panics += 1,
            Some(FaultCode::Unavailable) => waits += 1,
            _ => panic!("{fault}"),
        }
    }
    // 100 ms, 200 ms, 400 ms: at most four in the first second.
    assert!((2..=5).contains(&panics), "{panics} panics and {waits} refusals in a second");
    others_work(&host, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_blocks_its_thread_blocks_no_other_and_no_deadline() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = troubled().start()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    for user in [None, Some("nobody")] {
        let blocking = host.start(user, "trouble.block", json!({"ms": 1_500}));
        let behind = host.start(user, "trouble.count", json!(null));
        guest.audited("the blocking call", |record| {
            record["type"] == "call" && record["method"] == "trouble.block" && record["user"].as_str() == user
        })?;
        let options = CallOptions {
            username: user.map(str::to_owned),
            timeout: Some(Duration::from_millis(200)),
            encoding: None,
        };
        let begin = Instant::now();
        refused(host.call_with("trouble.count", json!(null), options).await, FaultCode::TimedOut);
        assert!(begin.elapsed() < Duration::from_millis(800), "a deadline beside it took {:?}", begin.elapsed());
        others_work(&host, user).await?;
        assert!(!blocking.is_finished(), "the module still blocks");
        Host::finish(blocking, LIMIT).await?;
        Host::finish(behind, LIMIT).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_hangs_in_a_module_ends_by_its_deadline_and_does_not_keep_the_daemon_from_ending() -> Result<()> {
    let mut guest = troubled().start()?;
    let host = guest.host().await?;
    let options = CallOptions { timeout: Some(Duration::from_millis(200)), ..CallOptions::default() };
    refused(host.call_with("trouble.hang", json!(null), options).await, FaultCode::TimedOut);
    let hanging = host.start(None, "trouble.hang", json!(null));
    let blocking = host.start(None, "trouble.block", json!({"ms": 20_000}));
    guest.audited("the blocking call", |record| record["method"] == "trouble.block")?;
    guest.system().signal(nix::sys::signal::Signal::SIGTERM)?;
    let status = guest.system().ended(Duration::from_secs(6))?;
    assert_eq!(status.code(), Some(0));
    assert!(Host::finish(hanging, LIMIT).await.is_err() && Host::finish(blocking, LIMIT).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_can_not_be_built_says_so_and_the_others_run() -> Result<()> {
    let config = format!("{ALLOW_ALL}[module.trouble]\npanic_in_build = true\n");
    let guest = troubled().config(&config).start()?;
    let host = guest.host().await?;
    let fault = refused(call(&host, None, "trouble.count", json!(null)).await, FaultCode::Unavailable);
    assert!(fault.message.contains("trouble"), "{fault}");
    others_work(&host, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_is_not_enabled_is_named_in_the_error() -> Result<()> {
    let guest = Setup::default().program("test-daemon").modules(&["files"]).start()?;
    let host = guest.host().await?;
    for (method, module) in [("trouble.count", "trouble"), ("exec.run", "exec")] {
        let params = if module == "exec" { json!({"argv": ["true"]}) } else { json!(null) };
        let fault = refused(call(&host, None, method, params).await, FaultCode::MethodNotFound);
        assert!(fault.message.contains(&format!("module {module}")), "{fault}");
    }
    refused(call(&host, None, "no.such", json!(null)).await, FaultCode::MethodNotFound);
    let methods = call(&host, None, "system.listMethods", json!(null)).await?;
    assert!(!methods.to_string().contains("exec.run"), "{methods}");
    Ok(())
}

#[test]
fn a_daemon_does_not_start_with_a_module_that_is_not_compiled_in_and_names_it() -> Result<()> {
    let guest: Guest = Setup::default().modules(&["files", "trouble"]).prepare()?;
    let mut command = guest.command()?;
    command.args(["-c", "unix-listen", "-p"]).arg(guest.port()).arg("--user-socket").arg(guest.user_socket());
    command.arg("--config").arg(guest.config_file());
    let mut daemon = Daemon::spawn("refused", guest.dir(), command)?;
    assert_eq!(daemon.ended(LIMIT)?.code(), Some(1));
    let said = wait::until(LIMIT, "a word of it", || Ok(Some(daemon.log()).filter(|log| !log.is_empty())))?;
    assert!(said.contains("\"trouble\"") && said.contains("files"), "{said}");
    Ok(())
}
