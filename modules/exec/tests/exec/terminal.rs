//! `exec.start` with a terminal.

use agent_core::rpc::{FaultCode, Value};
use bytes::Bytes;

use crate::{argv, lives, module, pushed, pushed_until, sh, soon, start, until};

fn pty() -> (&'static str, Value) {
    ("pty", Value::object([("rows", 40.into()), ("cols", 100.into())]))
}

fn data(text: &str) -> (&'static str, Value) {
    ("data", Bytes::copy_from_slice(text.as_bytes()).into())
}

#[tokio::test]
async fn a_program_has_a_controlling_terminal_of_the_given_size_and_kind() {
    let module = module();
    let mut calls = module.host_calls();
    let (handle, _) = start(&module, [("argv", sh("stty size </dev/tty; echo $TERM; test -t 1 && tty")), pty()]).await;
    let first = pushed(&mut calls).await;
    assert_eq!((first.stream.as_str(), first.seq), ("pty", 0));
    let mut text = String::from_utf8(first.data).unwrap();
    if !text.contains("/dev/pts/") {
        text += &pushed_until(&mut calls, "/dev/pts/").await;
    }
    assert!(text.starts_with("40 100\r\nxterm-256color\r\n/dev/pts/"), "{text:?}");
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended.get("exit_code").unwrap().as_int(), Some(0));
}

#[tokio::test]
async fn the_terminal_echoes_takes_lines_and_ends_at_control_d() {
    let module = module();
    let mut calls = module.host_calls();
    let (handle, _) = start(&module, [("argv", argv(&["cat"])), pty()]).await;
    module.call_named("exec.stdin", [("handle", handle.clone()), data("hello\n")]).await.unwrap();
    assert!(pushed_until(&mut calls, "hello\r\nhello\r\n").await.starts_with("hello\r\n"));
    module.call_named("exec.close_stdin", [("handle", handle.clone())]).await.unwrap();
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended.get("exit_code").unwrap().as_int(), Some(0));
}

#[tokio::test]
async fn a_resize_is_seen_and_signalled() {
    let module = module();
    let mut calls = module.host_calls();
    let script = "trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.02; done";
    let (handle, _) = start(&module, [("argv", sh(script)), pty()]).await;
    pushed_until(&mut calls, "ready").await;
    let size = [("handle", handle.clone()), ("rows", 50.into()), ("cols", 132.into())];
    module.call_named("exec.resize", size).await.unwrap();
    pushed_until(&mut calls, "50 132").await;
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended.get("exit_code").unwrap().as_int(), Some(5));
}

#[tokio::test]
async fn a_program_without_a_terminal_cannot_be_resized() {
    let module = module();
    let (handle, _) = start(&module, [("argv", argv(&["sleep", "600"]))]).await;
    let size = [("handle", handle), ("rows", 50.into()), ("cols", 132.into())];
    let fault = module.call_named("exec.resize", size).await.unwrap_err();
    assert!(fault.is(FaultCode::InvalidParams) && fault.message.contains("pty"), "{fault}");
}

#[tokio::test]
async fn control_c_typed_at_the_terminal_interrupts_the_program() {
    let module = module();
    let mut calls = module.host_calls();
    let (handle, _) = start(&module, [("argv", sh("echo ready; exec sleep 600")), pty()]).await;
    pushed_until(&mut calls, "ready").await;
    module.call_named("exec.stdin", [("handle", handle.clone()), data("\x03")]).await.unwrap();
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended.get("signal").unwrap().as_str(), Some("SIGINT"));
}

#[tokio::test]
async fn the_last_words_on_a_terminal_are_not_lost() {
    let module = module();
    let mut calls = module.host_calls();
    for _ in 0..20 {
        let (handle, _) = start(&module, [("argv", sh("seq 1 2000; echo last words")), pty()]).await;
        soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
        let mut last = pushed(&mut calls).await;
        let mut all = last.data;
        while !last.eof {
            last = pushed(&mut calls).await;
            all.extend_from_slice(&last.data);
        }
        assert!(all.ends_with(b"\r\n2000\r\nlast words\r\n"), "{}", String::from_utf8_lossy(&all));
    }
}

#[tokio::test]
async fn the_jobs_of_a_shell_end_with_its_terminal() {
    let module = module();
    let mut calls = module.host_calls();
    // Job control puts the job in a group of its own, and it ignores the hang-up.
    let script = "set -m; (trap '' HUP TERM; exec sleep 600) & echo job $! end; sleep 0.1; exit 0";
    let (handle, _) = start(&module, [("argv", sh(script)), pty()]).await;
    let text = pushed_until(&mut calls, " end").await;
    let job: i64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    until("the job ends", || !lives(job)).await;
}
