//! Counts the programs that live, so that the daemon's end can wait for theirs.

use std::sync::Arc;

use tokio::sync::watch;

/// The count of all programs of the module.
pub(crate) struct Census(Arc<watch::Sender<usize>>);

/// One program in the count, until dropped.
pub(crate) struct Live(Arc<watch::Sender<usize>>);

impl Census {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(crate) fn enter(&self) -> Live {
        self.0.send_modify(|count| *count += 1);
        Live(Arc::clone(&self.0))
    }

    /// Waits until none lives.
    pub(crate) async fn none(&self) {
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
