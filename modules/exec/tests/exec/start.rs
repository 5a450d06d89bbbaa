//! `exec.start` on pipes: output pushed, input fed, signals, the wait.

use agent_core::module::OwnerId;
use agent_core::rpc::{Fault, FaultCode, Value};
use bytes::Bytes;

use crate::{argv, module, pushed, pushed_until, sh, soon, start, until};

fn bytes(text: &str) -> Value {
    Bytes::copy_from_slice(text.as_bytes()).into()
}

#[tokio::test]
async fn output_is_pushed_in_order_and_ends_with_an_end_for_each_stream() {
    let module = module();
    let mut calls = module.host_calls();
    let (handle, _) = start(&module, [("argv", sh("echo one; echo two >&2; sleep 0.05; echo three; exit 4"))]).await;
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended, Value::object([("exit_code", 4.into())]));

    let (mut out, mut err, mut ends, mut next) = (String::new(), String::new(), Vec::new(), 0);
    while ends.len() < 2 {
        let chunk = pushed(&mut calls).await;
        assert_eq!(chunk.seq, next);
        next += 1;
        let all = if chunk.stream == "stdout" { &mut out } else { &mut err };
        all.push_str(&String::from_utf8(chunk.data).unwrap());
        ends.extend(chunk.eof.then_some(chunk.stream));
    }
    ends.sort_unstable();
    assert_eq!((out.as_str(), err.as_str(), ends), ("one\nthree\n", "two\n", vec!["stderr".into(), "stdout".into()]));
    assert!(calls.try_recv().is_err(), "nothing follows the end");
}

#[tokio::test]
async fn a_slow_host_has_at_most_four_chunks_under_way_and_gets_every_byte_in_order() {
    let module = module();
    module.host_holds();
    let mut calls = module.host_calls();
    let script = "i=0; while [ $i -lt 60000 ]; do echo line $i; i=$((i+1)); done";
    let (handle, pid) = start(&module, [("argv", sh(script))]).await;

    let mut all = Vec::new();
    let (mut next, mut ends, mut most) = (0, 0, 0);
    while ends < 2 {
        // The window fills, and then the program waits.
        let mut window = vec![pushed(&mut calls).await];
        while window.len() < 4 && ends + window.iter().filter(|chunk| chunk.eof).count() < 2 {
            window.push(pushed(&mut calls).await);
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(calls.try_recv().is_err(), "a fifth came before an answer");
        most = most.max(window.len());
        for chunk in &window {
            assert_eq!(chunk.seq, next);
            assert!(chunk.data.len() <= 64 << 10);
            next += 1;
            ends += usize::from(chunk.eof);
            all.extend_from_slice(&chunk.data);
        }
        module.host_releases(window.len());
    }
    assert_eq!(most, 4);
    let want: String = (0..60000).map(|i| format!("line {i}\n")).collect();
    assert!(all == want.as_bytes(), "{} bytes of {}", all.len(), want.len());
    soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert!(!crate::lives(pid));
}

#[tokio::test]
async fn many_small_writes_become_few_chunks() {
    let module = module();
    module.host_holds();
    let mut calls = module.host_calls();
    let (handle, pid) = start(
        &module,
        [("argv", sh("i=0; while [ $i -lt 5000 ]; do echo x; [ $i -gt 9 ] || sleep 0.01; i=$((i+1)); done"))],
    )
    .await;
    let (mut length, mut ends) = (0, 0);
    for _ in 0..4 {
        let chunk = pushed(&mut calls).await;
        length += chunk.data.len();
        ends += usize::from(chunk.eof);
    }
    assert_eq!(ends, 0, "the program is still at it");
    // Four are under way; the rest collects in the pipe until there is room.
    until("the program ends", || !crate::lives(pid)).await;
    let wait = module.call_named("exec.wait", [("handle", handle)]);
    let rest = async {
        module.host_releases(1);
        let mut chunk = pushed(&mut calls).await;
        module.host_releases(1000);
        if chunk.stream == "stderr" {
            chunk = pushed(&mut calls).await;
        }
        chunk.data.len()
    };
    let (ended, rest) = tokio::join!(soon(wait), rest);
    ended.unwrap();
    assert_eq!(length + rest, 10_000, "all that was left came at once");
}

#[tokio::test]
async fn the_wait_lasts_until_the_host_answered_the_output() {
    let module = module();
    module.host_holds();
    let mut calls = module.host_calls();
    let (handle, pid) = start(&module, [("argv", sh("echo x"))]).await;
    pushed_until(&mut calls, "x").await;
    until("the program ends", || !crate::lives(pid)).await;
    let mut wait = Box::pin(module.call_named("exec.wait", [("handle", handle)]));
    for _ in 0..100 {
        tokio::select! {
            biased;
            _ = &mut wait => panic!("the wait answered before the output was"),
            () = tokio::task::yield_now() => {}
        }
    }
    module.host_releases(100);
    soon(wait).await.unwrap();
}

#[tokio::test]
async fn a_host_that_refuses_output_does_not_stop_the_program() {
    let module = module();
    module.host_answers(Err(Fault::new(FaultCode::Unavailable, "no receiver")));
    let (handle, _) = start(&module, [("argv", sh("head -c 5000000 /dev/zero; exit 9"))]).await;
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended.get("exit_code").unwrap().as_int(), Some(9));
}

