//! What waits for the writer: a bounded queue between tasks, which wait without blocking, and one thread, which sleeps
//! until there is something to do. Owns the bound, the counter's timer and the way to an orderly end; does no I/O.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, oneshot};

use super::AuditError;
use super::counter::{Counted, Counter, Key};
use super::handle::Recorded;
use super::record::Line;

/// Records that wait at most, before their callers do.
const RECORDS_MAX: usize = 1024;

/// How long a stopping writer waits for those that wait for room.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Who wants to know that a record was written.
#[derive(Debug)]
pub(super) enum Then {
    /// Nobody: it is written as soon as it can be.
    Keep,
    /// A call that may run then.
    Acknowledge(oneshot::Sender<Result<Recorded, AuditError>>, Recorded),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub line: Line,
    pub then: Then,
}

impl Entry {
    pub fn keep(line: Line) -> Self {
        Self { line, then: Then::Keep }
    }
}

pub(super) enum Item {
    Record {
        entry: Entry,
        /// It took one of [`RECORDS_MAX`] places.
        placed: bool,
    },
    Flush(oneshot::Sender<()>),
    Reopen(oneshot::Sender<Result<(), AuditError>>),
}

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    count_due: Option<Instant>,
    stopping: Option<Instant>,
    stopped: bool,
    /// Callers that wait for room; a stopping writer lets them in.
    entering: usize,
    /// The writer sleeps and must be woken.
    asleep: bool,
    done: Vec<oneshot::Sender<()>>,
}

/// What the writer has to do next.
pub(super) struct Work {
    pub items: Vec<Item>,
    /// The counter's minute is over.
    pub count: bool,
    /// Nothing will come after this.
    pub last: bool,
}

pub(super) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Semaphore,
    pub counter: Counter,
    count_interval: Duration,
    /// Whether records carry fields for journald.
    pub journal: bool,
    #[cfg(test)]
    pub writes: std::sync::atomic::AtomicU64,
}

impl Shared {
    pub fn new(counter: Counter, count_interval: Duration, journal: bool) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Semaphore::new(RECORDS_MAX),
            counter,
            count_interval,
            journal,
            #[cfg(test)]
            writes: Default::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rouse(&self, mut queue: MutexGuard<'_, Queue>) {
        let asleep = std::mem::take(&mut queue.asleep);
        drop(queue);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Queues without regard to the bound; gives the item back when the log is closed.
    #[expect(clippy::result_large_err, reason = "what does not fit is handed back whole")]
    pub fn push(&self, item: Item) -> Result<(), Item> {
        let mut queue = self.lock();
        if queue.stopped {
            return Err(item);
        }
        queue.items.push(item);
        self.rouse(queue);
        Ok(())
    }

    /// Queues the record now if there is room, so that records stand in the order of their calls.
    #[expect(clippy::result_large_err, reason = "what does not fit is handed back whole")]
    pub fn try_admit(&self, entry: Entry) -> Result<(), Entry> {
        match self.room.try_acquire() {
            Ok(place) => {
                place.forget();
                self.push_placed(entry);
                Ok(())
            }
            Err(_) => Err(entry),
        }
    }

    /// Queues the record when there is room.
    pub async fn admit(self: Arc<Self>, entry: Entry) {
        self.lock().entering += 1;
        let _entering = Entering(&self);
        if let Ok(place) = self.room.acquire().await {
            place.forget();
        }
        self.push_placed(entry);
    }

    fn push_placed(&self, entry: Entry) {
        // A closed log drops the entry, and with it the sender: its call learns that the log is closed.
        if let Err(Item::Record { entry: Entry { then: Then::Acknowledge(ack, recorded), .. }, .. }) =
            self.push(Item::Record { entry, placed: true })
        {
            recorded.forget();
            let _ = ack.send(Err(AuditError::Stopped));
        }
    }

    /// Counts a call, and arms the timer with the first.
    pub fn count(&self, key: Key, ok: bool) {
        let due = match self.counter.add(key, ok) {
            Counted::Another => return,
            Counted::First => Instant::now() + self.count_interval,
            Counted::Full => Instant::now(),
        };
        let mut queue = self.lock();
        queue.count_due = Some(due);
        self.rouse(queue);
    }

    /// The counter was read: its timer waits for the next first count.
    pub fn counted(&self) {
        self.lock().count_due = None;
    }

    /// Asks the writer to write everything and end; resolves when it has.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        {
            let mut queue = self.lock();
            if queue.stopped {
                return;
            }
            queue.done.push(done);
        }
        self.begin_stop();
        let _ = ended.await;
    }

    /// Asks the writer to write everything and end.
    pub fn begin_stop(&self) {
        let mut queue = self.lock();
        queue.stopping.get_or_insert_with(Instant::now);
        self.rouse(queue);
    }

    /// The writer's side: sleeps until there is something to do, until `retry` at most.
    pub fn next(&self, retry: Option<Instant>) -> Work {
        let mut queue = self.lock();
        loop {
            let now = Instant::now();
            let is_due = |moment: Option<Instant>| moment.is_some_and(|moment| moment <= now);
            let count = is_due(queue.count_due);
            let grace = queue.stopping.map(|since| since + STOP_GRACE);
            if queue.items.is_empty() && queue.stopping.is_some() && (queue.entering == 0 || is_due(grace)) {
                queue.stopped = true;
                return Work { items: Vec::new(), count: true, last: true };
            }
            if !queue.items.is_empty() || count || is_due(retry) {
                return Work { items: std::mem::take(&mut queue.items), count, last: false };
            }
            queue.asleep = true;
            queue = match [queue.count_due, retry, grace].into_iter().flatten().min() {
                Some(due) => {
                    let wait = self.wake.wait_timeout(queue, due.saturating_duration_since(now));
                    wait.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
            queue.asleep = false;
        }
    }

    /// The writer's side: makes room again.
    pub fn release(&self, places: usize) {
        self.room.add_permits(places);
    }

    /// The writer's side: it has ended.
    pub fn ended(&self) {
        self.room.close();
        let (items, done) = {
            let mut queue = self.lock();
            queue.stopped = true;
            (std::mem::take(&mut queue.items), std::mem::take(&mut queue.done))
        };
        // Whoever waits for one of these learns that the log is closed.
        drop(items);
        for done in done {
            let _ = done.send(());
        }
    }
}

struct Entering<'a>(&'a Shared);

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.entering -= 1;
        if queue.stopping.is_some() {
            self.0.rouse(queue);
        }
    }
}
