//! Calls in flight: many, in both directions, and every way in which one ends.

use std::time::{Duration, Instant};

use agent_core::link::{CallOptions, CloseReason, Link};
use agent_core::rpc::{Fault, FaultCode, Value};
use futures_util::future::join_all;
use tokio::net::UnixStream;

use super::support::*;

fn start(link: &Link, method: &str, params: Vec<Value>) -> tokio::task::JoinHandle<agent_core::rpc::Outcome> {
    let (link, method) = (link.clone(), method.to_owned());
    tokio::spawn(async move { link.call(&method, params, &CallOptions::default()).await })
}

#[tokio::test]
async fn calls_in_both_directions_at_once_get_their_own_replies_in_any_order() {
    let (one, two) = UnixStream::pair().unwrap();
    let ((serve_one, inbox_one), (serve_two, inbox_two)) = (Inbox::new(), Inbox::new());
    let one = Link::start(one, options(true), serve_one);
    let two = Link::start(two, options(true), serve_two);
    for mut inbox in [inbox_one, inbox_two] {
        tokio::spawn(async move {
            loop {
                // The newest of a handful is answered first.
                let mut calls = vec![inbox.recv().await.unwrap()];
                while let Ok(call) = inbox.try_recv() {
                    calls.push(call);
                }
                for call in calls.into_iter().rev() {
                    let value = call.call.params[0].clone();
                    tokio::spawn(call.answer(Ok(value)));
                }
            }
        });
    }
    let ask = |link: Link, number: i64| async move {
        // Every tenth is bulk.
        let filler = bytes(if number % 10 == 0 { 200_000 } else { 10 });
        let value = Value::Array(vec![Value::Int(number), filler]);
        assert_eq!(link.call("x.echo", vec![value.clone()], &CallOptions::default()).await.unwrap(), value);
    };
    let all = (0..500).flat_map(|number| [ask(one.clone(), number), ask(two.clone(), -number)]);
    soon("1,000 calls", join_all(all)).await;
}

#[tokio::test]
async fn replies_find_their_calls_by_tag() {
    let Bench { link, mut peer, .. } = trusted();
    let calls: Vec<_> = (0..64).map(|number| start(&link, "x.y", vec![Value::Int(number)])).collect();
    let mut came = Vec::new();
    for _ in 0..64 {
        let (frame, call) = peer.next_call().await;
        came.push((frame.tag, call.params[0].clone()));
    }
    for (tag, value) in came.into_iter().rev() {
        peer.reply(&tag, value).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(soon("the reply", call).await.unwrap().unwrap(), Value::Int(number as i64));
    }
}

#[tokio::test]
async fn no_more_calls_are_made_at_a_time_than_allowed() {
    let Bench { link, mut peer, .. } = bench(agent_core::link::LinkOptions { calls: 2, ..options(true) });
    let calls: Vec<_> = (0..3).map(|_| start(&link, "x.y", vec![])).collect();
    let (first, _) = peer.next_call().await;
    peer.next_call().await;
    // The third comes after a reply, and not before: what comes next is the answer to a question of the peer's.
    peer.reply(&first.tag, Value::Nil).await;
    peer.next_call().await;
    drop(calls);
}

#[tokio::test]
async fn a_reply_that_nothing_waits_for_is_dropped_and_told() {
    let Bench { link, mut peer, serve, .. } = trusted();
    let call = start(&link, "x.y", vec![]);
    let (frame, _) = peer.next_call().await;
    peer.reply(&"foreign-tag-0000".parse().unwrap(), "no".into()).await;
    peer.reply(&frame.tag, "yes".into()).await;
    peer.reply(&frame.tag, "again".into()).await;
    assert_eq!(soon("the reply", call).await.unwrap().unwrap(), "yes".into());
    until("two strays", || serve.strays.lock().unwrap().len() == 2).await;
    assert_eq!(*serve.strays.lock().unwrap(), ["foreign-tag-0000".parse().unwrap(), frame.tag]);
}

