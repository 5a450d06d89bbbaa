//! Who owns what: each caller's programs, their number, and the handles that name them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use agent_core::module::OwnerId;
use nix::errno::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::ExecError;
use crate::started::Started;

/// Every caller that has had a program.
pub(crate) struct Owners {
    most: usize,
    /// Fires when the daemon stops.
    stop: CancellationToken,
    owners: RefCell<HashMap<OwnerId, Owner>>,
    last_handle: Cell<i64>,
}

struct Owner {
    slots: Arc<Semaphore>,
    gone: CancellationToken,
    programs: HashMap<i64, Rc<Started>>,
}

/// Leave to have one program more.
pub(crate) struct Slot {
    pub permit: OwnedSemaphorePermit,
    /// Fires when the owner is gone or the daemon stops.
    pub gone: CancellationToken,
}

impl Owners {
    /// Handles begin at a random number, so that one from before a restart names nothing.
    pub(crate) fn new(most: usize) -> Result<Self, Errno> {
        let random = getrandom::u32().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
        // 30 bits: room to count up within an XML-RPC int, which is all that many clients can send.
        let first = i64::from(random >> 2);
        Ok(Self { most, stop: CancellationToken::new(), owners: RefCell::default(), last_handle: Cell::new(first) })
    }

    /// Counts one more program of an owner.
    pub(crate) fn slot(&self, owner: OwnerId) -> Result<Slot, ExecError> {
        let mut owners = self.owners.borrow_mut();
        let owner = owners.entry(owner).or_insert_with(|| Owner {
            slots: Arc::new(Semaphore::new(self.most)),
            gone: self.stop.child_token(),
            programs: HashMap::new(),
        });
        let permit = Arc::clone(&owner.slots).try_acquire_owned().map_err(|_| ExecError::TooMany(self.most))?;
        Ok(Slot { permit, gone: owner.gone.clone() })
    }

    /// A handle that nobody has had.
    pub(crate) fn next_handle(&self) -> i64 {
        self.last_handle.set(self.last_handle.get() + 1);
        self.last_handle.get()
    }

    /// Keeps a program for its owner. If the owner went meanwhile, nothing is kept and the program's token has fired.
    pub(crate) fn keep(&self, owner: OwnerId, handle: i64, program: Started) -> Result<(), ExecError> {
        match self.owners.borrow_mut().get_mut(&owner) {
            Some(owner) if !program.gone.is_cancelled() => {
                owner.programs.insert(handle, Rc::new(program));
                Ok(())
            }
            _ => Err(ExecError::OwnerGone),
        }
    }

    /// The program that an owner calls so; another owner's is unknown.
    pub(crate) fn find(&self, owner: OwnerId, handle: i64) -> Result<Rc<Started>, ExecError> {
        let owners = self.owners.borrow();
        owners.get(&owner).and_then(|owner| owner.programs.get(&handle)).cloned().ok_or(ExecError::NoHandle(handle))
    }

    pub(crate) fn release(&self, owner: OwnerId, handle: i64) {
        if let Some(owner) = self.owners.borrow_mut().get_mut(&owner) {
            owner.programs.remove(&handle);
        }
    }

    /// Ends all that an owner has.
    pub(crate) fn gone(&self, owner: OwnerId) {
        if let Some(owner) = self.owners.borrow_mut().remove(&owner) {
            owner.gone.cancel();
        }
    }

    /// Ends all, and all that may yet come.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Owners {
    fn drop(&mut self) {
        self.stop();
    }
}
