//! The daemon as a process: its start, its end, whom it runs as, and the way from a user's program to the host.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use agent_core::rpc::FaultCode;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use virtagent_tests::local::{ALLOW_ALL, Daemon, Guest, Host, HostDouble, LIMIT, Setup, account, gone, is_root};
use virtagent_tests::{process, wait};

use crate::support::{endless, refused, running, text, unique_seconds};

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_ends_the_system_daemon_with_0_within_5_s_with_calls_running() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let seconds = unique_seconds();
    let calls = [None, Some("nobody")].map(|user| host.start(user, "exec.run", endless(&seconds)));
    // One that is done in time is answered.
    let short = host.start(None, "exec.run", json!({"argv": ["sh", "-c", "sleep 0.7; echo in time"]}));
    wait::until(LIMIT, "three programs", || {
        Ok((guest.audit().iter().filter(|r| r["method"] == "exec.run").count() == 3).then_some(()))
    })?;
    running(&seconds)?;
    let begin = Instant::now();
    guest.system().signal(Signal::SIGTERM)?;
    let status = guest.system().ended(Duration::from_secs(6))?;
    assert_eq!(status.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_millis(5_200), "{:?}", begin.elapsed());
    for call in calls {
        assert!(Host::finish(call, LIMIT).await.is_err());
    }
    assert_eq!(text(&Host::finish(short, LIMIT).await?["stdout"]), "in time\n");
    gone(&seconds)?;
    assert!(!guest.port().exists() && !guest.user_socket().exists(), "a socket was left");
    guest.verify_audit()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_end_a_user_daemon_with_0_within_5_s_with_a_call_running() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host().await?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut nobody = guest.user("nobody")?;
        let seconds = unique_seconds();
        let call = host.start(Some("nobody"), "exec.run", endless(&seconds));
        running(&seconds)?;
        nobody.signal(signal)?;
        assert_eq!(nobody.ended(Duration::from_secs(6))?.code(), Some(0));
        assert!(Host::finish(call, LIMIT).await.is_err());
        gone(&seconds)?;
        assert!(!guest.runtime("nobody")?.join("virtagent/control.sock").exists());
    }
    assert_eq!(host.call("va.ping", json!(null)).await?, "pong");
    Ok(())
}

#[test]
fn a_start_in_the_background_is_reported_when_it_failed_and_silent_when_it_did_not() -> Result<()> {
    let guest = Setup::default().prepare()?;
    let command = |port: &std::path::Path| -> Result<Command> {
        let mut command = guest.command()?;
        command.args(["-d", "-c", "unix-listen", "-p"]).arg(port).arg("--user-socket").arg(guest.user_socket());
        command.arg("--config").arg(guest.config_file());
        command.env_remove("NOTIFY_SOCKET");
        Ok(command)
    };
    // The daemon keeps our standard error; a pipe of it would not end with its parent.
    let start = |port: &std::path::Path| -> Result<(Option<i32>, String)> {
        let log = guest.path("background.log");
        let file = std::fs::File::create(&log)?;
        let mut child =
            command(port)?.stdin(std::process::Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        let status = wait::until(LIMIT, "the start in the background", || Ok(child.try_wait()?))?;
        Ok((status.code(), std::fs::read_to_string(log)?))
    };
    let nowhere = guest.path("no/such/folder/port.sock");
    let (code, log) = start(&nowhere)?;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("port.sock"), "{log}");
    assert!(virtagent_tests::local::processes(&nowhere.display().to_string()).is_empty());

    let (code, log) = start(&guest.port())?;
    assert_eq!((code, log.as_str()), (Some(0), ""));
    let output = guest.virtagent(&["ping", "-c", "1"])?;
    let pids = virtagent_tests::local::processes(&guest.port().display().to_string());
    // A second one finds everything taken, and says so.
    let (code, log) = start(&guest.port())?;
    for pid in &pids {
        kill(Pid::from_raw(i32::try_from(*pid)?), Signal::SIGTERM)?;
    }
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(pids.len(), 1);
    assert_eq!(code, Some(1));
    assert!(log.contains("another daemon"), "{log}");
    gone(&guest.port().display().to_string())
}