#[tokio::test]
async fn a_call_that_is_dropped_is_cancelled_at_a_peer_of_ours() {
    let Bench { link, mut peer, serve, .. } = trusted();
    let call = start(&link, "x.slow", vec![]);
    let (slow, _) = peer.next_call().await;
    call.abort();
    let (cancel_frame, cancel) = peer.next_call().await;
    assert_eq!(cancel.method, "va.cancel");
    assert_eq!(cancel.params, [slow.tag.as_str().into()]);
    // The answers to both are expected, and no stray replies.
    peer.reply(&slow.tag, Value::Nil).await;
    peer.reply(&cancel_frame.tag, true.into()).await;
    let last = start(&link, "x.y", vec![]);
    let (frame, _) = peer.next_call().await;
    peer.reply(&frame.tag, Value::Nil).await;
    soon("the last", last).await.unwrap().unwrap();
    assert!(serve.strays.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_deadline_ends_the_call_with_a_fault_and_cancels_it() {
    let Bench { link, mut peer, .. } = trusted();
    let options = CallOptions { timeout: Some(Duration::from_millis(50)), ..CallOptions::default() };
    let fault = soon("the fault", link.call("x.slow", vec![], &options)).await.unwrap_err();
    assert!(fault.is(FaultCode::TimedOut), "{fault}");
    let (slow, _) = peer.next_call().await;
    assert_eq!(slow.heads.timeout_ms, Some(50));
    let (_, cancel) = peer.next_call().await;
    assert_eq!(cancel.params, [slow.tag.as_str().into()]);
}

#[tokio::test]
async fn a_peer_that_never_answers_what_was_cancelled_gets_no_more_than_its_slots() {
    let Bench { link, mut peer, .. } = bench(agent_core::link::LinkOptions { calls: 2, ..options(true) });
    for _ in 0..2 {
        let call = start(&link, "x.slow", vec![]);
        peer.next_call().await;
        call.abort();
        assert_eq!(peer.next_call().await.1.method, "va.cancel");
    }
    let options = CallOptions { timeout: Some(Duration::from_millis(100)), ..CallOptions::default() };
    let fault = link.call("x.third", vec![], &options).await.unwrap_err();
    assert!(fault.is(FaultCode::TimedOut), "{fault}");
}

/// Fills the way to a peer that reads nothing, and gives the calls that do.
async fn clog(link: &Link) -> Vec<tokio::task::JoinHandle<agent_core::rpc::Outcome>> {
    let calls: Vec<_> = (0..8).map(|_| start(link, "x.fill", vec![bytes(1 << 20)])).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    calls
}

#[tokio::test]
async fn a_call_that_never_left_is_taken_back_and_its_slot_is_free() {
    let Bench { link, mut peer, .. } = bench(agent_core::link::LinkOptions { calls: 10, ..options(true) });
    let filling = clog(&link).await;
    // Two slots are left. Far more calls than that give up: some queued, some still waiting for room.
    for round in 0..20 {
        let size = if round % 2 == 0 { 10 } else { 1 << 20 };
        let options = CallOptions { timeout: Some(Duration::from_millis(20)), ..CallOptions::default() };
        let fault = link.call("x.lost", vec![bytes(size)], &options).await.unwrap_err();
        assert!(fault.is(FaultCode::TimedOut), "{fault}");
    }
    let last = start(&link, "x.last", vec![]);
    let (mut filled, mut seen_last) = (0, false);
    while filled < filling.len() || !seen_last {
        let (frame, call) = peer.next_call().await;
        match call.method.as_str() {
            "x.fill" => filled += 1,
            "x.last" => seen_last = true,
            other => panic!("{other} came, though its caller had given up before it could be sent"),
        }
        peer.reply(&frame.tag, Value::Nil).await;
    }
    soon("the last", last).await.unwrap().unwrap();
    for call in filling {
        soon("the fill", call).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_cancel_never_overtakes_the_bulk_that_it_is_meant_for() {
    let Bench { link, mut peer, .. } = trusted();
    let filling = clog(&link).await;
    filling.iter().for_each(tokio::task::JoinHandle::abort);
    for call in filling {
        let _ = call.await;
    }
    let marker = start(&link, "x.marker", vec![bytes(20_000)]);
    let mut running = Vec::new();
    loop {
        let (frame, call) = peer.next_call().await;
        match call.method.as_str() {
            "x.fill" => running.push(frame.tag.to_string()),
            "va.cancel" => {
                let tag = call.params[0].as_str().unwrap();
                assert!(running.iter().any(|known| known == tag), "{tag} is cancelled before it came");
                running.retain(|known| known != tag);
            }
            _ => break,
        }
    }
    assert!(running.is_empty(), "never cancelled: {running:?}");
    marker.abort();
}

#[tokio::test]
async fn closing_gives_every_waiter_the_reason_at_once() {
    let Bench { link, mut peer, mut inbox, .. } = bench(agent_core::link::LinkOptions { calls: 4, ..options(true) });
    // Four that were sent, and four that wait for a slot.
    let calls: Vec<_> = (0..8).map(|_| start(&link, "x.slow", vec![])).collect();
    for _ in 0..4 {
        peer.next_call().await;
    }
    peer.call("theirs-000000000", "x.slow").await;
    let theirs = soon("their call", inbox.recv()).await.unwrap();
    link.close("a newer daemon took over");
    for call in calls {
        let fault = soon("the fault", call).await.unwrap().unwrap_err();
        assert!(fault.is(FaultCode::SessionClosed), "{fault}");
        assert_eq!(fault.message, "a newer daemon took over");
    }
    soon("the end of their call", theirs.cancel.cancelled()).await;
    assert_eq!(soon("the end", link.closed()).await, CloseReason::Closed("a newer daemon took over".into()));
    let after = link.call("x.y", vec![], &CallOptions::default()).await.unwrap_err();
    assert!(after.is(FaultCode::SessionClosed), "{after}");
}

#[tokio::test]
async fn a_peer_that_leaves_ends_the_link_and_every_call_at_once() {
    let Bench { link, mut peer, .. } = trusted();
    let calls: Vec<_> = (0..5).map(|_| start(&link, "x.slow", vec![])).collect();
    for _ in 0..5 {
        peer.next_call().await;
    }
    let begin = Instant::now();
    drop(peer);
    for call in calls {
        assert!(soon("the fault", call).await.unwrap().unwrap_err().is(FaultCode::SessionClosed));
    }
    assert_eq!(soon("the end", link.closed()).await, CloseReason::PeerGone);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_second_call_with_a_tag_in_use_is_refused_and_the_first_is_answered() {
    let Bench { mut peer, mut inbox, .. } = trusted();
    peer.call("same-tag", "x.first").await;
    let first = soon("the call", inbox.recv()).await.unwrap();
    peer.call("same-tag", "x.second").await;
    let fault = peer.next_reply("same-tag").await.unwrap_err();
    assert!(fault.is(FaultCode::InvalidRequest), "{fault}");
    assert!(!first.cancel.is_cancelled());
    first.answer(Ok("one".into())).await;
    assert_eq!(peer.next_reply("same-tag").await.unwrap(), "one".into());
    assert!(inbox.try_recv().is_err(), "the second was not handed on");
}

#[tokio::test]
async fn a_tag_may_be_used_again_as_soon_as_its_reply_came() {
    let Bench { mut peer, mut inbox, link, .. } = trusted();
    tokio::spawn(async move {
        while let Some(call) = inbox.recv().await {
            tokio::spawn(call.answer(Ok(Value::Nil)));
        }
    });
    for _ in 0..200 {
        peer.call("testtag", "x.y").await;
        peer.next_reply("testtag").await.unwrap();
    }
    assert_eq!(link.serving(), 0);
}

#[tokio::test]
async fn a_call_that_its_server_drops_is_answered_by_a_fault() {
    let Bench { mut peer, mut inbox, link, .. } = trusted();
    peer.call("dropped", "x.y").await;
    drop(soon("the call", inbox.recv()).await.unwrap());
    assert!(peer.next_reply("dropped").await.unwrap_err().is(FaultCode::Internal));
    assert_eq!(link.serving(), 0);
}

#[tokio::test]
async fn an_answer_that_is_given_up_while_it_waits_for_room_leaves_no_call_behind() {
    let Bench { mut peer, mut inbox, link, .. } = trusted();
    let _filling = clog(&link).await;
    peer.call("given-up", "x.y").await;
    let call = soon("the call", inbox.recv()).await.unwrap();
    assert_eq!(link.serving(), 1);
    let answering = tokio::spawn(call.answer(Ok(bytes(100_000))));
    tokio::task::yield_now().await;
    assert_eq!(link.serving(), 1, "a reply that waits for room still counts");
    answering.abort();
    let _ = answering.await;
    assert_eq!(link.serving(), 0);
}

#[tokio::test]
async fn a_result_that_is_too_long_becomes_a_fault_that_says_so() {
    let Bench { mut peer, mut inbox, .. } = trusted();
    peer.call("long", "x.y").await;
    soon("the call", inbox.recv()).await.unwrap().answer(Ok(bytes(3 << 20))).await;
    let fault = peer.next_reply("long").await.unwrap_err();
    assert!(fault.is(FaultCode::LimitExceeded), "{fault}");
    assert!(fault.message.contains("limits.body"), "{fault}");
}

#[tokio::test]
async fn a_call_that_is_too_long_is_refused_here_and_costs_no_slot() {
    let Bench { link, .. } = bench(agent_core::link::LinkOptions { calls: 1, ..options(true) });
    for _ in 0..3 {
        let fault =
            soon("the fault", link.call("x.y", vec![bytes(3 << 20)], &CallOptions::default())).await.unwrap_err();
        assert!(fault.is(FaultCode::LimitExceeded), "{fault}");
    }
}

#[tokio::test]
async fn a_body_that_is_no_call_is_answered_by_a_parse_fault() {
    let Bench { mut peer, .. } = trusted();
    let mut frame = call("broken", "x.y", Default::default());
    frame.body = "<methodCall".into();
    peer.send(frame).await;
    assert!(peer.next_reply("broken").await.unwrap_err().is(FaultCode::Parse));
}

#[tokio::test]
async fn a_reply_that_is_no_reply_ends_its_call_with_a_fault() {
    let Bench { link, mut peer, .. } = trusted();
    let asking = start(&link, "x.y", vec![]);
    let (asked, _) = peer.next_call().await;
    let mut frame = reply(&asked.tag, &Ok(Value::Nil), Default::default());
    frame.body = "nonsense".into();
    peer.send(frame).await;
    assert!(soon("the fault", asking).await.unwrap().unwrap_err().is(FaultCode::InvalidRequest));
}

#[tokio::test]
async fn a_fault_of_the_peer_arrives_as_it_was_sent() {
    let Bench { link, mut peer, .. } = trusted();
    let asking = start(&link, "x.y", vec![]);
    let (asked, _) = peer.next_call().await;
    let fault = Fault { code: -506, message: "Method 'x.y' not defined".into(), data: None };
    peer.send(reply(&asked.tag, &Err(fault.clone()), Default::default())).await;
    assert_eq!(soon("the fault", asking).await.unwrap(), Err(fault));
}

#[tokio::test]
async fn everything_queued_is_written_before_a_link_closes_after_its_flush() {
    let Bench { link, mut peer, .. } = trusted();
    let calls: Vec<_> = (0..8).map(|_| start(&link, "x.fill", vec![bytes(1 << 19)])).collect();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    let closing = tokio::spawn({
        let link = link.clone();
        async move { link.close_after_flush("done", LIMIT).await }
    });
    for _ in 0..8 {
        peer.next_call().await;
    }
    soon("the close", closing).await.unwrap();
    for call in calls {
        assert!(soon("the fault", call).await.unwrap().is_err());
    }
}
