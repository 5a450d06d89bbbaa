//! What ends a call early, and that nothing of it is left: deadlines, cancelling, a host that goes.

use std::time::{Duration, Instant};

use agent_core::frame::Heads;
use agent_core::rpc::FaultCode;
use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use virtagent_tests::local::{Guest, LIMIT, Setup, gone, is_root};
use virtagent_tests::wait;

use crate::support::{blob, endless, refused, running, text, unique_seconds};

/// The levels that a test goes through: the system's, and a user's.
const LEVELS: [Option<&str>; 2] = [None, Some("nobody")];

fn heads(user: Option<&str>, timeout_ms: Option<u64>) -> Heads {
    Heads { username: user.map(str::to_owned), timeout_ms, ..Heads::default() }
}

#[test]
fn a_deadline_ends_the_call_and_kills_its_program_at_both_levels() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let mut host = guest.raw()?;
    for user in LEVELS {
        let seconds = unique_seconds();
        let begin = Instant::now();
        host.call_with("with-a-deadline0", "exec.run", endless(&seconds), heads(user, Some(300)))?;
        running(&seconds)?;
        refused(host.answer("with-a-deadline0")?, FaultCode::TimedOut);
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(2), "{took:?}");
        gone(&seconds)?;
    }
    Ok(())
}

#[test]
fn a_call_that_names_no_deadline_has_the_configured_one_and_zero_is_none() -> Result<()> {
    let guest =
        Setup::default().config("[limits]\ndefault_timeout = \"1s\"\n[policy]\ndefault = \"allow\"\n").start()?;
    let mut host = guest.raw()?;
    // Heads that 2011 did not know: the guest knows that this host is patient.
    let patient = Heads { version: Some("1".into()), ..Heads::default() };
    let begin = Instant::now();
    let argv = |seconds: &str| json!({"argv": ["sleep", seconds]});
    host.call_with("no-deadline-here", "exec.run", argv(&unique_seconds()), patient.clone())?;
    refused(host.answer("no-deadline-here")?, FaultCode::TimedOut);
    assert!(begin.elapsed() >= Duration::from_millis(990), "{:?}", begin.elapsed());
    host.call_with("deadline-of-zero", "exec.run", argv("1.2"), Heads { timeout_ms: Some(0), ..patient })?;
    assert_eq!(host.answer("deadline-of-zero")??["exit_code"], 0);
    Ok(())
}

#[test]
fn va_cancel_ends_a_call_early_and_kills_its_program_at_both_levels() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let mut host = guest.raw()?;
    for user in LEVELS {
        let seconds = unique_seconds();
        host.call_with("to-be-cancelled0", "exec.run", endless(&seconds), heads(user, Some(0)))?;
        running(&seconds)?;
        assert_eq!(host.ask("the-cancelling-0", "va.cancel", json!({"tag": "of-nobodys-call0"}))??, false);
        assert_eq!(host.ask("the-cancelling-1", "va.cancel", json!({"tag": "to-be-cancelled0"}))??, true);
        let begin = Instant::now();
        refused(host.answer("to-be-cancelled0")?, FaultCode::Cancelled);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
        gone(&seconds)?;
        assert_eq!(host.ask("the-cancelling-2", "va.cancel", json!({"tag": "to-be-cancelled0"}))??, false);
    }
    Ok(())
}

