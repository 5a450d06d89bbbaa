//! What a host does in a guest: programs, files, terminals, and being called.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use virtagent_tests::process;

use super::guest::{Guest, ensure_says};

pub fn a_program_runs_as_whom_the_call_names(guest: &Guest) -> Result<()> {
    for (user, id) in
        [(None, "0 root"), (Some("alice"), "1000 alice"), (Some("bob"), "1001 bob"), (Some("1001"), "1001 bob")]
    {
        let as_user: &[&str] = if let Some(user) = &user { &["-u", user] } else { &[] };
        let said = guest.host_ok(&[as_user, &["exec", "--", "sh", "-c", "echo $(id -u) $(id -un)"]].concat())?;
        ensure!(said.trim() == id, "for {user:?} it ran as {said:?}");
    }
    // alice sits at the seat: she is logged in at tty1.
    let said = guest.host_ok(&["-u", "@active", "exec", "--", "id", "-un"])?;
    ensure!(said.trim() == "alice", "the active seat's user is {said:?}");
    let groups = guest.host_ok(&["-u", "bob", "exec", "--", "id", "-Gn"])?;
    ensure!(groups.trim() == "bob", "bob has more groups than his own: {groups:?}");
    let output = guest.host(&["-u", "alice", "exec", "--", "sh", "-c", "exit 7"])?;
    ensure!(output.status.code() == Some(7), "the exit code is not the program's: {}", output.status);
    ensure_says(&guest.host_refused(&["-u", "mallory", "exec", "--", "id"])?, "mallory")
}

pub fn sixty_four_mebibytes_go_each_way_with_equal_digests(guest: &mut Guest) -> Result<()> {
    let (there, back) = (guest.dir().join("there.bin"), guest.dir().join("back.bin"));
    let mut bytes = vec![0_u8; 64 << 20];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    fs::write(&there, &bytes)?;
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();

    guest.host_ok(&["file", "put", &there.display().to_string(), "/srv/big.bin"])?;
    let inside = guest.inside_ok("sha256sum < /srv/big.bin")?;
    ensure!(inside.starts_with(&digest), "in the guest it is {inside}, not {digest}");
    guest.host_ok(&["file", "get", "/srv/big.bin", &back.display().to_string()])?;
    ensure!(fs::read(&back)? == bytes, "what came back differs");

    let listed = guest.host_ok(&["file", "digest", "-a", "sha256", "/srv/big.bin"])?;
    ensure!(listed.contains(&digest), "file digest says {listed}, not {digest}");
    guest.host_ok(&["-u", "bob", "file", "put", &there.display().to_string(), "bobs.bin"])?;
    let inside = guest.inside_ok("sha256sum < /home/bob/bobs.bin && stat -c %U /home/bob/bobs.bin")?;
    ensure!(inside.starts_with(&digest) && inside.trim().ends_with("bob"), "bob's file: {inside}");
    guest.host_ok(&["-u", "bob", "file", "rm", "bobs.bin"])?;
    guest.host_ok(&["file", "rm", "/srv/big.bin"]).map(|_| ())
}

/// The host command wants a terminal: util-linux's script is one.
pub fn a_terminal_is_opened_with_its_size_and_its_exit_code(guest: &Guest) -> Result<()> {
    let shell = process::shown(&guest.command(&["-u", "alice", "shell"])?);
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &format!("stty rows 33 cols 99; exec {shell}"), "/dev/null"]);
    let log = guest.dir().join("shell.log");
    let mut child = command
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(fs::File::create(&log)?)
        .stderr(Stdio::null())
        .spawn()
        .context("can't start script (package bsdutils)")?;
    let said = || -> Result<String> { Ok(String::from_utf8_lossy(&fs::read(&log)?).into_owned()) };
    let mut stdin = child.stdin.take().context("no stdin")?;
    let outcome = (|| {
        let limit = virtagent_tests::vm::LIMIT;
        let prompt = || Ok(said()?.contains("alice@").then_some(()));
        virtagent_tests::wait::until(limit, "alice's prompt", prompt)?;
        stdin.write_all(b"tty; stty size; id -un; exit 3\r")?;
        virtagent_tests::wait::until(limit, "the shell's end", || Ok(child.try_wait()?))
    })();
    let _ = child.kill();
    let status = outcome.with_context(|| said().unwrap_or_default())?;
    let said = said()?;
    ensure!(status.code() == Some(3), "it ended with {status}: {said}");
    for want in ["/dev/pts/", "33 99", "alice"] {
        ensure!(said.contains(want), "the terminal did not show {want}: {said}");
    }
    Ok(())
}

pub fn a_users_program_calls_the_host_which_knows_who_it_is(guest: &mut Guest) -> Result<()> {
    let handler = "demo.greet=read params; echo \"{\\\"hello\\\": \\\"$VIRTAGENT_USERNAME\\\", \\\"got\\\": $params}\"";
    let serve = guest.background("serve", &["serve", "--handler", handler])?;
    for user in ["alice", "bob"] {
        // Until the host command has the channel.
        let call =
            "until virtagent --json to-host call demo.greet word=please 2>/tmp/greet.$(id -un); do sleep 0.2; done";
        let said = guest.inside_as(user, call).with_context(|| serve.said().unwrap_or_default())?;
        let answer: serde_json::Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        ensure!(answer["hello"] == user, "the host took {user} for somebody else: {answer}");
        ensure!(answer["got"]["word"] == "please", "the host got other parameters: {answer}");
    }
    let event = "virtagent to-host call host.event topic=backup.done data='{\"bytes\": 1234}'";
    guest.inside_as("alice", event)?;
    guest.inside_as("alice", "virtagent to-host call va.ping")?;
    let refused = guest.inside_as("alice", "virtagent to-host call exec.run argv='[\"id\"]' 2>&1 && exit 1; true")?;
    ensure!(!refused.contains("uid="), "a user's call ran on the host: {refused}");
    let said = serve.said()?;
    for want in ["demo.greet", "alice", "bob", "backup.done"] {
        ensure!(said.contains(want), "serve did not print {want}: {said}");
    }
    Ok(())
}

pub fn a_user_narrows_the_policy_for_themselves(guest: &mut Guest) -> Result<()> {
    let policy = guest.dir().join("policy.toml");
    fs::write(
        &policy,
        "[[policy.rule]]\naction = \"deny\"\nmethod = \"file.*\"\npath = \"/home/alice/private{,/**}\"\n",
    )?;
    guest.host_ok(&["-u", "alice", "exec", "--", "sh", "-c", "mkdir -p private && echo secret > private/diary"])?;
    let read = ["-u", "alice", "file", "cat", "private/diary"];
    ensure!(guest.host_ok(&read)?.trim() == "secret", "before, the host could not read it");
    guest.host_ok(&["-u", "alice", "file", "mkdir", "-p", ".config/virtagent"])?;
    guest.host_ok(&["-u", "alice", "file", "put", &policy.display().to_string(), ".config/virtagent/policy.toml"])?;
    guest.inside_as("alice", "systemctl --user reload virtagent-user")?;
    // A reload is told, not awaited.
    guest.0.wait("the refusal by alice's policy", |vm| Ok((!vm.host(&read)?.status.success()).then_some(())))?;
    ensure_says(&guest.host_refused(&read)?, "denied")?;
    guest.host_ok(&["-u", "alice", "file", "ls", "."]).map(|_| ())
}
