//! The outbox's order, its bounds, and that nobody who waits at it is forgotten.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::*;
use crate::encoding::Encoding;
use crate::frame::Heads;

const ALICE: Source = Source::User(1000);
const BOB: Source = Source::User(1001);

fn parcel(tag: &str, class: Class, size: usize) -> Parcel {
    let kind = if class == Class::Reply { Kind::Reply } else { Kind::Call };
    let body = Bytes::from(vec![0; size]);
    let frame = Frame { kind, tag: tag.parse().unwrap(), encoding: Encoding::Cbor, heads: Heads::default(), body };
    Parcel::new(frame, class)
}

/// Polls once; what is ready is given.
fn once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn tags(outbox: &Outbox) -> Vec<String> {
    let taken = std::iter::from_fn(|| outbox.next_now()).map(|parcel| parcel.frame.tag.to_string()).collect::<Vec<_>>();
    outbox.written(taken.len());
    taken
}

/// Fills one source's share; the number of frames it took.
fn fill(outbox: &Outbox, source: Source, size: usize) -> usize {
    (0..)
        .take_while(|number| once(outbox.push(parcel(&format!("{number}"), Class::Call, size), source)).is_some())
        .count()
}

#[test]
fn replies_go_before_calls_and_calls_before_bulk() {
    let outbox = Outbox::new();
    outbox.push_now(parcel("bulk", Class::Call, BULK), Source::System);
    outbox.push_now(parcel("bulky-reply", Class::Reply, BULK), Source::System);
    outbox.push_now(parcel("call", Class::Call, BULK - 1), Source::System);
    outbox.push_now(parcel("reply", Class::Reply, 1), Source::System);
    assert_eq!(tags(&outbox), ["reply", "call", "bulk", "bulky-reply"]);
}

#[test]
fn sources_take_turns_and_each_keeps_its_own_order() {
    let outbox = Outbox::new();
    for number in 1..=4 {
        outbox.push_now(parcel(&format!("a{number}"), Class::Call, 1), ALICE);
    }
    outbox.push_now(parcel("b1", Class::Call, 1), BOB);
    outbox.push_now(parcel("b2", Class::Call, 1), BOB);
    outbox.push_now(parcel("s1", Class::Call, 1), Source::System);
    assert_eq!(tags(&outbox), ["a1", "b1", "s1", "a2", "b2", "a3", "a4"]);
}

#[test]
fn a_source_waits_when_it_has_enough_bytes_or_frames_waiting() {
    let outbox = Outbox::new();
    let bytes = fill(&outbox, ALICE, 1 << 20);
    assert_eq!(bytes, BYTES_PER_SOURCE >> 20);
    assert_eq!(fill(&outbox, BOB, 1), FRAMES_PER_SOURCE);
}

#[test]
fn a_source_that_has_to_wait_keeps_no_other_from_its_turn() {
    let outbox = Outbox::new();
    fill(&outbox, ALICE, 1 << 20);
    assert!(once(outbox.push(parcel("b", Class::Bulk, 1 << 20), BOB)).is_some());
    assert_eq!(tags(&outbox)[..2], ["0", "b"]);
}

#[tokio::test]
async fn whoever_waits_for_room_goes_on_as_soon_as_a_frame_was_taken() {
    let outbox = Outbox::new();
    fill(&outbox, ALICE, 1 << 20);
    let (waiting, writing) = tokio::join!(outbox.push(parcel("late", Class::Call, 1), ALICE), async {
        tokio::task::yield_now().await;
        // It may take long to write.
        outbox.next().await.map(|parcel| parcel.frame.tag.to_string())
    });
    assert!(waiting.is_ok());
    assert_eq!(writing.as_deref(), Some("0"));
    assert!(tags(&outbox).contains(&"late".to_owned()));
}

#[tokio::test]
async fn the_writer_that_waits_hears_of_the_first_frame() {
    let outbox = Outbox::new();
    let (taken, ()) = tokio::join!(outbox.next(), async {
        tokio::task::yield_now().await;
        outbox.push_now(parcel("x", Class::Reply, 1), ALICE);
    });
    assert_eq!(taken.map(|parcel| parcel.frame.tag.to_string()).as_deref(), Some("x"));
}

#[tokio::test]
async fn closing_wakes_the_writer_the_waiting_and_the_flushing() {
    let outbox = Outbox::new();
    fill(&outbox, ALICE, 1 << 20);
    let writer = async { while outbox.next().await.is_some() {} };
    let (pushed, (), (), ()) = tokio::join!(
        async {
            // Never room, for nothing is ever said to be written.
            fill(&outbox, BOB, 1 << 20);
            outbox.push(parcel("late", Class::Call, 1), BOB).await
        },
        outbox.drained(),
        writer,
        async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            outbox.close();
        },
    );
    // It was queued or it was told; it was not forgotten.
    let _ = pushed;
    assert!(once(outbox.push(parcel("after", Class::Call, 1), ALICE)).is_some_and(|pushed| pushed.is_err()));
    assert!(outbox.next().await.is_none());
}

#[test]
fn nothing_is_drained_while_a_frame_is_being_written() {
    let outbox = Outbox::new();
    assert!(once(outbox.drained()).is_some());
    outbox.push_now(parcel("x", Class::Call, 1), ALICE);
    assert!(once(outbox.drained()).is_none());
    assert!(outbox.next_now().is_some());
    assert!(once(outbox.drained()).is_none(), "it is not written yet");
    outbox.written(1);
    assert!(once(outbox.drained()).is_some());
}

#[test]
fn a_call_can_be_taken_back_until_it_is_being_written() {
    let outbox = Outbox::new();
    let tag: Tag = "b".parse().unwrap();
    for name in ["a", "b", "c"] {
        outbox.push_now(parcel(name, Class::Call, BULK), ALICE);
    }
    assert!(!outbox.withdraw(BOB, &tag), "it is alice's");
    assert!(outbox.withdraw(ALICE, &tag));
    assert!(!outbox.withdraw(ALICE, &tag), "once is enough");
    assert_eq!(tags(&outbox), ["a", "c"]);
    outbox.push_now(parcel("b", Class::Call, 1), ALICE);
    assert!(outbox.next_now().is_some());
    assert!(!outbox.withdraw(ALICE, &tag), "it is being written");
}

#[test]
fn what_is_taken_back_makes_room_and_leaves_no_empty_turn() {
    let outbox = Outbox::new();
    outbox.push_now(parcel("only", Class::Call, BYTES_PER_SOURCE), ALICE);
    outbox.push_now(parcel("other", Class::Call, BULK), BOB);
    assert!(once(outbox.push(parcel("no", Class::Call, 1), ALICE)).is_none());
    assert!(outbox.withdraw(ALICE, &"only".parse().unwrap()));
    assert_eq!(tags(&outbox), ["other"]);
    assert!(once(outbox.push(parcel("yes", Class::Call, 1), ALICE)).is_some());
    assert_eq!(tags(&outbox), ["yes"]);
    assert!(once(outbox.drained()).is_some());
}

#[test]
fn a_reply_is_never_taken_back() {
    let outbox = Outbox::new();
    outbox.push_now(parcel("x", Class::Reply, BULK), ALICE);
    assert!(!outbox.withdraw(ALICE, &"x".parse().unwrap()));
    assert_eq!(tags(&outbox), ["x"]);
}
