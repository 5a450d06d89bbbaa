//! Who has which file open.
//!
//! Owns the numbers, the limit of each owner, and the order: what is asked of one handle runs in the order in which it
//! was asked, whatever is asked of others. Must never block.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use agent_core::module::OwnerId;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::error::{Error, Result};
use crate::open_file::OpenFile;

/// The open files of every owner.
pub(crate) struct Handles {
    max_per_owner: usize,
    next: Cell<i64>,
    open: RefCell<HashMap<i64, Handle>>,
    owners: RefCell<HashMap<OwnerId, Owned>>,
}

struct Handle {
    file: Arc<Mutex<OpenFile>>,
    slot: Slot,
}

#[derive(Default)]
struct Owned {
    slots: usize,
    gone: bool,
}

/// One of the files that an owner may have open; taken before the file is opened.
pub(crate) struct Slot {
    handles: Rc<Handles>,
    owner: OwnerId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut owners = self.handles.owners.borrow_mut();
        if let Some(owned) = owners.get_mut(&self.owner) {
            owned.slots -= 1;
            if owned.slots == 0 {
                owners.remove(&self.owner);
            }
        }
    }
}

/// A place in a handle's queue.
pub(crate) struct Turn {
    now: Poll<OwnedMutexGuard<OpenFile>>,
    queued: Pin<Box<dyn Future<Output = OwnedMutexGuard<OpenFile>>>>,
}

impl Turn {
    fn queue(file: Arc<Mutex<OpenFile>>) -> Self {
        // The first poll takes the place in the mutex's fair queue; the waker comes with the next.
        let mut queued = Box::pin(tokio::task::unconstrained(file.lock_owned()));
        let now = queued.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        Self { now, queued }
    }

    /// Waits until everything that was asked before has been done.
    pub(crate) async fn come(self) -> OwnedMutexGuard<OpenFile> {
        match self.now {
            Poll::Ready(file) => file,
            Poll::Pending => self.queued.await,
        }
    }
}

impl Handles {
    pub(crate) fn new(max_per_owner: usize, first: u32) -> Rc<Self> {
        let next = Cell::new(i64::from(first & 0x3fff_ffff) + 1);
        Rc::new(Self { max_per_owner, next, open: RefCell::default(), owners: RefCell::default() })
    }

    /// Takes one of the owner's slots.
    pub(crate) fn slot(self: &Rc<Self>, owner: OwnerId) -> Result<Slot> {
        let mut owners = self.owners.borrow_mut();
        let owned = owners.entry(owner).or_default();
        if owned.slots >= self.max_per_owner {
            let most = self.max_per_owner;
            let message = format!("{most} files are open already, and module.files.max_handles is {most}: close one");
            return Err(Error::Limit(message));
        }
        owned.slots += 1;
        Ok(Slot { handles: Rc::clone(self), owner })
    }

    /// Numbers an open file, unless its owner went while it was being opened; then the file comes back.
    pub(crate) fn insert(&self, slot: Slot, file: OpenFile) -> std::result::Result<i64, Box<OpenFile>> {
        if self.owners.borrow().get(&slot.owner).is_none_or(|owned| owned.gone) {
            return Err(Box::new(file));
        }
        let mut open = self.open.borrow_mut();
        // Handles stay within XML-RPC's 32-bit integer, which is all that some of its libraries take.
        let mut number = self.next.get();
        while open.contains_key(&number) {
            number = after(number);
        }
        self.next.set(after(number));
        open.insert(number, Handle { file: Arc::new(Mutex::new(file)), slot });
        Ok(number)
    }

    /// Queues for an open file of this owner.
    pub(crate) fn turn(&self, number: i64, owner: OwnerId) -> Result<Turn> {
        match self.open.borrow().get(&number) {
            Some(handle) if handle.slot.owner == owner => Ok(Turn::queue(Arc::clone(&handle.file))),
            _ => Err(no_such(number)),
        }
    }

    /// Queues for the last time: the handle is unknown from now on.
    pub(crate) fn last_turn(&self, number: i64, owner: OwnerId) -> Result<Turn> {
        let turn = self.turn(number, owner)?;
        let removed = self.open.borrow_mut().remove(&number);
        drop(removed);
        Ok(turn)
    }

    /// Forgets what an owner had open. The files close when what runs on them has ended: drop them where that may block.
    pub(crate) fn forget(&self, owner: OwnerId) -> Vec<Arc<Mutex<OpenFile>>> {
        if let Some(owned) = self.owners.borrow_mut().get_mut(&owner) {
            owned.gone = true;
        }
        let gone = self.open.borrow_mut().extract_if(|_, handle| handle.slot.owner == owner).collect::<Vec<_>>();
        gone.into_iter().map(|(_, handle)| handle.file).collect()
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) -> Vec<Arc<Mutex<OpenFile>>> {
        let owners: Vec<_> = self.owners.borrow().keys().copied().collect();
        owners.into_iter().flat_map(|owner| self.forget(owner)).collect()
    }
}

fn after(number: i64) -> i64 {
    if number >= i64::from(i32::MAX) { 1 } else { number + 1 }
}

fn no_such(number: i64) -> Error {
    Error::Invalid(format!("no such handle: {number} (it was closed, or is another caller's)"))
}
