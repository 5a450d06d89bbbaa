//! What a peer may cost: half frames, long frames, floods, and not reading.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_core::config::Limits;
use agent_core::encoding::Encoding;
use agent_core::frame::{Frame, FrameError, Heads, Kind};
use agent_core::link::{CallOptions, LinkOptions};
use agent_core::rpc::{FaultCode, Value};
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;

use super::support::*;

fn with(limits: Limits) -> LinkOptions {
    LinkOptions { limits, ..options(true) }
}

fn impatient(frame_timeout: Duration) -> LinkOptions {
    with(Limits { frame_timeout, ..Limits::default() })
}

fn bulk(tag: &str, size: usize) -> Frame {
    let body = vec![0xff; size].into();
    Frame { kind: Kind::Call, tag: tag.parse().unwrap(), encoding: Encoding::Cbor, heads: Heads::default(), body }
}

#[tokio::test]
async fn a_frame_that_stays_half_read_is_given_up_and_the_next_one_lives() {
    for half in [1, 10, 60, 120] {
        let Bench { mut peer, mut inbox, .. } = bench(impatient(Duration::from_millis(100)));
        let long = wire(bulk("half", 1000));
        peer.bytes(&long[..long.len() / 120 * half]).await;
        // What comes while the half frame is waited for would belong to it: so ask until it no longer does.
        let answered = async {
            for number in 0.. {
                tokio::time::sleep(Duration::from_millis(150)).await;
                peer.call(&format!("next-{number}"), "x.y").await;
                if tokio::time::timeout(Duration::from_millis(50), inbox.recv()).await.is_ok() {
                    break;
                }
            }
        };
        soon("the next call", answered).await;
    }
}

