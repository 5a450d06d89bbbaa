//! A call of the peer on its way to whoever answers it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::outbox::{Class, Parcel, Source};
use super::{CAREFUL_TIMEOUT, Link, VERSION};
use crate::encoding::{Encoding, encode_reply};
use crate::frame::{BadFrame, Frame, Heads, Kind};
use crate::rpc::{Call, Fault, Outcome, Tag, Value};

/// Beside one body of the greatest length, what large bodies may hold on one link, in KiB: 8 MiB.
pub(super) const INBOUND_UNITS: usize = 8 * 1024;

/// A length as a number of budget units (KiB), rounded up.
pub(super) fn budget_units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Whoever answers the calls that arrive on a link.
pub trait Serve: Send + Sync + 'static {
    /// Takes a call. The link reads no further until the returned future is done, so it should only hand the call on;
    /// work belongs in a task of its own.
    fn incoming(&self, call: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// A reply came that nothing waits for; it was dropped.
    fn stray_reply(&self, _tag: &Tag) {}

    /// A frame came that can't be taken; it was skipped, and answered by a fault where it was a call with a tag.
    fn bad_frame(&self, _bad: &BadFrame) {}
}

/// A call of the peer. Answer it with [`Incoming::answer`]; one that is dropped answers a fault by itself.
pub struct Incoming {
    /// What to run.
    pub call: Call,
    /// `X-Virtagent-Username`, as the peer sent it.
    pub username: Option<String>,
    /// The deadline that the peer set; zero for none.
    pub timeout: Option<Duration>,
    /// How the body was written, and the reply will be.
    pub encoding: Encoding,
    /// The peer's tag.
    pub tag: Tag,
    /// The body's length in bytes.
    pub size: usize,
    pub(crate) responder: Responder,
    /// Fires when the peer cancels the call, or the link ends.
    pub cancel: CancellationToken,
}

impl Incoming {
    /// Sends the outcome back and returns the reply's size in bytes; waits while the peer takes no replies.
    pub async fn answer(self, outcome: Outcome) -> usize {
        self.responder.answer(outcome).await
    }

    /// The link that the call came by.
    pub fn link(&self) -> &Link {
        &self.responder.link
    }
}

/// The way back for one call.
pub(crate) struct Responder {
    pub(super) link: Link,
    tag: Tag,
    /// JSON-RPC's `id` of the call.
    id: Option<Value>,
    encoding: Encoding,
    username: Option<String>,
    /// After this moment a careful peer must not be answered any more.
    answer_by: Option<Instant>,
    source: Source,
    /// Our version goes into the reply: the call asked what we are.
    introduce: bool,
    /// What the call's own body holds of the inbound budget, until it is answered. Not until the reply is written: two
    /// ends that each wait for the other to read would then wait for ever.
    inbound: Option<OwnedSemaphorePermit>,
    /// Budgets that are held until the reply is written.
    pub(crate) held: Arc<Mutex<Vec<OwnedSemaphorePermit>>>,
    answered: bool,
    /// Whether the call is still among those that run.
    counted: bool,
}

impl Responder {
    pub(super) fn new(link: &Link, frame: &Frame) -> Self {
        // Whoever writes heads that 2011 did not know is not of 2011.
        let patient = link.is_ours() || frame.heads != Heads::default();
        Self {
            link: link.clone(),
            tag: frame.tag.clone(),
            id: None,
            encoding: frame.encoding,
            username: frame.heads.username.clone(),
            answer_by: (!patient).then(|| Instant::now() + CAREFUL_TIMEOUT + CAREFUL_GRACE),
            source: Source::System,
            introduce: false,
            inbound: None,
            held: Arc::default(),
            answered: false,
            counted: false,
        }
    }

    /// The link that the call came by.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The link's budget for large results.
    pub(crate) fn budget(&self) -> Arc<Semaphore> {
        self.link.replies_budget()
    }

    /// The reply waits its turn on this account.
    pub(crate) fn on_account_of(&mut self, source: Source) {
        self.source = source;
    }

    /// The reply repeats the call's own id.
    pub(super) fn repeat_id(&mut self, id: Option<Value>) {
        self.id = id;
    }