#[test]
fn only_root_starts_another_users_daemon_and_root_itself_has_none() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let start = |as_uid: Option<u32>, name: &str| -> Result<std::process::Output> {
        let mut command = guest.command()?;
        command.args(["--user-daemon", "--username", name, "-p"]).arg(guest.user_socket());
        command.arg("--config").arg(guest.config_file()).env("XDG_RUNTIME_DIR", guest.runtime("nobody")?);
        if let Some(uid) = as_uid {
            command.uid(uid).gid(uid);
        }
        process::run(&mut command, b"", LIMIT)
    };
    let nobody = account("nobody")?.uid.as_raw();
    for name in ["games", "root", "0", "5"] {
        let output = start(Some(nobody), name)?;
        assert_eq!(output.status.code(), Some(1), "nobody as {name}: {}", said(&output));
        assert!(said(&output).contains("only root"), "{}", said(&output));
    }
    let output = start(None, "no-such-user-here")?;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no-such-user-here"), "{}", said(&output));
    assert!(guest.events("session.connected").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_root_starts_for_a_user_is_that_user_for_good() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let games = account("games")?;
    let mut command = guest.user_command("games", &["-p"])?;
    command.arg(guest.user_socket()).env("SECRET_OF_ROOT", "1").env("LD_LIBRARY_PATH", "/root").env("HOME", "/root");
    let mut daemon = Daemon::start("games", guest.dir(), command)?;
    daemon.said("joined the system daemon")?;
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
    assert_eq!(daemon.status("Uid")?, four(games.uid.as_raw()));
    assert_eq!(daemon.status("Gid")?, four(games.gid.as_raw()));
    let name = std::ffi::CString::new("games")?;
    let mut groups: Vec<u32> = nix::unistd::getgrouplist(&name, games.gid)?.iter().map(|gid| gid.as_raw()).collect();
    groups.sort_unstable();
    let mut its: Vec<u32> = daemon.status("Groups")?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    its.sort_unstable();
    assert_eq!(its, groups);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(daemon.status(set)?, "0000000000000000", "{set}");
    }
    let environment = std::fs::read(format!("/proc/{}/environ", daemon.pid()))?;
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let variables: Vec<&str> = environment.split('\0').collect();
    for wanted in [format!("HOME={}", games.dir.display()), "USER=games".to_owned(), "LOGNAME=games".to_owned()] {
        assert!(variables.contains(&wanted.as_str()), "{wanted}: {variables:?}");
    }
    for root in ["SECRET_OF_ROOT", "LD_LIBRARY_PATH", "/root", "SUDO_", "SSH_"] {
        assert!(!environment.contains(root), "{root} of root's in {variables:?}");
    }
    // No file of root's stays open in it.
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.flatten() {
        open.extend(std::fs::read_link(entry.path()));
    }
    let strange: Vec<_> = open.iter().filter(|path| path.starts_with("/") && !path.starts_with("/dev")).collect();
    let known = |path: &&std::path::PathBuf| path.starts_with(guest.dir());
    assert!(strange.iter().all(known), "{strange:?}");
    let host = guest.host().await?;
    let done =
        host.call_as("games", "exec.run", json!({"argv": ["sh", "-c", "id -u; id -G; cat /etc/shadow"]})).await?;
    assert!(text(&done["stdout"]).starts_with(&format!("{}\n{}", games.uid, games.gid)), "{done}");
    assert_ne!(done["exit_code"], 0, "it can't read what root alone may");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_program_reaches_the_host_through_its_own_daemon_in_its_own_name() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let runtime = guest.runtime("nobody")?;
    let run = |uid: u32, args: &[&str]| -> Result<std::process::Output> {
        let mut command = Command::new(process::built("virtagent")?);
        command.args(args).env("XDG_RUNTIME_DIR", &runtime).uid(uid).gid(uid);
        process::run(&mut command, b"", LIMIT)
    };
    let nobody = account("nobody")?.uid.as_raw();
    let output = run(nobody, &["to-host", "call", "va.ping"])?;
    assert!(output.status.success() && said(&output).contains("pong"), "{}", said(&output));
    let output = run(nobody, &["to-host", "call", "host.event", "topic=backup.done", "data={\"bytes\": 7}"])?;
    assert!(output.status.success(), "{}", said(&output));
    let heard = host.double.wait_heard("the event", |heard| heard.params.to_string().contains("backup.done"))?;
    assert_eq!(heard.username.as_deref(), Some("nobody"));
    // What the host does not serve is not served by anybody else instead.
    for method in ["exec.run", "session.list", "session.hello", "file.open"] {
        let output = run(nobody, &["to-host", "call", method])?;
        assert!(!output.status.success(), "{method}: {}", said(&output));
    }
    // Another user is kept out of the socket.
    let output = run(account("games")?.uid.as_raw(), &["to-host", "call", "va.ping"])?;
    assert!(!output.status.success(), "{}", said(&output));
    guest.audited("the user's event", |record| {
        record["method"] == "host.event" && record["user"] == "nobody" && record["direction"] == "guest-to-host"
    })?;
    drop(host);
    let begin = Instant::now();
    let output = run(nobody, &["to-host", "call", "va.ping"])?;
    assert!(!output.status.success() && begin.elapsed() < Duration::from_secs(3), "without a host: {}", said(&output));
    Ok(())
}