#[tokio::test]
async fn a_slow_frame_that_goes_on_is_not_given_up() {
    let Bench { mut peer, mut inbox, .. } = bench(impatient(Duration::from_secs(1)));
    let slow = wire(call("slow", "x.y", Heads::default()));
    for piece in slow.chunks(slow.len() / 12 + 1) {
        peer.bytes(piece).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(soon("the call", inbox.recv()).await.unwrap().call.method, "x.y");
}

#[tokio::test]
async fn a_long_body_that_is_skipped_slowly_runs_nothing_that_it_holds() {
    let limits = Limits { body: 1000, frame_timeout: Duration::from_secs(1), ..Limits::default() };
    let Bench { mut peer, mut inbox, .. } = bench(with(limits));
    let evil = wire(call("evil", "x.evil", Heads::default()));
    let mut long = bulk("long", 1);
    long.body = evil.repeat(12).into();
    let wire = wire(long);
    let head = wire.len() - 12 * evil.len();
    peer.bytes(&wire[..head]).await;
    assert!(peer.next_reply("long").await.unwrap_err().is(FaultCode::LimitExceeded));
    for piece in wire[head..].chunks(evil.len()) {
        peer.bytes(piece).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    peer.call("next", "x.good").await;
    assert_eq!(soon("the call", inbox.recv()).await.unwrap().call.method, "x.good");
}

#[tokio::test]
async fn a_call_over_the_limit_is_answered_and_the_others_live_on() {
    let Bench { mut peer, mut inbox, serve, .. } = trusted();
    peer.call("before", "x.y").await;
    let before = soon("the call", inbox.recv()).await.unwrap();
    peer.send(bulk("long", (2 << 20) + 1)).await;
    let fault = peer.next_reply("long").await.unwrap_err();
    assert!(fault.is(FaultCode::LimitExceeded) && fault.message.contains("limits.body"), "{fault}");
    before.answer(Ok("lives".into())).await;
    assert_eq!(peer.next_reply("before").await.unwrap(), "lives".into());
    assert!(matches!(serve.bad.lock().unwrap()[..], [FrameError::BodyTooLong { .. }]));
}

#[tokio::test]
async fn a_reply_over_the_limit_ends_the_call_that_waits_for_it() {
    let Bench { link, mut peer, .. } = trusted();
    for size in [(2 << 20) + 1, 3 << 20] {
        let asking = tokio::spawn({
            let link = link.clone();
            async move { link.call("x.y", vec![], &CallOptions::default()).await }
        });
        let (asked, _) = peer.next_call().await;
        peer.send(Frame { kind: Kind::Reply, tag: asked.tag, ..bulk("x", size) }).await;
        let fault = soon("the fault", asking).await.unwrap().unwrap_err();
        assert!(fault.is(FaultCode::LimitExceeded), "{fault}");
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_short_ends_the_call_that_waits_for_it() {
    let Bench { link, mut peer, .. } = trusted();
    let asking = tokio::spawn({
        let link = link.clone();
        async move { link.call("x.y", vec![], &CallOptions::default()).await }
    });
    let (asked, _) = peer.next_call().await;
    let whole = wire(reply(&asked.tag, &Ok("result".into()), Heads::default()));
    peer.bytes(&whole[..whole.len() - 5]).await;
    peer.call("goes-on", "x.y").await;
    assert!(soon("the fault", asking).await.unwrap().unwrap_err().is(FaultCode::InvalidRequest));
}

#[tokio::test]
async fn what_a_bad_head_is_answered_has_a_documented_code() {
    let Bench { mut peer, .. } = trusted();
    let cases = [
        "Content-Type: text/html\r\nContent-Length: 1\r\nX-Virtagent-Client-Tag: bad-type\r\n\r\nx",
        "Content-Type: text/xml\r\nContent-Length: 0\r\nX-Virtagent-Client-Tag: no-length\r\n\r\n",
        "Content-Type: text/xml\r\nContent-Length: 1\r\nX-Virtagent-Client-Tag: no-colon\r\nwhat\r\n\r\nx",
    ];
    for (case, tag) in cases.into_iter().zip(["bad-type", "no-length", "no-colon"]) {
        peer.bytes(&[b"\xffPOST / HTTP/1.1\r\n", case.as_bytes()].concat()).await;
        assert!(peer.next_reply(tag).await.unwrap_err().is(FaultCode::InvalidRequest), "{tag}");
    }
}

#[tokio::test]
async fn more_calls_than_allowed_are_refused_and_those_that_run_are_not_touched() {
    let Bench { mut peer, mut inbox, .. } = bench(LinkOptions { calls: 3, ..options(true) });
    let mut running = Vec::new();
    for number in 0..3 {
        peer.call(&format!("running-{number}"), "x.y").await;
        running.push(soon("the call", inbox.recv()).await.unwrap());
    }
    peer.call("too-many", "x.y").await;
    assert!(peer.next_reply("too-many").await.unwrap_err().is(FaultCode::LimitExceeded));
    for (number, call) in running.into_iter().enumerate() {
        call.answer(Ok(Value::Nil)).await;
        peer.next_reply(&format!("running-{number}")).await.unwrap();
    }
    peer.call("again", "x.y").await;
    soon("the call", inbox.recv()).await.unwrap();
}

/// Waits until the number has not changed for a while: nothing goes on any more.
async fn settled(number: &AtomicUsize) -> usize {
    let mut last = (number.load(Ordering::SeqCst), 0);
    while last.1 < 25 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = number.load(Ordering::SeqCst);
        last = (now, if now == last.0 { last.1 + 1 } else { 0 });
    }
    last.0
}

#[tokio::test]
async fn a_peer_that_calls_on_and_takes_no_reply_is_read_no_further() {
    const CALLS: usize = 15_000;
    let Bench { link, peer, mut inbox, .. } = trusted();
    let served = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let served = Arc::clone(&served);
        async move {
            while let Some(call) = inbox.recv().await {
                served.fetch_add(1, Ordering::SeqCst);
                // Every answer in a task of its own, as a daemon's jobs are.
                tokio::spawn(call.answer(Ok(bytes(1000))));
            }
        }
    });
    let (mut reader, mut writer) = peer.into_writer();
    let writing = tokio::spawn(async move {
        for number in 0..CALLS {
            writer.write_all(&wire(call(&format!("{number:016}"), "x.y", Heads::default()))).await.unwrap();
            // One by one: each call is answered before the next one comes, as far as it can be.
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
        }
        writer
    });
    let stuck = settled(&served).await;
    assert!(stuck < 5_000, "{stuck} calls were taken of a peer that takes no reply");
    assert!(link.serving() <= 64, "{} calls are kept", link.serving());
    assert!(!writing.is_finished(), "the pressure has to reach the peer");
    // As soon as it reads, it goes on, and nothing was lost but what was refused by name.
    let reading = async {
        for _ in 0..CALLS {
            reader.next().await.unwrap().unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(120), reading).await.expect("every call is answered");
    until("no call left", || link.serving() == 0).await;
    drop(writing.await);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_makes_the_caller_wait() {
    let Bench { link, mut peer, .. } = bench(LinkOptions { calls: 1000, ..options(true) });
    let (sent, calls) = (Arc::new(AtomicUsize::new(0)), 40);
    for _ in 0..calls {
        let (link, sent) = (link.clone(), Arc::clone(&sent));
        tokio::spawn(async move {
            let _ = link.call("x.y", vec![bytes(1 << 20)], &CallOptions::default()).await;
            sent.fetch_add(1, Ordering::SeqCst);
        });
    }
    assert_eq!(settled(&sent).await, 0);
    // A small call of the same account waits as well; nothing is lost when the peer reads again.
    for _ in 0..calls {
        let (frame, _) = peer.next_call().await;
        peer.reply(&frame.tag, Value::Nil).await;
    }
    until("every call's end", || sent.load(Ordering::SeqCst) == calls).await;
}

#[tokio::test]
async fn long_calls_in_both_directions_with_short_answers_never_wait_for_each_other() {
    let (one, two) = tokio::net::UnixStream::pair().unwrap();
    let links = [one, two].map(|stream| {
        let (serve, mut inbox) = Inbox::new();
        tokio::spawn(async move {
            loop {
                // As many as the budget for long bodies lets in; until they are answered nothing more is read.
                let mut calls = Vec::new();
                while calls.len() < 9 {
                    calls.extend(inbox.recv().await);
                }
                for call in calls {
                    tokio::spawn(call.answer(Ok(Value::Nil)));
                }
            }
        });
        agent_core::link::Link::start(stream, options(true), serve)
    });
    let calls = (0..54).flat_map(|_| links.clone()).map(|link| async move {
        link.call("x.put", vec![bytes(1 << 20)], &CallOptions::default()).await.unwrap();
    });
    soon("108 MiB", futures_util::future::join_all(calls)).await;
}
