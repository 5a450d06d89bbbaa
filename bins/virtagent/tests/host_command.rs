//! The built command against a scripted guest: what users type, what they read, how it exits.

#![allow(clippy::unwrap_used)]

mod scripted_guest;

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use agent_core::rpc::{FaultCode, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use scripted_guest::{Mischief, ScriptedGuest, eventually};

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

/// 11 MiB and a bit, no two blocks alike.
fn content() -> Vec<u8> {
    (0..11 * (1 << 20) + 12_345u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

#[test]
fn ping_answers_as_ping_does() {
    let guest = ScriptedGuest::start();
    let output = guest.run(&["ping", "-c", "3", "-i", "1ms"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("3 calls, 3 answers, 0% lost"), "{}", out(&output));
    assert_eq!(out(&output).matches("seq=").count(), 3);
}

#[test]
fn a_guest_that_says_nothing_is_exit_code_3_and_one_line() {
    let guest = ScriptedGuest::that(Mischief { silent: true, ..Mischief::default() });
    let output = guest.run(&["--timeout", "200ms", "info"]);
    assert_eq!(code(&output), 3);
    assert_eq!(err(&output).lines().count(), 1);
    assert!(err(&output).contains("no answer on ") && err(&output).contains("systemctl status virtagentd"));
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_code_2() {
    let guest = ScriptedGuest::start();
    for wrong in [&["pnig"][..], &["exec"], &["file", "get"], &["call", "bad name"], &["call", "a.b", "x={"]] {
        let output = guest.run(wrong);
        assert_eq!(code(&output), 2, "{wrong:?}: {}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{wrong:?}: {}", err(&output));
        assert!(err(&output).starts_with("virtagent: "), "{wrong:?}: {}", err(&output));
    }
}

#[test]
fn a_refusal_prints_the_rule() {
    let guest = ScriptedGuest::that(Mischief { denied: vec!["va.ping"], ..Mischief::default() });
    let output = guest.run(&["call", "va.ping"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("rule 3, /etc/v.toml:12"), "{}", err(&output));
    let output = guest.run(&["--json", "call", "va.ping"]);
    let error: serde_json::Value = serde_json::from_str(&err(&output)).unwrap();
    assert_eq!(error["error"]["code"], FaultCode::Denied.number());
}

#[test]
fn users_are_a_table_and_json() {
    let guest = ScriptedGuest::start();
    assert!(out(&guest.run(&["users"])).starts_with("USER    UID  SESSION"));
    let users: serde_json::Value = serde_json::from_str(&out(&guest.run(&["users", "--json"]))).unwrap();
    assert_eq!(users[0]["username"], "alice");
}

#[test]
fn a_file_comes_whole_in_every_encoding() {
    let guest = ScriptedGuest::start();
    fs::write(guest.path("big"), content()).unwrap();
    for encoding in ["cbor", "json", "xml"] {
        let dest = guest.path(encoding);
        let output = guest.run(&[
            "--encoding",
            encoding,
            "file",
            "get",
            guest.path("big").to_str().unwrap(),
            dest.to_str().unwrap(),
        ]);
        assert_eq!(code(&output), 0, "{}", err(&output));
        assert!(fs::read(&dest).unwrap() == content());
        assert!(!guest.path(&format!("{encoding}.part")).exists());
    }
    assert!(!guest.calls().contains(&"file.digest".to_owned()), "the digest at close was enough");
}

#[test]
fn short_reads_and_writes_are_filled_up() {
    let guest = ScriptedGuest::that(Mischief { short: Some(300_000), ..Mischief::default() });
    fs::write(guest.path("big"), content()).unwrap();
    let path = guest.path("big").to_str().unwrap().to_owned();
    let output = guest.run(&["file", "get", &path, "copy"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(fs::read(guest.path("copy")).unwrap() == content());
    let back = guest.path("back").to_str().unwrap().to_owned();
    let output = guest.run(&["file", "put", "copy", &back]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(fs::read(&back).unwrap() == content());
}

#[test]
fn a_get_that_broke_off_is_resumed_where_it_was() {
    let guest = ScriptedGuest::that(Mischief { vanish_at: Some(10), ..Mischief::default() });
    fs::write(guest.path("big"), content()).unwrap();
    let path = guest.path("big").to_str().unwrap().to_owned();
    let output = guest.run(&["file", "get", &path, "copy"]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(err(&output).contains("run the same command again"), "{}", err(&output));
    assert!(!guest.path("copy").exists());
    let kept = fs::metadata(guest.path("copy.part")).unwrap().len();
    assert!(kept > 0, "something was kept");
    guest.becomes(Mischief::default());
    let output = guest.run(&["--json", "file", "get", &path, "copy"]);
    let said: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
    assert_eq!(said["resumed_at"], kept);
    assert!(fs::read(guest.path("copy")).unwrap() == content());
    assert!(!guest.path("copy.part.meta").exists());
}

#[test]
fn a_part_that_is_not_the_files_beginning_is_thrown_away() {
    let guest = ScriptedGuest::that(Mischief { vanish_at: Some(10), ..Mischief::default() });
    fs::write(guest.path("big"), content()).unwrap();
    let path = guest.path("big").to_str().unwrap().to_owned();
    guest.run(&["file", "get", &path, "copy"]);
    let mut part = fs::read(guest.path("copy.part")).unwrap();
    part[5] ^= 1;
    fs::write(guest.path("copy.part"), part).unwrap();
    guest.becomes(Mischief::default());
    let output = guest.run(&["file", "get", &path, "copy"]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(err(&output).contains("starting from scratch"), "{}", err(&output));
    assert!(fs::read(guest.path("copy")).unwrap() == content());
}

#[test]
fn bytes_that_changed_on_the_way_never_become_the_file() {
    let guest = ScriptedGuest::that(Mischief { corrupt: true, ..Mischief::default() });
    fs::write(guest.path("big"), content()).unwrap();
    fs::write(guest.path("copy"), "old").unwrap();
    let output = guest.run(&["file", "get", guest.path("big").to_str().unwrap(), "copy"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("digests differ"), "{}", err(&output));
    assert_eq!(fs::read(guest.path("copy")).unwrap(), b"old");
    assert!(!guest.path("copy.part").exists());
}

#[test]
fn an_empty_file_is_a_file() {
    let guest = ScriptedGuest::start();
    fs::write(guest.path("empty"), "").unwrap();
    let path = guest.path("empty").to_str().unwrap().to_owned();
    assert_eq!(code(&guest.run(&["file", "get", &path, "copy"])), 0);
    assert_eq!(fs::read(guest.path("copy")).unwrap(), b"");
    let back = guest.path("back").to_str().unwrap().to_owned();
    assert_eq!(code(&guest.run(&["file", "put", "copy", &back])), 0);
    assert_eq!(fs::read(back).unwrap(), b"");
}

#[test]
fn a_put_goes_beside_the_file_and_leaves_it_alone_when_it_breaks_off() {
    let guest = ScriptedGuest::that(Mischief { vanish_at: Some(3), ..Mischief::default() });
    fs::write(guest.path("local"), content()).unwrap();
    fs::write(guest.path("dest"), "old").unwrap();
    let dest = guest.path("dest").to_str().unwrap().to_owned();
    let output = guest.run(&["file", "put", "local", &dest]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert_eq!(fs::read(&dest).unwrap(), b"old");
    guest.becomes(Mischief::default());
    assert_eq!(code(&guest.run(&["file", "put", "local", &dest])), 0);
    assert!(fs::read(&dest).unwrap() == content());
}

#[test]
fn a_resumable_put_goes_on_where_it_broke_off() {
    let guest = ScriptedGuest::that(Mischief { vanish_at: Some(5), ..Mischief::default() });
    fs::write(guest.path("local"), content()).unwrap();
    let dest = guest.path("dest").to_str().unwrap().to_owned();
    let output = guest.run(&["file", "put", "--resume", "local", &dest]);
    assert_eq!(code(&output), 3, "{}", err(&output));
    assert!(err(&output).contains("dest.virtagent-part"), "{}", err(&output));
    let kept = fs::metadata(guest.path("dest.virtagent-part")).unwrap().len();
    guest.becomes(Mischief::default());
    let output = guest.run(&["--json", "file", "put", "--resume", "local", &dest]);
    let said: serde_json::Value = serde_json::from_str(&out(&output)).unwrap_or_else(|_| panic!("{}", err(&output)));
    assert_eq!(said["resumed_at"], kept);
    assert!(fs::read(&dest).unwrap() == content());
    assert!(!guest.path("dest.virtagent-part").exists());
}

#[test]
fn standard_streams_are_a_dash() {
    let guest = ScriptedGuest::start();
    fs::write(guest.path("hello"), "hello\n").unwrap();
    let path = guest.path("hello").to_str().unwrap().to_owned();
    assert_eq!(out(&guest.run(&["file", "get", &path, "-"])), "hello\n");
    assert_eq!(out(&guest.run(&["file", "cat", &path, &path])), "hello\nhello\n");
    let dest = guest.path("from-stdin").to_str().unwrap().to_owned();
    let mut put =
        guest.command(&["file", "put", "-", &dest]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(b"piped").unwrap();
    assert!(put.wait().unwrap().success());
    assert_eq!(fs::read(dest).unwrap(), b"piped");
}

#[test]
fn a_program_has_our_streams_and_its_exit_code() {
    let guest = ScriptedGuest::start();
    let output = guest.run(&["exec", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((code(&output), out(&output).as_str(), err(&output).as_str()), (7, "out\n", "err\n"));
    let output = guest.run(&["exec", "sh", "-c", "kill -9 $$"]);
    assert_eq!(code(&output), 137);
    let output = guest.run(&["exec", "/no/such/program"]);
    assert_eq!(code(&output), 127, "{}", err(&output));
}

#[test]
fn megabytes_pass_through_a_program_in_order() {
    let guest = ScriptedGuest::start();
    let mut cat = guest.command(&["exec", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = cat.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&content()).unwrap());
    let output = cat.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    assert!(output.stdout == content());
}

#[test]
fn a_signal_reaches_the_program() {
    let guest = ScriptedGuest::start();
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = guest.command(&["exec", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got it");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_program_that_takes_longer_than_the_timeout_is_killed() {
    let guest = ScriptedGuest::start();
    let output = guest.run(&["--timeout", "500ms", "exec", "sleep", "60"]);
    assert_eq!(code(&output), 124, "{}", err(&output));
    assert!(guest.calls().contains(&"exec.signal".to_owned()));
}

#[test]
fn another_users_daemon_cannot_write_into_our_output() {
    let guest = ScriptedGuest::that(Mischief { impostor: true, ..Mischief::default() });
    for user in ["alice", "1000", "@active"] {
        let output = guest.run(&["-u", user, "exec", "echo", "true words"]);
        assert_eq!((code(&output), out(&output).as_str()), (0, "true words\n"), "{user}: {}", err(&output));
    }
    let output = guest.run(&["-u", "1001", "exec", "true"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("no user daemon of 1001 is connected"), "{}", err(&output));
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let guest = ScriptedGuest::start();
    let mut child = guest.command(&["exec", "yes"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((code(&output), err(&output).as_str()), (141, ""));
}

#[test]
fn events_are_printed_as_they_come() {
    let guest = ScriptedGuest::start();
    let mut child =
        guest.command(&["--json", "events", "session.*"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    for topic in ["other", "session.connected"] {
        let data = Value::object([("uid", Value::Int(1000))]);
        guest.calls_host(None, "host.event", vec![Value::object([("topic", topic.into()), ("data", data)])]).unwrap();
    }
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let event: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&event["topic"], &event["data"]["uid"]), (&"session.connected".into(), &1000.into()));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn serve_answers_with_what_a_program_says() {
    let guest = ScriptedGuest::start();
    let handlers = [
        "--handler",
        "ticket.open=jq -c '{got: .title, by: env.VIRTAGENT_USERNAME}' 2>/dev/null || \
         { read -r l; printf '{\"got\": \"%s\", \"by\": \"%s\"}' \"$(echo \"$l\" | cut -d'\"' -f4)\" \"$VIRTAGENT_USERNAME\"; }",
        "--handler",
        "ticket.fail=echo out of paper >&2; exit 3",
    ];
    let mut child = guest.command(&["serve", handlers[0], handlers[1], handlers[2], handlers[3]]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let params = || vec![Value::object([("title", "no sound".into())])];
    let answer = guest.calls_host(Some("alice"), "ticket.open", params()).unwrap();
    assert_eq!(answer, Value::object([("got", "no sound".into()), ("by", "alice".into())]));
    let fault = guest.calls_host(None, "ticket.fail", params()).unwrap_err();
    assert_eq!(fault.message, "out of paper");
    let fault = guest.calls_host(None, "ticket.close", params()).unwrap_err();
    assert!(fault.is(FaultCode::MethodNotFound));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn ctrl_c_leaves_a_part_and_says_how_to_go_on() {
    let guest = ScriptedGuest::that(Mischief { short: Some(2_000), ..Mischief::default() });
    fs::write(guest.path("big"), content()).unwrap();
    let path = guest.path("big").to_str().unwrap().to_owned();
    let child = guest.command(&["file", "get", &path, "copy"]).stderr(Stdio::piped()).spawn().unwrap();
    eventually(|| fs::metadata(guest.path("copy.part")).ok().filter(|found| found.len() > 0));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", err(&output));
    assert!(err(&output).contains("run the same command again to go on"), "{}", err(&output));
    assert!(guest.path("copy.part").exists());
}

/// Runs a shell command line in a terminal of its own, with `typed` typed into it.
fn in_a_terminal(guest: &ScriptedGuest, line: &str, typed: &str) -> String {
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new("script");
    command.args(["-qec", line, "/dev/null"]).current_dir(guest.path("")).env("SHELL", "/bin/sh");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    out(&output)
}

/// The command between two looks at the terminal's settings, which must be the same.
fn session(guest: &ScriptedGuest, arguments: &str, typed: &str) -> String {
    let program = env!("CARGO_BIN_EXE_virtagent");
    let line = format!("stty -g >before; {program} -s va.sock {arguments}; echo rc=$?; stty -g >after");
    let shown = in_a_terminal(guest, &line, typed);
    let read = |name: &str| fs::read_to_string(guest.path(name)).unwrap();
    assert_eq!(read("before"), read("after"), "{shown}");
    shown
}

#[test]
fn a_shell_passes_keys_and_gives_the_terminal_back() {
    let guest = ScriptedGuest::start();
    let shown = session(&guest, "shell -- sh", "echo hel''lo\nexit 5\n");
    assert!(shown.contains("hello") && shown.contains("rc=5"), "{shown}");
}

#[test]
fn ctrl_bracket_leaves_a_program_that_does_not_react() {
    let guest = ScriptedGuest::start();
    let shown = session(&guest, "exec -t sleep 1000", "\x1d");
    assert!(shown.contains("left the session") && shown.contains("rc=0"), "{shown}");
}