#[test]
fn one_user_cannot_cancel_the_hosts_calls_to_another() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let mut games = guest.session(5)?;
    games.hello()?;
    let mut host = guest.raw()?;
    let seconds = unique_seconds();
    host.call_with("not-yours-to-end", "exec.run", endless(&seconds), heads(Some("nobody"), Some(0)))?;
    let pids = running(&seconds)?;
    games.call("games-cancelling", "va.cancel", json!({"tag": "not-yours-to-end"}))?;
    games.call_as("@system", "games-cancelling2", "va.cancel", json!({"tag": "not-yours-to-end"}))?;
    refused(games.answer("games-cancelling2")?, FaultCode::Denied);
    assert!(!running(&seconds)?.is_empty() && kill(Pid::from_raw(i32::try_from(pids[0])?), None).is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leaves_in_mid_call_takes_programs_and_handles_with_it_and_the_next_one_works() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let mut nobody = guest.user("nobody")?;
    let inbox = guest.path("inbox");
    guest.folder_of("nobody", &inbox)?;
    let host = guest.host().await?;
    let (waited, unwaited) = (unique_seconds(), unique_seconds());
    let mut handles = Vec::new();
    for user in LEVELS {
        let name = format!("{}/half-{}", inbox.display(), user.unwrap_or("root"));
        let call = |method: &'static str, params| {
            let host = &host;
            async move {
                match user {
                    Some(user) => host.call_as(user, method, params).await,
                    None => host.call(method, params).await,
                }
            }
        };
        let open = call("file.open", json!({"path": name, "mode": "replace"})).await?;
        call("file.write", json!({"handle": open["handle"], "data": blob(b"half of it")})).await?;
        let started = call("exec.start", endless(&unwaited)).await?;
        handles.push((user, open["handle"].clone(), started["handle"].clone()));
        drop(host.start(user, "exec.run", endless(&waited)));
    }
    running(&waited)?;
    running(&unwaited)?;
    drop(host);
    gone(&waited)?;
    gone(&unwaited)?;
    let left = || std::fs::read_dir(&inbox).map(|entries| entries.flatten().map(|e| e.file_name()).collect::<Vec<_>>());
    wait::until(LIMIT, "nothing half-written to be left", || Ok(left()?.is_empty().then_some(())))?;
    let host = guest.host().await?;
    for (user, file, program) in handles {
        for (method, handle) in [("file.read", file), ("exec.wait", program)] {
            let params = json!({"handle": handle});
            let outcome = match user {
                Some(user) => host.call_as(user, method, params).await,
                None => host.call(method, params).await,
            };
            assert!(outcome.is_err(), "{method} of the host before: {outcome:?}");
        }
    }
    assert_eq!(host.call_as("nobody", "va.ping", json!(null)).await?, "pong");
    assert!(nobody.runs()? && guest.system().runs()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_leaves_in_the_middle_of_a_body_costs_the_next_one_nothing() -> Result<()> {
    let guest = Guest::start()?;
    for cut in [1, 20, 90, 130, 50_000] {
        let mut host = guest.raw()?;
        let mut frame = bytes::BytesMut::new();
        let call = virtagent_tests::local::call_frame(
            "cut-in-the-midst",
            "file.write",
            json!({"handle": 1, "data": blob(&vec![7; 100_000])}),
            Heads::default(),
        )?;
        tokio_util::codec::Encoder::encode(&mut agent_core::frame::FrameEncoder, call, &mut frame)?;
        host.bytes(&frame[..cut])?;
        drop(host);
        let host = guest.host().await?;
        assert_eq!(host.call("va.ping", json!(null)).await?, "pong", "after a cut at {cut}");
    }
    assert!(guest.audit().iter().all(|record| record["method"] != "file.write"), "nothing half ran");
    Ok(())
}

/// A process' number, state, signal sets and command line, for a failure's message.
fn command_line(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let wanted = ["Name", "State", "PPid", "SigBlk", "SigIgn", "SigCgt"];
    let lines = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    format!("{pid}: {}", lines.collect::<Vec<_>>().join(" "))
}

#[test]
fn ending_the_host_command_ends_the_program_that_it_runs() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    for user in [&[][..], &["-u", "nobody"]] {
        for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            let seconds = unique_seconds();
            let script = format!("sleep {seconds} & sleep {seconds}");
            let args = [user, &["exec", "--", "sh", "-c", &script]].concat();
            let mut command = guest.virtagent_command(&args)?;
            let mut host = command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
            wait::until(LIMIT, "the program in the guest", || {
                // Both, and nothing on the way there: a shell that is about to fork may swallow a SIGINT.
                let sleeps = running(&seconds)?.into_iter().filter(|pid| command_line(*pid).contains("Name:\tsleep"));
                Ok((sleeps.count() == 2).then_some(()))
            })?;
            kill(Pid::from_raw(i32::try_from(host.id())?), signal)?;
            let ended = wait::until(LIMIT, "the host command's end", || Ok(host.try_wait()?));
            let left = || virtagent_tests::local::processes(&seconds).into_iter().map(command_line).collect::<Vec<_>>();
            assert!(ended.is_ok(), "{signal} did not end the host command; there are {:?}", left());
            gone(&seconds)?;
        }
    }
    let output = guest.virtagent_ok(&["exec", "--", "echo", "still here"])?;
    assert_eq!(output, "still here\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_done_before_the_deadline_is_not_touched_by_it() -> Result<()> {
    let guest = Guest::start()?;
    let mut host = guest.raw()?;
    host.call_with("quick-and-normal", "exec.run", json!({"argv": ["echo", "done"]}), heads(None, Some(5_000)))?;
    assert_eq!(text(&host.answer("quick-and-normal")??["stdout"]), "done\n");
    Ok(())
}
