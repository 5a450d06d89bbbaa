//! One bidirectional stream of frames, the same code at every link: host to system daemon, system daemon to user daemon,
//! user daemon to a program.
//!
//! A [`Link`] is two tasks around one stream. The reader takes frames, completes our calls with the replies among them,
//! and hands the peer's calls to a [`Serve`]; it waits while the server does, so pressure reaches the peer. The writer
//! empties a bounded outbox: replies before calls before bulk, round robin between users.
//!
//! Towards a peer that has not shown to be one of ours a link is careful, as a 2011 peer needs: one call at a time, XML
//! only, and no late replies (docs/protocol.md, "Living with 2011").
//!
//! Owns calls in flight in both directions. Must never decide what may run, or queue anything without a bound.

mod async_fd;
mod calls;
mod incoming;
mod outbox;
mod pace;
mod port;
mod reader;
pub mod transport;
mod writer;

pub(crate) use self::incoming::Responder;
pub use self::incoming::{Incoming, Serve};
pub use self::outbox::Source;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use self::calls::{InFlight, Serving};
use self::outbox::{Class, Outbox, Parcel};
use self::pace::Pace;
use crate::config::Limits;
use crate::encoding::{Encoding, encode_call};
use crate::frame::{Frame, Heads, Kind};
use crate::rpc::{Call, Fault, FaultCode, Outcome, Struct, Tag, Value};

/// Our version, as `X-Virtagent-Version` and `va.capabilities` say it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long a careful link waits for a reply, and how long it takes to give one: a 2011 peer cancels after 5 s, and ends
/// its process on a reply that comes later.
pub(crate) const CAREFUL_TIMEOUT: Duration = Duration::from_millis(4_500);

/// How long after a guest's hello its answer to a call from before may still be under way.
const HELLO_TO_ANSWER: Duration = Duration::from_millis(300);
/// How long after its answer a guest may take to notice that the conversation is a new one. Most say hello first.
const ANSWER_TO_HELLO: Duration = Duration::from_millis(100);

/// How a link behaves.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// The bounds of frames.
    pub limits: Limits,
    /// Calls in flight in each direction.
    pub calls: usize,
    /// Whether the peer is known to be one of ours from the start.
    pub trusted_peer: bool,
}

impl LinkOptions {
    /// A link to the host, or to a guest: careful until the peer shows what it is.
    pub fn outer(limits: &Limits) -> Self {
        Self { limits: limits.clone(), calls: limits.calls_host, trusted_peer: false }
    }

    /// A link inside the guest, where both ends are ours.
    pub fn inner(limits: &Limits) -> Self {
        Self { limits: limits.clone(), calls: limits.calls_per_session, trusted_peer: true }
    }
}

/// How to make one call.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// `X-Virtagent-Username`.
    pub username: Option<String>,
    /// The deadline: `None` for the peer's default, zero for none.
    pub timeout: Option<Duration>,
    /// `None`: CBOR to a peer of ours, XML to any other.
    pub encoding: Option<Encoding>,
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed it, or its machine or program went away.
    PeerGone,
    /// We closed it, and why.
    Closed(String),
    /// Reading or writing failed.
    Io(String),
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PeerGone => f.write_str("the other end closed the connection"),
            Self::Closed(reason) | Self::Io(reason) => f.write_str(reason),
        }
    }
}

/// What `va.capabilities` said of the peer.
#[derive(Clone, Debug)]
pub struct Capabilities {
    /// Whether it is one of ours rather than a 2011 peer.
    pub ours: bool,
    /// Its methods.
    pub methods: Vec<String>,
    /// Everything it said.
    pub all: Struct,
}

/// A handle on a running link. Cheap to clone; the link ends by [`Link::close`] or with its stream, not with its handles.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    limits: Limits,
    outbox: Outbox,
    in_flight: InFlight,
    serving: Serving,
    /// Slots for our calls: one while careful, then `calls`.
    slots: Arc<Semaphore>,
    calls: usize,
    /// Set once the peer has shown to be one of ours.
    ours: OnceLock<()>,
    /// Keeps frames to a careful peer apart.
    pace: Pace,
    /// Whether the peer, one of ours, has said hello; and who waits for that.
    said_hello: AtomicBool,
    hello: Notify,
    /// What large incoming bodies hold until they are done with, in KiB.
    inbound: Arc<Semaphore>,
    /// What large results hold until they are written, in KiB.
    replies: Arc<Semaphore>,
    nonce: u32,
    next: AtomicU32,
    stop: CancellationToken,
    reason: Mutex<Option<CloseReason>>,
}

