//! Towards a peer that may be of 2011: one call at a time, XML, no late replies; until it shows what it is.

use std::time::{Duration, Instant};

use agent_core::encoding::Encoding;
use agent_core::frame::Heads;
use agent_core::link::{CallOptions, VERSION};
use agent_core::rpc::{FaultCode, Tag, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;

/// How long a 2011 peer waits before it cancels everything.
const PATIENCE_OF_2011: Duration = Duration::from_secs(5);

fn quick() -> CallOptions {
    CallOptions { timeout: Some(Duration::from_millis(50)), ..CallOptions::default() }
}

#[tokio::test]
async fn one_call_at_a_time_in_xml_with_tags_of_one_length() {
    let Bench { link, mut peer, mut inbox, .. } = careful();
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.call("va.ping", vec![], &CallOptions::default()).await })
        })
        .collect();
    tokio::spawn(async move {
        while let Some(call) = inbox.recv().await {
            call.answer(Ok(Value::Nil)).await;
        }
    });
    for number in 0..5 {
        let (frame, call) = peer.next_call().await;
        assert_eq!((frame.encoding, call.method.as_str()), (Encoding::Xml, "va.ping"));
        assert_eq!(frame.tag.as_str().len(), Tag::OURS);
        assert_eq!(frame.heads, Heads::default(), "a head that 2011 does not know");
        // The next call would be here before the answer to this.
        let tag = format!("question-{number}");
        peer.call(&tag, "x.y").await;
        peer.nothing_before_the_answer_to(&tag).await;
        peer.reply(&frame.tag, "pong".into()).await;
    }
    for call in calls {
        assert_eq!(soon("the reply", call).await.unwrap().unwrap(), "pong".into());
    }
    assert!(!link.is_ours());
}

#[tokio::test]
async fn a_peer_that_shows_its_version_gets_many_calls_at_a_time_in_cbor() {
    let Bench { link, mut peer, .. } = careful();
    let greeting = tokio::spawn({
        let link = link.clone();
        async move { link.greet(LIMIT).await }
    });
    let (asked, call) = peer.next_call().await;
    assert_eq!((asked.encoding, call.method.as_str()), (Encoding::Xml, "va.capabilities"));
    assert_eq!(asked.heads.version.as_deref(), Some(VERSION));
    let methods = Value::Array(vec!["va.ping".into()]);
    let capabilities = Value::object([("version", "1.0".into()), ("methods", methods)]);
    peer.send(reply(&asked.tag, &Ok(capabilities), version())).await;
    let capabilities = soon("the capabilities", greeting).await.unwrap().unwrap();
    assert!(capabilities.ours && link.is_ours());
    assert_eq!(capabilities.methods, ["va.ping"]);
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let link = link.clone();
            tokio::spawn(async move { link.call("va.ping", vec![], &CallOptions::default()).await })
        })
        .collect();
    for _ in 0..64 {
        assert_eq!(peer.next_call().await.0.encoding, Encoding::Cbor);
    }
    drop(calls);
}

#[tokio::test]
async fn capabilities_without_a_version_head_leave_the_link_careful() {
    let Bench { link, mut peer, .. } = careful();
    let greeting = tokio::spawn({
        let link = link.clone();
        async move { link.greet(LIMIT).await }
    });
    let (asked, _) = peer.next_call().await;
    let capabilities = Value::object([("version", "1.0".into()), ("methods", Value::Array(vec![]))]);
    peer.reply(&asked.tag, capabilities).await;
    assert!(!soon("the capabilities", greeting).await.unwrap().unwrap().ours);
    assert!(!link.is_ours());
}

#[tokio::test]
async fn a_call_that_shows_a_version_ends_the_care_too() {
    let Bench { link, mut peer, mut inbox, .. } = careful();
    peer.send(call("shows", "va.ping", version())).await;
    let incoming = soon("the call", inbox.recv()).await.unwrap();
    assert!(link.is_ours());
    incoming.answer(Ok("pong".into())).await;
    assert_eq!(peer.next().await.heads.version.as_deref(), Some(VERSION), "whoever shows its version is shown ours");
}

