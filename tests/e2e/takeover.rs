//! One daemon a user: the lock, takeover, and what becomes of sessions when a daemon goes.

use std::time::{Duration, Instant};

use agent_core::rpc::FaultCode;
use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::json;
use virtagent_tests::local::{Daemon, Guest, Host, HostDouble, LIMIT, account, gone, is_root};

use crate::support::{endless, refused, running, text, unique_seconds};

/// What a daemon that was replaced exits with.
const REPLACED: i32 = 150;

fn second(guest: &Guest, user: &str) -> Result<Daemon> {
    let pid_file = guest.runtime(user)?.join("second.pid");
    // Another runtime folder, as in another session: the control socket of the first stays its own.
    let folder = guest.path(&format!("run-{user}-second"));
    guest.folder_of(user, &folder)?;
    let mut command = guest.user_command(user, &["--pid-file", &pid_file.display().to_string(), "-p"])?;
    command.arg(guest.user_socket()).env("XDG_RUNTIME_DIR", folder);
    let mut daemon = Daemon::start("second", guest.dir(), command)?;
    daemon.said("joined the system daemon")?;
    Ok(daemon)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_takes_over_and_calls_in_flight_end_at_once_saying_so() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let mut old = guest.user("nobody")?;
    let seconds = unique_seconds();
    let calls: Vec<_> = (0..3).map(|_| host.start(Some("nobody"), "exec.run", endless(&seconds))).collect();
    let started = host.call_as("nobody", "exec.start", endless(&seconds)).await?;
    assert!(started["handle"].is_i64());
    running(&seconds)?;
    let begin = Instant::now();
    let new = second(&guest, "nobody")?;
    for call in calls {
        let fault = refused(Host::finish(call, Duration::from_secs(10)).await, FaultCode::SessionClosed);
        assert!(fault.message.contains("taken over"), "{fault}");
        assert!(fault.message.contains(&new.pid().to_string()), "{fault}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    assert_eq!(old.ended(LIMIT)?.code(), Some(REPLACED));
    gone(&seconds)?;
    // The new one answers, and the old one does not come back for it.
    let parent = host.call_as("nobody", "exec.run", json!({"argv": ["sh", "-c", "echo $PPID"]})).await?;
    assert_eq!(text(&parent["stdout"]).trim(), new.pid().to_string());
    let replaced = host.double.wait_event("session.replaced", "nobody")?;
    assert!(replaced.params.to_string().contains(&new.pid().to_string()), "{replaced:?}");
    assert_eq!(guest.events("session.replaced").len(), 1);
    assert_eq!(guest.events("session.disconnected").len(), 0, "the session never ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_say_hello_takes_nothing_over() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let mut nobody = guest.user("nobody")?;
    let uid = account("nobody")?.uid.as_raw();
    let mut silent = guest.session(uid)?;
    let mut rude = guest.session(uid)?;
    refused(rude.ask("before-hello-001", "va.ping", json!([]))?, FaultCode::InvalidRequest);
    rude.call_as("@system", "before-hello-002", "va.ping", json!([]))?;
    refused(rude.answer("before-hello-002")?, FaultCode::InvalidRequest);
    // Bytes that are no frame, and half of one.
    silent.bytes(b"\xff\xff\xffPOST /RPC2 HTTP/1.1\r\nContent-Type: text/xml\r\nContent-Le")?;
    let parent = host.call_as("nobody", "exec.run", json!({"argv": ["sh", "-c", "echo $PPID"]})).await?;
    assert_eq!(text(&parent["stdout"]).trim(), nobody.pid().to_string());
    assert!(nobody.runs()?);
    // Another user's hello takes over nothing of nobody's either.
    let mut games = guest.session(account("games")?.uid.as_raw())?;
    games.hello()?;
    assert_eq!(host.call_as("nobody", "va.ping", json!(null)).await?, "pong");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_of_one_user_are_few_and_cost_no_other_user() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let uid = account("nobody")?.uid.as_raw();
    let mut strangers: Vec<_> = (0..40).map(|_| guest.session(uid)).collect::<Result<_>>()?;
    // Those beyond the bound are closed, the others wait for their hello.
    virtagent_tests::wait::until(LIMIT, "32 of 40 strangers to be closed", || {
        let moment = Duration::from_millis(2);
        let closed =
            strangers.iter_mut().filter_map(|stranger| stranger.next_within(moment).ok()?.is_none().then_some(()));
        Ok((closed.count() == 32).then_some(()))
    })?;
    let mut games = guest.session(account("games")?.uid.as_raw())?;
    games.hello()?;
    Ok(())
}

#[test]
fn a_second_daemon_does_not_start_while_the_lock_is_held_and_names_the_holder() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let mut first = guest.user("nobody")?;
    let mut command = guest.user_command("nobody", &["-p"])?;
    command.arg(guest.user_socket());
    let mut refused = Daemon::spawn("refused", guest.dir(), command)?;
    assert_eq!(refused.ended(LIMIT)?.code(), Some(1));
    let said = refused.log();
    assert!(said.contains(&format!("process {}", first.pid())), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(first.runs()?);
    Ok(())
}

#[test]
fn a_stale_pid_file_never_blocks_whatever_is_in_it() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let mut first = guest.user("nobody")?;
    first.kill()?;
    let file = guest.runtime("nobody")?.join("virtagent/virtagentd.pid");
    assert_eq!(std::fs::read_to_string(&file)?.trim(), first.pid().to_string(), "the file is stale now");
    let second = guest.user("nobody")?;
    assert_eq!(std::fs::read_to_string(&file)?.trim(), second.pid().to_string());
    drop(second);
    // Of a process that lives and is no daemon, longer than a pid, and nothing readable.
    for stale in ["1\n", "99999999999999999999999999999999\n", "\u{0}\u{1}rubbish", ""] {
        std::fs::write(&file, stale)?;
        let daemon = guest.user("nobody")?;
        assert_eq!(std::fs::read_to_string(&file)?.trim(), daemon.pid().to_string());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_daemons_come_back_when_the_system_daemon_restarts() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let mut nobody = guest.user("nobody")?;
    let mut games = guest.user("games")?;
    guest.restart_system()?;
    nobody.said_times("joined the system daemon", 2)?;
    games.said_times("joined the system daemon", 2)?;
    guest.kill_system()?;
    guest.start_system()?;
    nobody.said_times("joined the system daemon", 3)?;
    games.said_times("joined the system daemon", 3)?;
    let host = guest.host().await?;
    for user in ["nobody", "games"] {
        assert_eq!(host.call_as(user, "va.ping", json!(null)).await?, "pong");
    }
    drop(host);
    guest.verify_audit()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_user_daemon_in_mid_call_faults_the_caller_at_once_and_leaves_no_process() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let mut nobody = guest.user("nobody")?;
    let seconds = unique_seconds();
    let call = host.start(Some("nobody"), "exec.run", json!({"argv": ["sleep", seconds]}));
    running(&seconds)?;
    nobody.kill()?;
    refused(Host::finish(call, Duration::from_secs(10)).await, FaultCode::SessionClosed);
    refused(host.call_as("nobody", "va.ping", json!(null)).await, FaultCode::NoSession);
    host.double.wait_event("session.disconnected", "nobody")?;
    gone(&seconds)?;
    let _back = guest.user("nobody")?;
    assert_eq!(host.call_as("nobody", "va.ping", json!(null)).await?, "pong");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_system_daemon_in_mid_call_faults_the_caller_at_once_and_leaves_no_process() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let mut nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let (of_root, of_nobody) = (unique_seconds(), unique_seconds());
    let calls = [
        host.start(None, "exec.run", json!({"argv": ["sleep", of_root]})),
        host.start(Some("nobody"), "exec.run", endless(&of_nobody)),
    ];
    running(&of_root)?;
    running(&of_nobody)?;
    guest.kill_system()?;
    for call in calls {
        refused(Host::finish(call, Duration::from_secs(10)).await, FaultCode::SessionClosed);
    }
    gone(&of_nobody)?;
    gone(&of_root)?;
    guest.start_system()?;
    nobody.said_times("joined the system daemon", 2)?;
    let host = guest.host().await?;
    assert_eq!(host.call_as("nobody", "va.ping", json!(null)).await?, "pong");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_come_and_go_are_told_to_the_host() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let mut nobody = guest.user("nobody")?;
    let connected = host.double.wait_event("session.connected", "nobody")?;
    assert!(connected.username.is_none(), "the system daemon itself says it: {connected:?}");
    let data = if connected.params.is_array() { &connected.params[0]["data"] } else { &connected.params["data"] };
    assert_eq!(data["uid"], account("nobody")?.uid.as_raw());
    assert_eq!(data["pid"], nobody.pid());
    nobody.signal(Signal::SIGTERM)?;
    assert_eq!(nobody.ended(LIMIT)?.code(), Some(0));
    host.double.wait_event("session.disconnected", "nobody")?;
    Ok(())
}
