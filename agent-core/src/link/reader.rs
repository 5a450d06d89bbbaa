//! The reader task: frames to replies and calls.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncRead, ReadHalf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::codec::FramedRead;

use super::incoming::{Responder, budget_units};
use super::outbox::{Class, Parcel, Source};
use super::{CAREFUL_TIMEOUT, CloseReason, Incoming, Link, Serve, VERSION};
use crate::encoding::{Encoding, decode_call_and_id, decode_outcome, encode_outcome};
use crate::frame::{BadFrame, Frame, FrameDecoder, FrameError, Heads, Item, Kind};
use crate::rpc::{Fault, FaultCode};

/// Bodies from this size on count against the inbound budget.
const LARGE: usize = 64 * 1024;
/// Text bodies from this size on are decoded off the loop.
const SLOW: usize = 256 * 1024;

pub(super) async fn run<S: AsyncRead>(link: Link, stream: ReadHalf<S>, serve: Arc<dyn Serve>) {
    let decoder = FrameDecoder::new(&link.0.limits);
    let mut frames = FramedRead::with_capacity(stream, decoder, 8 * 1024);
    let reading = async {
        while let Some(item) = next(&mut frames, link.0.limits.frame_timeout).await {
            match item? {
                Item::Frame(frame) => take(&link, frame, &*serve).await,
                Item::Bad(bad) => refuse(&link, bad, &*serve).await,
            }
        }
        Ok::<_, io::Error>(())
    };
    let reason = tokio::select! {
        ended = reading => match ended {
            Ok(()) => CloseReason::PeerGone,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => CloseReason::PeerGone,
            Err(error) => CloseReason::Io(format!("reading from the link: {error}")),
        },
        () = link.0.stop.cancelled() => return,
    };
    link.end(reason);
}

/// The next item; a frame that stays half-read for the whole timeout is given up.
async fn next<S: AsyncRead>(
    frames: &mut FramedRead<ReadHalf<S>, FrameDecoder>,
    timeout: Duration,
) -> Option<io::Result<Item>> {
    loop {
        if !frames.decoder().mid_frame() {
            // What is decoded next may end in mid-frame, and then the stream is polled again by the timed branch only:
            // so wait for the first item or the first half of a frame here.
            match std::future::poll_fn(|cx| match frames.poll_next_unpin(cx) {
                std::task::Poll::Pending if frames.decoder().mid_frame() => std::task::Poll::Ready(None),
                std::task::Poll::Pending => std::task::Poll::Pending,
                std::task::Poll::Ready(item) => std::task::Poll::Ready(Some(item)),
            })
            .await
            {
                Some(item) => return item,
                None => continue,
            }
        }
        // What is skipped leaves no trace in the buffer, so that is counted too.
        let progress =
            |frames: &FramedRead<_, FrameDecoder>| (frames.read_buffer().len(), frames.decoder().left_to_skip());
        let before = progress(frames);
        match tokio::time::timeout(timeout, frames.next()).await {
            Ok(item) => return item,
            // A slow line is no dead one: only a frame that did not grow is given up.
            Err(_) if progress(frames) != before => {}
            Err(_) => {
                tracing::warn!(?timeout, "gave up on a half-read frame (limits.frame_timeout)");
                frames.decoder_mut().give_up();
                frames.read_buffer_mut().clear();
            }
        }
    }
}

async fn take(link: &Link, frame: Frame, serve: &dyn Serve) {
    if frame.kind == Kind::Call && frame.heads.nonce.is_some() {
        link.heard_hello();
    }
    if frame.heads.version.is_some() {
        link.peer_is_ours();
    }
    if !link.is_ours() {
        link.0.pace.came(&frame);
    }
    let held = match frame.body.len() {
        size if size >= LARGE => Arc::clone(&link.0.inbound).acquire_many_owned(budget_units(size)).await.ok(),
        _ => None,
    };
    match frame.kind {
        Kind::Reply => take_reply(link, frame, held, serve).await,
        Kind::Call => take_call(link, frame, held, serve).await,
    }
}

