//! The handle that the router holds. Owns the promise that a call runs only after its record was written, and that
//! what was opened is closed. Does no I/O itself.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot;

use super::counter::{Counter, Key};
use super::queue::{Entry, Item, Shared, Then};
use super::record::{self, Closing, Event, Line, Opening};
use super::writer::Writer;
use super::{AuditError, AuditSettings, journal};
use crate::module::CallId;
use crate::rpc::{Fault, FaultCode};

/// How often counts are written, at most.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// The audit log of this daemon. Cheap to clone; dropping the last one ends the log's thread, but only
/// [`Audit::stop`] waits for it.
#[derive(Clone, Default)]
pub struct Audit {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.begin_stop();
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.inner.is_some() { "Audit" } else { "Audit (disabled)" })
    }
}

/// The proof that a call's record was written. Hand it back with [`Audit::close`]; one that is dropped is closed with
/// a fault, so that no record stays open while the daemon runs.
#[must_use = "close it with the call's outcome"]
#[derive(Debug)]
pub struct Recorded {
    id: CallId,
    key: Option<Key>,
    counted: bool,
    shared: Option<SharedRef>,
}

struct SharedRef(Arc<Shared>);

impl fmt::Debug for SharedRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Recorded {
    /// The call's number.
    pub fn id(&self) -> CallId {
        self.id
    }

    /// Nothing was written, or nobody is left to write to.
    pub(super) fn forget(mut self) {
        self.shared = None;
    }

    /// The outcome's record; nothing when the call was only counted, which it is then.
    fn take_outcome(&mut self, closing: &Closing) -> Option<(Arc<Shared>, Line)> {
        let SharedRef(shared) = self.shared.take()?;
        let key = self.key.take()?;
        if self.counted {
            shared.count(key, closing.outcome.is_ok());
            return None;
        }
        let (method, user) = key;
        let user = user.as_deref().unwrap_or_default();
        let line = record::outcome(self.id, method.as_str(), user, closing, shared.journal);
        Some((shared, line))
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if self.shared.is_none() {
            return;
        }
        let fault = Fault::new(FaultCode::Cancelled, "the call was given up before it had an outcome");
        let closing = Closing { outcome: Err(fault), duration: Duration::ZERO, bytes_in: 0, bytes_out: 0 };
        if let Some((shared, line)) = self.take_outcome(&closing) {
            // Without a place, since nothing can wait here: the calls in flight are the bound.
            let _ = shared.push(Item::Record { entry: Entry::keep(line), placed: false });
        }
    }
}

impl Audit {
    /// No log: every call is taken as recorded.
    pub fn disabled() -> Self {
        Self::default()
    }

    /// Opens the log, takes its lock and starts its thread. Blocks for the file system; call it before anything is
    /// served.
    ///
    /// A full disk does not fail this: the daemon starts, and calls are refused until there is room.
    ///
    /// # Errors
    /// A setting does not fit, another daemon writes the log, or it can't be opened safely.
    pub fn start(settings: &AuditSettings) -> Result<Self, AuditError> {
        Self::start_with(settings, COUNT_INTERVAL, Path::new(journal::SOCKET))
    }