#[tokio::test]
async fn input_is_fed_in_order_and_ends_when_closed() {
    let module = module();
    let mut calls = module.host_calls();
    let (handle, _) = start(&module, [("argv", argv(&["cat"])), ("stdin", true.into())]).await;
    let feed = |text: &str| module.call_named("exec.stdin", [("handle", handle.clone()), ("data", bytes(text))]);
    let (a, b, c) = tokio::join!(feed("one "), feed("two "), feed("three\n"));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(pushed_until(&mut calls, "\n").await, "one two three\n");
    module.call_named("exec.close_stdin", [("handle", handle.clone())]).await.unwrap();
    let late = feed("late").await.unwrap_err();
    assert!(late.is(FaultCode::Unavailable), "{late}");
    let ended = soon(module.call_named("exec.wait", [("handle", handle)])).await.unwrap();
    assert_eq!(ended.get("exit_code").unwrap().as_int(), Some(0));
}

#[tokio::test]
async fn feeding_waits_until_the_program_takes_it() {
    let module = module();
    let mut calls = module.host_calls();
    let (handle, _) = start(&module, [("argv", sh("sleep 0.2; wc -c")), ("stdin", true.into())]).await;
    let data = Value::from(Bytes::from(vec![b'x'; 1 << 20]));
    let feed = module.call_named("exec.stdin", [("handle", handle.clone()), ("data", data)]);
    soon(feed).await.unwrap();
    module.call_named("exec.close_stdin", [("handle", handle.clone())]).await.unwrap();
    assert_eq!(pushed_until(&mut calls, "\n").await, "1048576\n");
}

#[tokio::test]
async fn feeding_more_than_a_mebibyte_or_a_program_that_has_no_input_is_refused() {
    let module = module();
    let (handle, _) = start(&module, [("argv", argv(&["sleep", "600"]))]).await;
    let data = Value::from(Bytes::from(vec![b'x'; (1 << 20) + 1]));
    let fault = module.call_named("exec.stdin", [("handle", handle.clone()), ("data", data)]).await.unwrap_err();
    assert!(fault.is(FaultCode::LimitExceeded) && fault.message.contains("1048577"), "{fault}");
    let fault = module.call_named("exec.stdin", [("handle", handle), ("data", bytes("x"))]).await.unwrap_err();
    assert!(fault.is(FaultCode::Unavailable), "{fault}");
}

#[tokio::test]
async fn a_feed_to_a_program_that_ends_without_reading_fails_rather_than_waits() {
    let module = module();
    let (handle, _) = start(&module, [("argv", sh("sleep 0.1")), ("stdin", true.into())]).await;
    let data = Value::from(Bytes::from(vec![b'x'; 1 << 20]));
    let feed = module.call_named("exec.stdin", [("handle", handle), ("data", data)]);
    assert!(soon(feed).await.unwrap_err().is(FaultCode::Unavailable));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group_by_name_or_number() {
    let module = module();
    let mut calls = module.host_calls();
    let script = "trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.02; done";
    let (handle, _) = start(&module, [("argv", sh(script))]).await;
    pushed_until(&mut calls, "ready").await;
    let send = |signal: Value| module.call_named("exec.signal", [("handle", handle.clone()), ("signal", signal)]);
    assert!(send("NOSUCH".into()).await.unwrap_err().is(FaultCode::InvalidParams));
    // The shell's sleep dies of it, too.
    send("USR1".into()).await.unwrap();
    pushed_until(&mut calls, "got usr1").await;
    send(9.into()).await.unwrap();
    let ended = soon(module.call_named("exec.wait", [("handle", handle.clone())])).await.unwrap();
    assert_eq!(ended.get("signal").unwrap().as_str(), Some("SIGKILL"));
}

#[tokio::test]
async fn a_signal_to_a_program_that_ended_says_so() {
    let module = module();
    let (handle, pid) = start(&module, [("argv", argv(&["true"]))]).await;
    until("the program is buried", || !std::path::Path::new(&format!("/proc/{pid}")).exists()).await;
    let fault = module.call_named("exec.signal", [("handle", handle), ("signal", "TERM".into())]).await.unwrap_err();
    assert!(fault.is(FaultCode::Unavailable) && fault.message.contains("exec.wait"), "{fault}");
}

#[tokio::test]
async fn a_handle_is_unknown_to_other_owners_and_after_the_wait() {
    let module = module();
    let (handle, _) = start(&module, [("argv", argv(&["true"]))]).await;
    for method in ["exec.wait", "exec.close_stdin"] {
        let fault = module.call_as(OwnerId(2), method, vec![handle.clone()]).await.unwrap_err();
        assert!(fault.is(FaultCode::InvalidParams), "{fault}");
    }
    soon(module.call_named("exec.wait", [("handle", handle.clone())])).await.unwrap();
    assert!(module.call_named("exec.wait", [("handle", handle)]).await.unwrap_err().is(FaultCode::InvalidParams));
}

#[tokio::test]
async fn an_owner_has_at_most_so_many_programs_and_waiting_frees_one() {
    let settings = toml::from_str("max_processes = 2").unwrap();
    let module = agent_core::module::testing::Harness::<virtagent_exec::Exec>::new(
        agent_core::module::Level::System,
        "/root",
        settings,
    );
    let (first, _) = start(&module, [("argv", argv(&["true"]))]).await;
    let (_second, _) = start(&module, [("argv", argv(&["sleep", "600"]))]).await;
    let fault = module.call_named("exec.run", [("argv", argv(&["true"]))]).await.unwrap_err();
    assert!(fault.is(FaultCode::LimitExceeded) && fault.message.contains("max_processes"), "{fault}");
    assert!(module.call_as(OwnerId(2), "exec.run", vec![argv(&["true"])]).await.is_ok());
    soon(module.call_named("exec.wait", [("handle", first)])).await.unwrap();
    assert!(module.call_named("exec.run", [("argv", argv(&["true"]))]).await.is_ok());
}