impl Link {
    /// Starts a link's two tasks on the current runtime; on an actix arbiter among the arbiter's own tasks, so call it from
    /// one of those there.
    pub fn start<S>(stream: S, options: LinkOptions, serve: Arc<dyn Serve>) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let LinkOptions { limits, calls, trusted_peer } = options;
        let slots = if trusted_peer { calls } else { 1 };
        let ours = OnceLock::new();
        if trusted_peer {
            let _ = ours.set(());
        }
        let inbound = incoming::budget_units(limits.body) as usize + incoming::INBOUND_UNITS;
        let link = Self(Arc::new(Shared {
            outbox: Outbox::new(),
            in_flight: InFlight::default(),
            serving: Serving::new(calls),
            slots: Arc::new(Semaphore::new(slots)),
            calls,
            ours,
            pace: Pace::default(),
            said_hello: AtomicBool::new(false),
            hello: Notify::new(),
            inbound: Arc::new(Semaphore::new(inbound)),
            replies: Arc::new(Semaphore::new(crate::module::BUDGET_UNITS as usize)),
            nonce: crate::identity::random_u32(),
            next: AtomicU32::new(0),
            stop: CancellationToken::new(),
            reason: Mutex::new(None),
            limits,
        }));
        let (read, write) = tokio::io::split(stream);
        spawn(reader::run(link.clone(), read, serve));
        spawn(writer::run(link.clone(), write));
        link
    }

    /// Calls a method of the peer; waits for a free slot first.
    ///
    /// Dropping the future ends the call, and tells a peer of ours to end its work.
    ///
    /// # Errors
    /// The peer's fault, or ours: [`FaultCode::TimedOut`], [`FaultCode::SessionClosed`], [`FaultCode::LimitExceeded`].
    pub async fn call(&self, method: &str, params: Vec<Value>, options: &CallOptions) -> Outcome {
        let method = method.parse().map_err(|error| Fault::invalid_params(format!("{error}")))?;
        let deadline = options.timeout.filter(|timeout| !timeout.is_zero());
        let running = async {
            let slot = Arc::clone(&self.0.slots).acquire_owned().await.map_err(|_| self.closed_fault())?;
            let call = Call { method, params };
            self.exchange(call, options, Source::System, Heads::default(), slot).await.map(|(value, _)| value)
        };
        match deadline {
            None => running.await,
            Some(deadline) => tokio::time::timeout(deadline, running).await.unwrap_or_else(|_| {
                Err(Fault::new(
                    FaultCode::TimedOut,
                    format!("no answer within {}", humantime::format_duration(deadline)),
                ))
            }),
        }
    }

    /// Passes a call on for somebody else: the deadline is the caller's business, and the reply comes with what it holds of
    /// the inbound budget. Where all slots are taken a patient call waits for one, and any other is refused.
    pub(crate) async fn forward(
        &self,
        call: Call,
        options: &CallOptions,
        source: Source,
        patient: bool,
    ) -> Result<(Value, Option<OwnedSemaphorePermit>), Fault> {
        let slot = match Arc::clone(&self.0.slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(tokio::sync::TryAcquireError::Closed) => return Err(self.closed_fault()),
            // A careful link has one slot for everybody: whoever comes second waits for it.
            Err(_) if patient || !self.is_ours() => {
                Arc::clone(&self.0.slots).acquire_owned().await.map_err(|_| self.closed_fault())?
            }
            Err(_) => {
                let limit = self.0.calls;
                return Err(Fault::limit(format!("{limit} calls are in flight on that link already")));
            }
        };
        self.exchange(call, options, source, Heads::default(), slot).await
    }

    /// Says hello: alone on the link, with our version, boot and a fresh nonce in its heads.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn hello(&self, boot_id: &str) -> Outcome {
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.map_err(|_| self.closed_fault())?;
        let heads = Heads {
            version: Some(VERSION.to_owned()),
            boot_id: Some(boot_id.to_owned()),
            nonce: Some(format!("{:08x}{:08x}", self.0.nonce, crate::identity::random_u32())),
            ..Heads::default()
        };
        let call = Call { method: method("va.hello")?, params: Vec::new() };
        let options = CallOptions { encoding: Some(Encoding::Xml), ..CallOptions::default() };
        let hello = self.exchange(call, &options, Source::System, heads, slot);
        match tokio::time::timeout(CAREFUL_TIMEOUT, hello).await {
            Ok(outcome) => outcome.map(|(value, _)| value),
            Err(_) => Err(Fault::new(FaultCode::TimedOut, "the host does not answer va.hello")),
        }
    }

    /// Asks what the peer is, and stops being careful with one of ours.
    ///
    /// A guest learns late that one host left its port and another came: what the new one sends meanwhile may be lost with
    /// the old conversation. It says hello when it has noticed, so a guest of ours is asked again after its hello, and
    /// nothing else is sent to it before.
    ///
    /// # Errors
    /// As [`Link::call`].
    pub async fn greet(&self, timeout: Duration) -> Result<Capabilities, Fault> {
        let greeting = async {
            loop {
                let hello_without_answer = async {
                    self.0.hello.notified().await;
                    tokio::time::sleep(HELLO_TO_ANSWER).await;
                };
                tokio::select! {
                    biased;
                    answer = self.ask_capabilities() => break answer,
                    () = hello_without_answer => tracing::debug!("the guest said hello and did not answer; asking again"),
                }
            }
        };
        let waited = humantime::format_duration(timeout);
        let late = || Fault::new(FaultCode::TimedOut, format!("no answer to va.capabilities within {waited}"));
        let Value::Struct(all) = tokio::time::timeout(timeout, greeting).await.map_err(|_| late())?? else {
            return Err(Fault::new(FaultCode::InvalidRequest, "the peer's va.capabilities is no struct"));
        };
        let is_guest = all.contains_key("level");
        if self.is_ours() && is_guest && !self.0.said_hello.load(Ordering::Relaxed) {
            let _ = tokio::time::timeout(ANSWER_TO_HELLO, self.0.hello.notified()).await;
        }
        let methods = all.get("methods").and_then(Value::as_array).unwrap_or_default();
        let methods = methods.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Ok(Capabilities { ours: self.is_ours(), methods, all })
    }

    async fn ask_capabilities(&self) -> Outcome {
        let heads = Heads { version: Some(VERSION.to_owned()), ..Heads::default() };
        let call = Call { method: method("va.capabilities")?, params: Vec::new() };
        let options = CallOptions { encoding: Some(Encoding::Xml), ..CallOptions::default() };
        let slot = Arc::clone(&self.0.slots).acquire_owned().await.map_err(|_| self.closed_fault())?;
        self.exchange(call, &options, Source::System, heads, slot).await.map(|(value, _)| value)
    }

    /// A hello of one of ours came.
    fn heard_hello(&self) {
        self.0.said_hello.store(true, Ordering::Relaxed);
        self.0.hello.notify_one();
    }

    /// Whether the peer has shown to be one of ours.
    pub fn is_ours(&self) -> bool {
        self.0.ours.get().is_some()
    }

    /// Resolves when the link has ended, with why.
    pub async fn closed(&self) -> CloseReason {
        self.0.stop.cancelled().await;
        self.reason().unwrap_or(CloseReason::PeerGone)
    }

    /// Ends the link at once; every call in flight gets a fault that says why.
    pub fn close(&self, reason: &str) {
        self.end(CloseReason::Closed(reason.to_owned()));
    }

    /// Ends the link when everything queued so far is written, or after `limit`.
    pub async fn close_after_flush(&self, reason: &str, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.0.outbox.drained()).await;
        self.close(reason);
    }

    /// Whether two handles are of one link.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Fires the token of one of the peer's calls, as its `va.cancel` asks; false when no such call runs.
    pub fn cancel_incoming(&self, tag: &Tag) -> bool {
        self.0.serving.cancel(tag)
    }

    /// How many of the peer's calls are being answered.
    pub fn serving(&self) -> usize {
        self.0.serving.len()
    }

    /// Ends all of the peer's calls early.
    pub(crate) fn cancel_all(&self) {
        self.0.serving.cancel_all();
    }

    pub(crate) fn replies_budget(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.replies)
    }

    fn reason(&self) -> Option<CloseReason> {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first reason counts.
    fn end(&self, reason: CloseReason) {
        self.0.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        self.0.stop.cancel();
        self.0.slots.close();
        self.0.inbound.close();
        self.0.replies.close();
        self.0.outbox.close();
        self.0.in_flight.fail_all(&self.closed_fault());
        self.0.serving.cancel_all();
    }

    fn closed_fault(&self) -> Fault {
        let reason = self.reason().unwrap_or(CloseReason::PeerGone);
        Fault::new(FaultCode::SessionClosed, reason.to_string())
    }

    /// The peer showed to be one of ours: many calls at a time from now on.
    fn peer_is_ours(&self) {
        if self.0.ours.set(()).is_ok() {
            self.0.slots.add_permits(self.0.calls.saturating_sub(1));
        }
    }

    fn next_tag(&self) -> Tag {
        Tag::numbered(self.0.nonce, self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn exchange(
        &self,
        call: Call,
        options: &CallOptions,
        source: Source,
        mut heads: Heads,
        slot: OwnedSemaphorePermit,
    ) -> Result<(Value, Option<OwnedSemaphorePermit>), Fault> {
        let shared = &self.0;
        let default = if self.is_ours() { Encoding::Cbor } else { Encoding::Xml };
        let encoding = options.encoding.unwrap_or(default);
        let tag = self.next_tag();
        let body = encode_call(encoding, &call, &tag)?;
        if body.len() > shared.limits.body {
            let (length, limit) = (body.len(), shared.limits.body);
            return Err(Fault::limit(format!("the call takes {length} bytes, over limits.body = {limit}")));
        }
        heads.username = options.username.clone();
        heads.timeout_ms = options.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        let frame = Frame { kind: Kind::Call, tag: tag.clone(), encoding, heads, body };
        // From here on the guard speaks for the call: dropped early, it forgets or cancels it.
        let mut waiting = shared.in_flight.begin(self, tag, source, slot);
        waiting.send(Parcel::new(frame, Class::Call)).await?;
        waiting.reply().await
    }
}

/// Beside the actors where there are any: between an arbiter's tasks and others of its runtime lies a system call, for
/// the runtime looks for events before it turns from one kind to the other.
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    if actix::Arbiter::try_current().is_some() {
        actix::spawn(task);
    } else {
        tokio::spawn(task);
    }
}

fn method(name: &str) -> Result<crate::rpc::MethodName, Fault> {
    name.parse().map_err(|error| Fault::internal(format!("{error}")))
}