    /// The same with the test's own clockwork and journal.
    pub(super) fn start_with(
        settings: &AuditSettings,
        count_interval: Duration,
        journal_socket: &Path,
    ) -> Result<Self, AuditError> {
        settings.check()?;
        if settings.file.is_none() && !settings.journal {
            return Ok(Self::disabled());
        }
        let counter = Counter::new(&settings.count);
        let shared = Arc::new(Shared::new(counter, count_interval, settings.journal));
        let writer = Writer::open(settings, journal_socket, Arc::clone(&shared))?;
        let start = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "boot_id": crate::identity::boot_id().ok(),
        });
        let start = record::plain("start", &start, 6, settings.journal);
        let _ = shared.push(Item::Record { entry: Entry::keep(start), placed: false });
        let spawned = std::thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run());
        if let Err(error) = spawned {
            let file = settings.file.as_deref().unwrap_or(journal_socket);
            return Err(AuditError::file(file, "start its thread", &error));
        }
        Ok(Self { inner: Some(Arc::new(Inner { shared })) })
    }

    fn shared(&self) -> Option<&Arc<Shared>> {
        self.inner.as_ref().map(|inner| &inner.shared)
    }

    /// Whether calls of that method are counted rather than written.
    pub fn counts(&self, method: &crate::rpc::MethodName) -> bool {
        self.shared().is_none_or(|shared| shared.counter.counts(method))
    }

    /// Records a call that is about to run. Resolves after the write(2) (with `sync`, the fdatasync(2)) succeeded; the
    /// call must not run before.
    ///
    /// The record takes its place in the log when this is called, not when the future is first polled (unless the queue
    /// is full: then when there is room). The future borrows nothing; if it is dropped the record is closed as given up.
    ///
    /// # Errors
    /// The record could not be written: answer the call with this as its fault.
    pub fn open(&self, opening: Opening) -> impl Future<Output = Result<Recorded, AuditError>> + Send + use<> {
        let waiting = self.begin(opening);
        async move {
            match waiting {
                Opened::Now(recorded) => Ok(recorded),
                Opened::Queued(written) => written.await.unwrap_or(Err(AuditError::Stopped)),
                Opened::NoRoom(shared, entry, written) => {
                    shared.admit(entry).await;
                    written.await.unwrap_or(Err(AuditError::Stopped))
                }
            }
        }
    }

    fn begin(&self, opening: Opening) -> Opened {
        let Some(shared) = self.shared() else {
            return Opened::Now(Recorded { id: opening.id, key: None, counted: false, shared: None });
        };
        let counted = shared.counter.counts(&opening.method);
        let line = (!counted).then(|| record::call(&opening, None, shared.journal));
        let key = Some((opening.method, opening.user));
        let recorded = Recorded { id: opening.id, key, counted, shared: Some(SharedRef(Arc::clone(shared))) };
        let Some(line) = line else { return Opened::Now(recorded) };
        let (ack, written) = oneshot::channel();
        match shared.try_admit(Entry { line, then: Then::Acknowledge(ack, recorded) }) {
            Ok(()) => Opened::Queued(written),
            Err(entry) => Opened::NoRoom(Arc::clone(shared), entry, written),
        }
    }

    /// Records a call that was refused before it could run (denied, unknown, too large): one line with both the call
    /// and its fault, counted methods too. Waits for room in the queue only.
    pub fn refuse(&self, opening: Opening, fault: &Fault) -> impl Future<Output = ()> + Send + use<> {
        let waiting = self.shared().and_then(|shared| {
            let line = record::call(&opening, Some(fault), shared.journal);
            queue(shared, line)
        });
        admit(waiting)
    }

    /// Records what came of a call. Waits for room in the queue only; what is queued is written, at the latest by
    /// [`Audit::stop`].
    pub fn close(&self, mut recorded: Recorded, closing: Closing) -> impl Future<Output = ()> + Send + use<> {
        let outcome = recorded.take_outcome(&closing);
        admit(outcome.and_then(|(shared, line)| queue(&shared, line)))
    }

    /// Records something that is no call. Waits for room in the queue only.
    pub fn event(&self, event: Event) -> impl Future<Output = ()> + Send + use<> {
        let waiting = self.shared().and_then(|shared| queue(shared, record::event(&event, shared.journal)));
        admit(waiting)
    }

    /// Resolves when everything that was queued before, counts too, has been written (or failed to be).
    pub async fn flush(&self) {
        let Some(shared) = self.shared() else { return };
        let (flushed, done) = oneshot::channel();
        if shared.push(Item::Flush(flushed)).is_ok() {
            let _ = done.await;
        }
    }

    /// Opens the log anew if its name means another file by now (SIGHUP after logrotate). The chain goes on there.
    ///
    /// # Errors
    /// The file can't be opened safely; the old one is written on.
    pub async fn reopen(&self) -> Result<(), AuditError> {
        let Some(shared) = self.shared() else { return Ok(()) };
        let (reopened, done) = oneshot::channel();
        match shared.push(Item::Reopen(reopened)) {
            Ok(()) => done.await.unwrap_or(Err(AuditError::Stopped)),
            Err(_) => Err(AuditError::Stopped),
        }
    }

    /// Writes everything, a `stop` record last, and ends the log. What is opened after it is refused.
    pub async fn stop(&self) {
        if let Some(shared) = self.shared() {
            shared.stop().await;
        }
    }

    /// How many batches have been written.
    #[cfg(test)]
    pub(super) fn writes(&self) -> u64 {
        self.shared().map_or(0, |shared| shared.writes.load(std::sync::atomic::Ordering::Relaxed))
    }
}

enum Opened {
    Now(Recorded),
    Queued(oneshot::Receiver<Result<Recorded, AuditError>>),
    NoRoom(Arc<Shared>, Entry, oneshot::Receiver<Result<Recorded, AuditError>>),
}

/// Queues at once if there is room.
fn queue(shared: &Arc<Shared>, line: Line) -> Option<(Arc<Shared>, Entry)> {
    shared.try_admit(Entry::keep(line)).err().map(|entry| (Arc::clone(shared), entry))
}

async fn admit(waiting: Option<(Arc<Shared>, Entry)>) {
    if let Some((shared, entry)) = waiting {
        shared.admit(entry).await;
    }
}
