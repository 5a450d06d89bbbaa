//! What large calls to one session may hold until they are answered.
//!
//! The host's link has one budget for the bodies it has read. A session that takes none would hold all of it, and the
//! host could reach nobody: so a call to a session moves to that session's account, and the host's link reads on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rpc::{Fault, FaultCode};

/// Beside one body of the greatest length, in KiB: 8 MiB, as on a link.
const UNITS: usize = 8 * 1024;
/// How long a call may wait for room, which is how long a session can hold the host's link up: once.
const PATIENCE: Duration = Duration::from_millis(500);

/// One session's account.
pub(crate) struct Room {
    budget: Arc<Semaphore>,
    /// Nothing has become free since a call waited in vain: the next ones don't wait.
    stuck: AtomicBool,
}

impl Room {
    /// For bodies of at most that many bytes.
    pub(super) fn new(body_limit: usize) -> Self {
        let budget = Arc::new(Semaphore::new(body_limit.div_ceil(1024) + UNITS));
        Self { budget, stuck: AtomicBool::new(false) }
    }

    /// Room for a body, to be held until its call is answered.
    ///
    /// # Errors
    /// [`FaultCode::Busy`] when the session takes nothing.
    pub(super) async fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let units = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let patience = if self.stuck.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        let waiting = Arc::clone(&self.budget).acquire_many_owned(units);
        let room = tokio::time::timeout(patience, waiting).await;
        self.stuck.store(room.is_err(), Ordering::Relaxed);
        match room {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Fault::new(
                FaultCode::Busy,
                "the user's daemon takes no more long calls before it has answered those that it has; try again later",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_that_takes_nothing_is_waited_for_once() {
        let room = Room::new(1 << 20);
        let held = room.admit(9 << 20).await.unwrap();
        let began = tokio::time::Instant::now();
        for _ in 0..100 {
            assert!(room.admit(1).await.unwrap_err().is(FaultCode::Busy));
        }
        assert_eq!(began.elapsed(), PATIENCE);
        drop(held);
        assert!(room.admit(1 << 20).await.is_ok(), "there is room again");
    }
}
