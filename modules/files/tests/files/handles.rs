//! Handles: whose they are, how many, in what order.

use std::pin::Pin;
use std::task::Poll;

use agent_core::rpc::FaultCode;
use futures_util::future::{join_all, maybe_done};

use super::*;

#[tokio::test]
async fn a_handle_is_unknown_to_every_other_owner() {
    let lab = Lab::new();
    let handle = lab.open(&lab.write("a", "secret"), "read").await;
    for method in ["file.read", "file.close"] {
        let refused = fault(lab.call_as(BOB, method, [("handle", handle.into())]).await);
        assert!(refused.message.starts_with("no such handle"), "{refused}");
    }
    let written = lab.call_as(BOB, "file.write", [("handle", handle.into()), ("data", blob(b"x"))]).await;
    assert!(fault(written).message.starts_with("no such handle"));
    assert_eq!(data(&lab.call_as(ALICE, "file.read", [("handle", handle.into())]).await), b"secret");
}

#[tokio::test]
async fn a_closed_handle_is_unknown() {
    let lab = Lab::new();
    let handle = lab.open(&lab.write("a", ""), "read").await;
    lab.close(handle).await.unwrap();
    assert!(fault(lab.close(handle).await).message.starts_with("no such handle"));
}

#[tokio::test]
async fn an_owner_over_the_limit_is_refused_until_it_closes_one_and_others_are_not() {
    let lab = Lab::with("max_handles = 2");
    let path = lab.write("a", "");
    let open = |owner| lab.call_as(owner, "file.open", [("path", text(&path)), ("mode", "read".into())]);
    let first = handle(&open(ALICE).await.unwrap());
    open(ALICE).await.unwrap();
    let refused = fault(open(ALICE).await);
    assert!(refused.is(FaultCode::LimitExceeded) && refused.message.contains("max_handles"), "{refused}");
    open(BOB).await.unwrap();
    lab.close(first).await.unwrap();
    open(ALICE).await.unwrap();
}

#[tokio::test]
async fn files_that_are_being_opened_count_too_and_one_that_fails_does_not() {
    let lab = Lab::with("max_handles = 2");
    let (path, none) = (lab.write("a", ""), lab.path("none"));
    let open = |path| lab.call("file.open", [("path", text(path)), ("mode", "read".into())]);
    for _ in 0..5 {
        assert_eq!(errno(open(&none).await), "ENOENT");
    }
    let (a, b, c) = tokio::join!(open(&path), open(&path), open(&path));
    assert!(a.is_ok() && b.is_ok());
    assert!(fault(c).is(FaultCode::LimitExceeded));
}

#[tokio::test]
async fn an_owner_that_is_gone_leaves_no_handle() {
    let lab = Lab::with("max_handles = 2");
    let path = lab.write("a", "");
    let (a, b) = (lab.open(&path, "read").await, lab.open(&path, "read").await);
    lab.files.owner_gone(ALICE);
    for handle in [a, b] {
        assert!(fault(lab.close(handle).await).message.starts_with("no such handle"));
    }
    lab.open(&path, "read").await;
}

#[tokio::test]
async fn a_file_whose_owner_goes_while_it_is_opened_stays_with_nobody() {
    let lab = Lab::new();
    let path = lab.path("a");
    loop {
        let params = [("path", text(&path)), ("mode", "replace".into())];
        let mut opening = Box::pin(maybe_done(lab.call("file.open", params)));
        let already_open = start(&mut opening).await;
        lab.files.owner_gone(ALICE);
        (&mut opening).await;
        let outcome = opening.as_mut().take_output().unwrap();
        if !already_open {
            assert!(fault(outcome).is(FaultCode::Cancelled));
            break;
        }
    }
    while !lab.names().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_asked_of_one_handle_runs_in_the_order_of_asking() {
    let lab = Lab::new();
    let handle = lab.open(&lab.path("a"), "create").await;
    let expected: Vec<u8> = (0..=255).collect();
    let writes: Vec<_> = expected
        .chunks(1)
        .map(|byte| lab.call("file.write", [("handle", handle.into()), ("data", blob(byte))]))
        .collect();
    // The calls are made in order; from then on their futures are polled in the opposite one.
    let mut writes: Vec<_> = writes.into_iter().map(|write| Box::pin(maybe_done(write))).collect();
    for write in &mut writes {
        start(write).await;
    }
    writes.reverse();
    join_all(writes.iter_mut()).await;
    for mut write in writes {
        write.as_mut().take_output().unwrap().unwrap();
    }
    lab.close(handle).await.unwrap();
    assert_eq!(std::fs::read(lab.path("a")).unwrap(), expected);
}

/// Polls once, so that the module is called: the harness does that at the first poll.
async fn start<F: Future + Unpin>(future: &mut F) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_ready())).await
}

#[tokio::test]
async fn a_close_waits_for_what_was_asked_before_it() {
    let lab = Lab::new();
    let handle = lab.open(&lab.path("a"), "replace").await;
    let write = || lab.call("file.write", [("handle", handle.into()), ("data", blob(&[b'x'; 100_000]))]);
    let (one, two, three, closed) = tokio::join!(write(), write(), write(), lab.close(handle));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(closed.unwrap().get("written"), Some(&Value::Int(300_000)));
    assert_eq!(lab.text("a").len(), 300_000);
}

#[tokio::test]
async fn a_call_that_is_dropped_lets_the_next_one_through() {
    let lab = Lab::new();
    let handle = lab.open(&lab.write("a", "abc"), "read").await;
    // The first has its turn and waits for room for its reply, which nobody makes.
    let full = lab.files.context(ALICE);
    full.reserve(usize::MAX).await;
    let mut first = Box::pin(lab.files.call_with(full, "file.read", vec![handle.into()]));
    let mut second = Box::pin(lab.call("file.read", [("handle", handle.into())]));
    let mut third = Box::pin(lab.call("file.read", [("handle", handle.into())]));
    assert!(!start(&mut first).await && !start(&mut second).await && !start(&mut third).await);
    drop(second);
    assert!(!start(&mut third).await);
    drop(first);
    assert_eq!(data(&third.await), b"abc");
}

#[test]
fn settings_out_of_range_are_refused_with_the_range() {
    for (settings, says) in [("max_read = 1", "4096"), ("max_handles = 0", "1 to"), ("max_red = 5", "max_red")] {
        let build = std::panic::catch_unwind(|| Lab::with(settings));
        let message = *build.err().unwrap().downcast::<String>().unwrap();
        assert!(message.contains(says), "{message}");
    }
}
