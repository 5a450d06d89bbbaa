//! The pause between two frames to a careful peer: a 2011 reader takes what comes in one read for one frame, and loses
//! what stands behind it.
//!
//! Owns the knowledge of which frame the peer may not have read yet. Must never hold a frame back for longer than
//! [`PAUSE`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::frame::{Frame, Kind};
use crate::rpc::Tag;

/// How long a peer that gives no sign may take to read a frame.
const PAUSE: Duration = Duration::from_millis(50);

/// What was written last and may still be unread.
#[derive(Default)]
pub(super) struct Pace {
    unread: Mutex<Option<Unread>>,
    read: Notify,
}

struct Unread {
    kind: Kind,
    tag: Tag,
    written: Instant,
}

impl Pace {
    /// Waits until the last frame has been read, as far as can be known. Of two calls the second waits for the first one's
    /// reply anyway, and of two replies the second answers a call that followed the first: only a call and a reply can
    /// come to lie behind each other.
    pub(super) async fn wait(&self, next: Kind) {
        while let Some(until) = self.pause_before(next) {
            if tokio::time::timeout_at(until, self.read.notified()).await.is_err() {
                return;
            }
        }
    }

    fn pause_before(&self, next: Kind) -> Option<Instant> {
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.as_ref().filter(|unread| unread.kind != next).map(|unread| unread.written + PAUSE)
    }

    /// A frame is being written.
    pub(super) fn writing(&self, frame: &Frame) {
        let unread = Unread { kind: frame.kind, tag: frame.tag.clone(), written: Instant::now() };
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = Some(unread);
    }

    /// A frame came: a reply to the last call, or a call after the last reply, says that it was read.
    pub(super) fn came(&self, frame: &Frame) {
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let was_read = unread.as_ref().is_some_and(|unread| match unread.kind {
            Kind::Call => frame.kind == Kind::Reply && frame.tag == unread.tag,
            Kind::Reply => frame.kind == Kind::Call,
        });
        if was_read {
            *unread = None;
            self.read.notify_one();
        }
    }
}
