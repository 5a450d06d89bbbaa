//! What waits to be written: replies before calls before bulk, round robin between sources, bounded for each of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use crate::frame::{Frame, Kind};
use crate::rpc::Tag;

/// On whose account a frame waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The daemon itself, or the only party there is.
    System,
    /// The session of that UID.
    User(u32),
}

/// The three classes of frames, most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Reply = 0,
    Call = 1,
    Bulk = 2,
}

/// A body from this size on is bulk: it gives way to everything small.
const BULK: usize = 16 * 1024;
/// What one source may have waiting before it has to wait itself.
const BYTES_PER_SOURCE: usize = 4 << 20;
const FRAMES_PER_SOURCE: usize = 2048;

/// A frame, and what it holds until it is written.
pub(super) struct Parcel {
    pub(super) frame: Frame,
    class: Class,
    /// Budgets that the frame's body counts against.
    pub(super) held: Vec<OwnedSemaphorePermit>,
}

impl Parcel {
    pub(super) fn new(frame: Frame, class: Class) -> Self {
        let class = if frame.body.len() >= BULK { Class::Bulk } else { class };
        Self { frame, class, held: Vec::new() }
    }

    fn size(&self) -> usize {
        self.frame.body.len() + 256
    }
}

/// The link has ended.
#[derive(Debug)]
pub(super) struct Closed;

pub(super) struct Outbox {
    state: Mutex<State>,
    /// The writer waits for frames here.
    filled: Notify,
    /// Sources wait for room here, and whoever flushes waits for the end.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    classes: [Fair; 3],
    load: HashMap<Source, Load>,
    /// Frames that the writer has taken and not yet written.
    writing: usize,
    closed: bool,
}

#[derive(Default)]
struct Load {
    frames: usize,
    bytes: usize,
}

/// One class: a queue for each source, and the order of their turns.
#[derive(Default)]
struct Fair {
    queues: HashMap<Source, VecDeque<Parcel>>,
    turns: VecDeque<Source>,
}

impl Fair {
    fn push(&mut self, source: Source, parcel: Parcel) {
        let queue = self.queues.entry(source).or_default();
        if queue.is_empty() {
            self.turns.push_back(source);
        }
        queue.push_back(parcel);
    }

    /// Takes a source's call out of its queue.
    fn withdraw(&mut self, source: Source, tag: &Tag) -> Option<Parcel> {
        let queue = self.queues.get_mut(&source)?;
        let at = queue.iter().position(|parcel| parcel.frame.kind == Kind::Call && parcel.frame.tag == *tag)?;
        let parcel = queue.remove(at)?;
        if queue.is_empty() {
            self.queues.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
        Some(parcel)
    }

    fn pop(&mut self) -> Option<(Source, Parcel)> {
        let source = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&source)?;
        let parcel = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        Some((source, parcel))
    }
}

impl State {
    fn has_room(&self, source: Source) -> bool {
        self.load.get(&source).is_none_or(|load| load.bytes < BYTES_PER_SOURCE && load.frames < FRAMES_PER_SOURCE)
    }

    fn push(&mut self, parcel: Parcel, source: Source) {
        let load = self.load.entry(source).or_default();
        load.frames += 1;
        load.bytes += parcel.size();
        self.classes[parcel.class as usize].push(source, parcel);
    }

    fn pop(&mut self) -> Option<Parcel> {
        let (source, parcel) = self.classes.iter_mut().find_map(Fair::pop)?;
        self.unload(source, &parcel);
        self.writing += 1;
        Some(parcel)
    }

    fn withdraw(&mut self, source: Source, tag: &Tag) -> bool {
        // Calls are in the last two classes.
        let Some(parcel) = self.classes.iter_mut().skip(1).find_map(|class| class.withdraw(source, tag)) else {
            return false;
        };
        self.unload(source, &parcel);
        true
    }

    fn unload(&mut self, source: Source, parcel: &Parcel) {
        if let Some(load) = self.load.get_mut(&source) {
            load.frames -= 1;
            load.bytes -= parcel.size();
            if load.frames == 0 {
                self.load.remove(&source);
            }
        }
    }
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), filled: Notify::new(), emptied: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame, waiting while its source has too much waiting already.
    pub(super) async fn push(&self, parcel: Parcel, source: Source) -> Result<(), Closed> {
        self.push_and(parcel, source, || {}).await
    }

    /// The same; `then` runs in the moment in which the frame is queued, before anybody can write it.
    pub(super) async fn push_and(&self, parcel: Parcel, source: Source, then: impl FnOnce()) -> Result<(), Closed> {
        let mut waiting = Some((parcel, then));
        loop {
            let room = self.emptied.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.closed {
                    return Err(Closed);
                }
                if state.has_room(source)
                    && let Some((parcel, then)) = waiting.take()
                {
                    then();
                    state.push(parcel, source);
                    self.filled.notify_one();
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Queues a small frame without waiting, for those who can't; what one caller can queue so is bounded by its slots.
    pub(super) fn push_now(&self, parcel: Parcel, source: Source) {
        let mut state = self.lock();
        if !state.closed {
            state.push(parcel, source);
            self.filled.notify_one();
        }
    }

    /// Takes back a call that is not being written yet; false when it is too late for that.
    pub(super) fn withdraw(&self, source: Source, tag: &Tag) -> bool {
        let withdrawn = self.lock().withdraw(source, tag);
        if withdrawn {
            self.emptied.notify_waiters();
        }
        withdrawn
    }

    /// The next frame to write; nothing when the link has ended.
    pub(super) async fn next(&self) -> Option<Parcel> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                if let Some(parcel) = state.pop() {
                    drop(state);
                    self.emptied.notify_waiters();
                    return Some(parcel);
                }
            }
            filled.await;
        }
    }

    /// The next frame if there is one at once: for writing several small ones together.
    pub(super) fn next_now(&self) -> Option<Parcel> {
        let parcel = self.lock().pop();
        if parcel.is_some() {
            self.emptied.notify_waiters();
        }
        parcel
    }

    /// The writer has written that many frames.
    pub(super) fn written(&self, frames: usize) {
        let mut state = self.lock();
        state.writing -= frames;
        drop(state);
        self.emptied.notify_waiters();
    }

    /// Resolves when nothing waits or is being written.
    pub(super) async fn drained(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            {
                let state = self.lock();
                if state.closed || (state.writing == 0 && state.load.is_empty()) {
                    return;
                }
            }
            emptied.await;
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        let writing = state.writing;
        *state = State { closed: true, writing, ..State::default() };
        drop(state);
        self.filled.notify_waiters();
        self.filled.notify_one();
        self.emptied.notify_waiters();
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
