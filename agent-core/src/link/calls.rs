//! Calls in flight: ours that wait for a reply, and the peer's that are being answered.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio_util::sync::CancellationToken;

use super::Link;
use super::outbox::{Class, Parcel, Source};
use crate::encoding::{Encoding, encode_call};
use crate::frame::{Frame, Heads, Kind};
use crate::rpc::{Call, Fault, FaultCode, Outcome, Tag, Value};

/// A reply and what it holds of the inbound budget.
type Reply = Result<(Value, Option<OwnedSemaphorePermit>), Fault>;

/// Our calls that wait for the peer's reply.
#[derive(Default)]
pub(super) struct InFlight(Mutex<Option<HashMap<Tag, Waiting>>>);

struct Waiting {
    /// Nothing once the caller has given up: the slot stays taken until the peer has answered all the same, so that a
    /// peer which never answers can't be given more and more to do.
    reply: Option<oneshot::Sender<Reply>>,
    /// Nothing for `va.cancel`, which rides on the slot of what it cancels.
    slot: Option<OwnedSemaphorePermit>,
}

/// One of our calls; dropped before its reply, it cancels the call.
pub(super) struct CallGuard<'a> {
    link: &'a Link,
    tag: Tag,
    source: Source,
    reply: oneshot::Receiver<Reply>,
    /// Whether the call has got as far as the outbox.
    queued: bool,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Tag, Waiting>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin<'a>(
        &self,
        link: &'a Link,
        tag: Tag,
        source: Source,
        slot: OwnedSemaphorePermit,
    ) -> CallGuard<'a> {
        let (sender, reply) = oneshot::channel();
        let mut table = self.lock();
        if link.0.stop.is_cancelled() {
            let _ = sender.send(Err(link.closed_fault()));
        } else {
            table.get_or_insert_default().insert(tag.clone(), Waiting { reply: Some(sender), slot: Some(slot) });
        }
        CallGuard { link, tag, source, reply, queued: false }
    }

    /// Hands a reply to its caller; false when nobody waits for that tag.
    pub(super) fn complete(&self, tag: &Tag, outcome: Outcome, held: Option<OwnedSemaphorePermit>) -> bool {
        let waiting = self.lock().as_mut().and_then(|table| table.remove(tag));
        let Some(Waiting { reply, slot }) = waiting else { return false };
        drop(slot);
        if let Some(reply) = reply {
            // A caller that has gone this very moment needs it no more.
            let _ = reply.send(outcome.map(|value| (value, held)));
        }
        true
    }

    /// A call whose reply nobody wants, and nobody should be told of.
    fn expect_nothing_of(&self, tag: &Tag, calls: usize) {
        if let Some(table) = self.lock().as_mut()
            && table.len() < 4 * calls
        {
            table.insert(tag.clone(), Waiting { reply: None, slot: None });
        }
    }

    pub(super) fn fail_all(&self, fault: &Fault) {
        for waiting in self.lock().take().unwrap_or_default().into_values() {
            if let Some(reply) = waiting.reply {
                let _ = reply.send(Err(fault.clone()));
            }
        }
    }

    /// The caller gave up. True when the peer should be told.
    fn abandon(&self, tag: &Tag, keep_slot: bool) -> bool {
        let mut table = self.lock();
        let Some(table) = table.as_mut() else { return false };
        if keep_slot {
            table.get_mut(tag).is_some_and(|waiting| waiting.reply.take().is_some())
        } else {
            table.remove(tag);
            false
        }
    }
}

impl CallGuard<'_> {
    pub(super) async fn send(&mut self, parcel: Parcel) -> Result<(), Fault> {
        let queued = self.link.0.outbox.push(parcel, self.source).await;
        queued.map_err(|_| self.link.closed_fault())?;
        self.queued = true;
        Ok(())
    }

    pub(super) async fn reply(mut self) -> Reply {
        match (&mut self.reply).await {
            Ok(reply) => reply,
            Err(_) => Err(self.link.closed_fault()),
        }
    }
}

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        // Of a call that never left the peer knows nothing, and will answer nothing.
        let left = self.queued && !self.link.0.outbox.withdraw(self.source, &self.tag);
        // A 2011 peer knows no va.cancel and may never answer: its one slot is freed.
        if !self.link.0.in_flight.abandon(&self.tag, left && self.link.is_ours()) {
            return;
        }
        let (Ok(method), tag) = ("va.cancel".parse(), self.link.next_tag()) else { return };
        self.link.0.in_flight.expect_nothing_of(&tag, self.link.0.calls);
        let call = Call { method, params: vec![self.tag.as_str().into()] };
        let Ok(body) = encode_call(Encoding::Cbor, &call, &tag) else { return };
        let frame = Frame { kind: Kind::Call, tag, encoding: Encoding::Cbor, heads: Heads::default(), body };
        self.link.0.outbox.push_now(Parcel::new(frame, Class::Call), Source::System);
    }
}

/// The peer's calls that are being answered, by tag.
pub(super) struct Serving {
    limit: usize,
    running: Mutex<HashMap<Tag, CancellationToken>>,
}

/// Why one more call of the peer can't be taken.
pub(super) enum Refusal {
    TooMany(usize),
    SameTag,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooMany(limit) => Self::limit(format!("{limit} calls are in flight on this link already")),
            Refusal::SameTag => Self::new(FaultCode::InvalidRequest, "a call with that tag is still being answered"),
        }
    }
}

impl Serving {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, running: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Tag, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, tag: &Tag) -> Result<CancellationToken, Refusal> {
        let mut running = self.lock();
        if running.len() >= self.limit {
            return Err(Refusal::TooMany(self.limit));
        }
        match running.entry(tag.clone()) {
            Entry::Occupied(_) => Err(Refusal::SameTag),
            Entry::Vacant(vacant) => Ok(vacant.insert(CancellationToken::new()).clone()),
        }
    }

    pub(super) fn end(&self, tag: &Tag) {
        self.lock().remove(tag);
    }

    pub(super) fn cancel(&self, tag: &Tag) -> bool {
        self.lock().get(tag).map(CancellationToken::cancel).is_some()
    }

    pub(super) fn cancel_all(&self) {
        for token in self.lock().values() {
            token.cancel();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}