    /// Whether the caller waits for as long as it takes.
    pub(super) fn is_patient(&self) -> bool {
        self.answer_by.is_none()
    }

    /// The call was answered in another way.
    pub(super) fn forget(mut self) {
        self.answered = true;
    }

    /// The call is among those that run, and is taken off there when it is answered.
    pub(super) fn counts(&mut self) {
        self.counted = true;
    }

    pub(super) fn introduce(&mut self) {
        self.introduce = true;
    }

    /// Whether the call's own body counts against a budget.
    pub(crate) fn holds_inbound(&self) -> bool {
        self.inbound.is_some()
    }

    /// The call's own body counts against this budget from now on, and no other.
    pub(crate) fn hold_inbound(&mut self, permit: OwnedSemaphorePermit) {
        self.inbound = Some(permit);
    }

    /// Sends the outcome, and says how many bytes it took; 0 when it could not be sent any more.
    pub(crate) async fn answer(self, outcome: Outcome) -> usize {
        let prepared = self.prepare(&outcome);
        let size = prepared.size();
        prepared.send().await;
        size
    }

    /// Encodes the reply, so that its size is known before it goes.
    pub(crate) fn prepare(mut self, outcome: &Outcome) -> Prepared {
        let parcel = self.parcel(outcome);
        Prepared { responder: self, parcel }
    }

    fn parcel(&mut self, outcome: &Outcome) -> Option<Parcel> {
        self.answered = true;
        self.inbound = None;
        if self.answer_by.is_some_and(|by| Instant::now() > by) {
            tracing::debug!(tag = %self.tag, "dropped a reply that comes too late for a careful peer");
            return None;
        }
        let limit = self.link.0.limits.body;
        let encode = |outcome: &Outcome| encode_reply(self.encoding, outcome, &self.tag, self.id.as_ref());
        let body = match encode(outcome) {
            Ok(body) if body.len() <= limit => Ok(body),
            Ok(body) => {
                let length = body.len();
                encode(&Err(Fault::limit(format!("the result takes {length} bytes, over limits.body = {limit}"))))
            }
            Err(fault) => encode(&Err(fault)),
        };
        let body = body.inspect_err(|fault| tracing::error!(%fault, "a fault could not be encoded")).ok()?;
        let heads = Heads {
            username: self.username.take(),
            version: self.introduce.then(|| VERSION.to_owned()),
            ..Heads::default()
        };
        let frame = Frame { kind: Kind::Reply, tag: self.tag.clone(), encoding: self.encoding, heads, body };
        let mut parcel = Parcel::new(frame, Class::Reply);
        parcel.held = std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner));
        Some(parcel)
    }
}

/// An encoded reply.
pub(crate) struct Prepared {
    responder: Responder,
    /// Nothing when it comes too late for a careful peer.
    parcel: Option<Parcel>,
}

impl Prepared {
    /// The body's length in bytes.
    pub(crate) fn size(&self) -> usize {
        self.parcel.as_ref().map_or(0, |parcel| parcel.frame.body.len())
    }

    /// Sends it; waits while the peer takes no replies.
    pub(crate) async fn send(mut self) {
        let Some(parcel) = self.parcel.take() else { return };
        // Until its reply is queued the call counts as running, or a peer that takes no replies could call on and on; and
        // not a moment longer, for the peer may use the tag again as soon as it has the reply.
        let Responder { link, tag, source, .. } = &self.responder;
        let pushed = link.0.outbox.push_and(parcel, *source, || link.0.serving.end(tag)).await;
        // The link's end is the only reason for it not to go, and then nobody waits for it.
        self.responder.counted = pushed.is_err();
    }
}

/// How long after the careful deadline a fault may still be on its way.
const CAREFUL_GRACE: Duration = Duration::from_millis(300);

impl Drop for Responder {
    fn drop(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.link.0.serving.end(&self.tag);
        }
        if self.answered {
            return;
        }
        let fault = Fault::internal("the call was dropped without an answer");
        if let Some(parcel) = self.parcel(&Err(fault)) {
            self.link.0.outbox.push_now(parcel, self.source);
        }
    }
}