#[tokio::test]
async fn a_careful_peer_is_never_sent_a_cancel_and_its_slot_is_free_after_a_timeout() {
    let Bench { link, mut peer, serve, .. } = careful();
    assert!(link.call("x.first", vec![], &quick()).await.unwrap_err().is(FaultCode::TimedOut));
    let (first, _) = peer.next_call().await;
    let second = tokio::spawn({
        let link = link.clone();
        async move { link.call("x.second", vec![], &CallOptions::default()).await }
    });
    let (frame, call) = peer.next_call().await;
    assert_eq!(call.method, "x.second", "no va.cancel in between");
    peer.reply(&first.tag, "late".into()).await;
    peer.reply(&frame.tag, "right".into()).await;
    assert_eq!(soon("the reply", second).await.unwrap().unwrap(), "right".into());
    assert_eq!(*serve.strays.lock().unwrap(), [first.tag]);
}

#[tokio::test]
async fn hello_says_version_boot_and_a_fresh_nonce_in_heads_and_nothing_in_parameters() {
    let mut nonces = Vec::new();
    for _ in 0..3 {
        let Bench { link, mut peer, .. } = careful();
        let greeting = tokio::spawn({
            let link = link.clone();
            async move { link.hello("the-boot-id").await }
        });
        let (frame, call) = peer.next_call().await;
        assert_eq!((call.method.as_str(), call.params.len(), frame.encoding), ("va.hello", 0, Encoding::Xml));
        assert_eq!(frame.heads.version.as_deref(), Some(VERSION));
        assert_eq!(frame.heads.boot_id.as_deref(), Some("the-boot-id"));
        nonces.push(frame.heads.nonce.unwrap());
        peer.reply(&frame.tag, Value::Nil).await;
        soon("hello's end", greeting).await.unwrap().unwrap();
    }
    nonces.dedup();
    assert_eq!(nonces.len(), 3, "{nonces:?}");
}

#[tokio::test]
async fn the_peer_is_answered_while_our_hello_waits_and_our_next_call_comes_after_it() {
    let Bench { link, mut peer, mut inbox, .. } = careful();
    let greeting = tokio::spawn({
        let link = link.clone();
        async move { link.hello("boot").await }
    });
    let (hello, _) = peer.next_call().await;
    let next = tokio::spawn({
        let link = link.clone();
        async move { link.call("host.event", vec![], &CallOptions::default()).await }
    });
    peer.call("asks-back", "system.listMethods").await;
    soon("the question", inbox.recv()).await.unwrap().answer(Ok(Value::Nil)).await;
    peer.nothing_before_the_answer_to("asks-back").await;
    peer.reply(&hello.tag, Value::Nil).await;
    soon("hello's end", greeting).await.unwrap().unwrap();
    assert_eq!(peer.next_call().await.1.method, "host.event");
    next.abort();
}

#[tokio::test]
async fn a_call_of_a_2011_peer_has_a_deadline_before_that_peer_gives_up() {
    let Bench { mut peer, mut inbox, .. } = careful();
    peer.call("plain", "x.y").await;
    let plain = soon("the call", inbox.recv()).await.unwrap();
    assert!(plain.timeout.unwrap() < PATIENCE_OF_2011);
    plain.answer(Ok(Value::Nil)).await;
    assert_eq!(peer.next().await.heads, Heads::default(), "nothing that 2011 does not know");
}

#[tokio::test]
async fn whoever_writes_heads_of_ours_waits_as_long_as_it_says() {
    let Bench { mut peer, mut inbox, .. } = careful();
    let hour = Duration::from_secs(3600);
    peer.send(call("patient", "x.y", Heads { timeout_ms: Some(3_600_000), ..Heads::default() })).await;
    assert_eq!(soon("the call", inbox.recv()).await.unwrap().timeout, Some(hour));
    peer.next_reply("patient").await.unwrap_err();
    peer.send(call("as-alice", "x.y", Heads { username: Some("alice".into()), ..Heads::default() })).await;
    let call = soon("the call", inbox.recv()).await.unwrap();
    assert_eq!((call.timeout, call.username.as_deref()), (None, Some("alice")));
    call.answer(Ok(Value::Nil)).await;
    assert_eq!(peer.next().await.heads.username.as_deref(), Some("alice"), "the reply repeats whose it is");
}