#[test]
fn a_configuration_is_checked_before_it_is_used_and_the_first_defect_named() -> Result<()> {
    let guest = Setup::default().prepare()?;
    let check = |config: &str| -> Result<std::process::Output> {
        guest.configure(config)?;
        guest.tool(&["--check-config"])
    };
    let output = check(ALLOW_ALL)?;
    assert!(output.status.success(), "{}", said(&output));
    for (config, word) in [
        ("[limits]\nbody = \"17MiB\"\n", "virtagentd.toml:2"),
        ("[limits]\nbdy = \"1MiB\"\n", "body"),
        ("[polcy]\n", "policy"),
        ("[[policy.rule]]\naction = \"deny\"\nmethod = \"file.*\"\npath = \"relative\"\n", "virtagentd.toml:4"),
    ] {
        let output = check(config)?;
        assert_eq!(output.status.code(), Some(1), "{config}");
        assert!(said(&output).contains(word), "{config}: {}", said(&output));
        assert_eq!(said(&output).trim_end().lines().count(), 1, "{}", said(&output));
    }
    let output = process::run(guest.command()?.arg("--list-modules"), b"", LIMIT)?;
    for module in ["files", "exec", "power", "info"] {
        assert!(said(&output).lines().any(|line| line.starts_with(module)), "{module}: {}", said(&output));
    }
    Ok(())
}

#[test]
fn a_second_system_daemon_does_not_take_the_sockets_of_the_first_and_a_stale_socket_is_no_hindrance() -> Result<()> {
    let mut guest = Guest::start()?;
    let mut command = guest.command()?;
    command.args(["-c", "unix-listen", "-p"]).arg(guest.port()).arg("--user-socket").arg(guest.user_socket());
    command.arg("--config").arg(guest.config_file());
    let mut second = Daemon::spawn("second", guest.dir(), command)?;
    assert_eq!(second.ended(LIMIT)?.code(), Some(1));
    assert!(guest.raw()?.ask("still-the-first0", "va.ping", json!([]))?.is_ok());
    guest.kill_system()?;
    assert!(guest.port().exists(), "the socket is stale now");
    guest.start_system()?;
    guest.raw()?.ask("the-third-answer", "va.ping", json!([]))?.context("va.ping")?;
    // What is no socket is not removed.
    guest.kill_system()?;
    std::fs::remove_file(guest.port())?;
    std::fs::write(guest.port(), "precious")?;
    assert!(guest.start_system().is_err());
    assert_eq!(std::fs::read_to_string(guest.port())?, "precious");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_daemon_waits_for_a_system_daemon_that_is_not_there_yet_and_says_unavailable_meanwhile() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Setup::default().prepare()?;
    let mut command = guest.user_command("nobody", &["-p"])?;
    command.arg(guest.user_socket());
    let mut nobody = Daemon::start("nobody", guest.dir(), command)?;
    guest.start_system()?;
    nobody.said("joined the system daemon")?;
    let host = guest.host().await?;
    assert_eq!(host.call_as("nobody", "va.ping", json!(null)).await?, "pong");
    refused(host.call_as("games", "va.ping", json!(null)).await, FaultCode::NoSession);
    Ok(())
}