async fn take_reply(link: &Link, frame: Frame, held: Option<OwnedSemaphorePermit>, serve: &dyn Serve) {
    let Frame { tag, encoding, body, .. } = frame;
    let outcome = decoded(encoding, body.len(), move || decode_outcome(encoding, &body)).await;
    let outcome = outcome.unwrap_or_else(|fault| {
        Err(Fault::new(FaultCode::InvalidRequest, format!("the other end's reply can't be read: {}", fault.message)))
    });
    if !link.0.in_flight.complete(&tag, outcome, held) {
        serve.stray_reply(&tag);
    }
}

async fn take_call(link: &Link, frame: Frame, held: Option<OwnedSemaphorePermit>, serve: &dyn Serve) {
    let mut responder = Responder::new(link, &frame);
    if let Some(permit) = held {
        responder.hold_inbound(permit);
    }
    if frame.heads.version.is_some() {
        responder.introduce();
    }
    let Frame { tag, encoding, heads, body, .. } = frame;
    let size = body.len();
    let cancel = match link.0.serving.begin(&tag) {
        Ok(cancel) => {
            responder.counts();
            cancel
        }
        Err(refusal) => {
            answer_alone(link, &tag, encoding, refusal.into()).await;
            responder.forget();
            return;
        }
    };
    let call: Result<_, Fault> = decoded(encoding, size, move || decode_call_and_id(encoding, &body)).await;
    let call = match call {
        Ok((call, id)) => {
            responder.repeat_id(id);
            call
        }
        Err(fault) => {
            responder.answer(Err(fault)).await;
            return;
        }
    };
    let timeout = heads.timeout_ms.map(Duration::from_millis);
    let timeout = match responder.is_patient() {
        true => timeout,
        // A peer that might be of 2011 gets its answer before it gives up.
        false => Some(timeout.filter(|t| !t.is_zero()).map_or(CAREFUL_TIMEOUT, |t| t.min(CAREFUL_TIMEOUT))),
    };
    serve.incoming(Incoming { call, username: heads.username, timeout, encoding, tag, size, responder, cancel }).await;
}

/// Decodes here what is quick, and long text elsewhere.
async fn decoded<T, F>(encoding: Encoding, size: usize, decode: F) -> Result<T, Fault>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Fault> + Send + 'static,
{
    if !encoding.is_text() || size < SLOW {
        return decode();
    }
    match tokio::task::spawn_blocking(decode).await {
        Ok(decoded) => decoded,
        Err(_) => Err(Fault::internal("decoding stopped")),
    }
}

async fn refuse(link: &Link, bad: BadFrame, serve: &dyn Serve) {
    serve.bad_frame(&bad);
    let (Some(kind), Some(tag)) = (bad.kind, &bad.tag) else { return };
    let code = match bad.error {
        FrameError::BodyTooLong { .. } => FaultCode::LimitExceeded,
        // Whoever cut a call short has gone on to something else and waits for no answer.
        FrameError::CutShort if kind == Kind::Call => return,
        _ => FaultCode::InvalidRequest,
    };
    match kind {
        Kind::Call => {
            let fault = Fault::new(code, bad.error.to_string());
            answer_alone(link, tag, bad.encoding.unwrap_or(Encoding::Xml), fault).await;
        }
        // Whoever waits for it need not wait on for what won't come again.
        Kind::Reply => {
            let fault = Fault::new(code, format!("the other end's reply can't be taken: {}", bad.error));
            link.0.in_flight.complete(tag, Err(fault), None);
        }
    }
}

/// A fault for a call that never got as far as a responder.
async fn answer_alone(link: &Link, tag: &crate::rpc::Tag, encoding: Encoding, fault: Fault) {
    let Ok(body) = encode_outcome(encoding, &Err(fault), tag) else { return };
    let heads = Heads { version: link.is_ours().then(|| VERSION.to_owned()), ..Heads::default() };
    let frame = Frame { kind: Kind::Reply, tag: tag.clone(), encoding, heads, body };
    // The reader waits here for room: a peer that floods and takes no answer is read no further.
    let _ = link.0.outbox.push(Parcel::new(frame, Class::Reply), Source::System).await;
}