#[tokio::test]
async fn a_reply_that_comes_too_late_for_a_2011_peer_is_not_sent_and_costs_nothing_else() {
    let Bench { link, mut peer, mut inbox, .. } = careful();
    peer.call("too-late", "x.slow").await;
    let slow = soon("the call", inbox.recv()).await.unwrap();
    let came = Instant::now();
    // The one thing here that only time can bring about.
    tokio::time::sleep(PATIENCE_OF_2011 - came.elapsed()).await;
    assert_eq!(slow.answer(Ok("late".into())).await, 0);
    assert_eq!(link.serving(), 0);
    peer.call("in-time", "x.quick").await;
    soon("the call", inbox.recv()).await.unwrap().answer(Ok("here".into())).await;
    peer.nothing_before_the_answer_to("in-time").await;
}

#[tokio::test]
async fn a_call_and_a_reply_to_a_2011_peer_never_come_in_one_read() {
    for round in 0..3 {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let (serve, mut inbox) = Inbox::new();
        let link = agent_core::link::Link::start(ours, options(false), serve);
        tokio::spawn(async move {
            while let Some(call) = inbox.recv().await {
                call.answer(Ok(Value::Nil)).await;
            }
        });
        let calling = tokio::spawn(async move { link.call("va.ping", vec![], &CallOptions::default()).await });
        // Both sides call at once, as when a guest's hello meets the host's first question.
        let hello = wire(call("testtag", "va.hello", Heads::default()));
        theirs.write_all(&hello).await.unwrap();
        // The peer is slow to read.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let mut chunk = [0; 4096];
        for number in 0..2 {
            let length = soon("a frame", theirs.read(&mut chunk)).await.unwrap();
            let sentinels = chunk[..length].iter().filter(|byte| **byte == 0xff).count();
            assert_eq!(sentinels, 1, "round {round}, read {number}: {}", String::from_utf8_lossy(&chunk[..length]));
        }
        calling.abort();
    }
}

#[tokio::test]
async fn a_peer_that_asks_one_question_after_the_other_is_never_kept_waiting() {
    let Bench { mut peer, mut inbox, .. } = careful();
    tokio::spawn(async move {
        while let Some(call) = inbox.recv().await {
            call.answer(Ok(Value::Nil)).await;
        }
    });
    let begin = Instant::now();
    for number in 0..500 {
        let tag = format!("question-{number}");
        peer.call(&tag, "va.ping").await;
        peer.next_reply(&tag).await.unwrap();
    }
    // A pause between them would take 25 s.
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_guest_that_says_hello_instead_of_answering_is_asked_again() {
    let Bench { link, mut peer, mut inbox, .. } = careful();
    let greeting = tokio::spawn({
        let link = link.clone();
        async move { link.greet(LIMIT).await }
    });
    let (lost, _) = peer.next_call().await;
    // What it read was for the host before; now it notices that there is another.
    let hello = Heads { nonce: Some("0123456789abcdef".into()), ..version() };
    peer.send(call("hello-0000000000", "va.hello", hello)).await;
    // Kept open: the answer to the hello is not what this is about.
    let _hello = soon("the hello", inbox.recv()).await;
    let asked = loop {
        let (frame, call) = peer.next_call().await;
        if call.method == "va.capabilities" {
            break frame;
        }
        assert_eq!(call.method.as_str(), "va.cancel", "the lost one may be cancelled");
    };
    assert_ne!(asked.tag, lost.tag);
    let capabilities = Value::object([("level", "system".into()), ("methods", Value::Array(vec![]))]);
    peer.send(reply(&asked.tag, &Ok(capabilities), version())).await;
    assert!(soon("the capabilities", greeting).await.unwrap().unwrap().ours);
}
