//! From links to the router: the host's link, the users' sockets, and a user daemon's control socket.
//!
//! | file | what it owns |
//! |---|---|
//! | `host` | calls of the upstream link, and the system daemon's notices |
//! | `session` | the users' socket: who connects, hello, takeover, leave |
//! | `program` | a user daemon's control socket |

mod host;
mod program;
mod session;

pub use self::host::ServeHost;
pub use self::program::accept_programs;
pub use self::session::accept_sessions;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::{Reply, Request, Router, RouterHandle, Via};
use crate::audit::Event;
use crate::identity::User;
use crate::link::Incoming;

impl Request {
    pub(super) fn from_incoming(incoming: Incoming, via: Via) -> Self {
        let Incoming { call, username, timeout, encoding, tag, size, responder, cancel } = incoming;
        Self {
            call,
            via,
            username,
            timeout,
            cancel,
            size,
            reply: Reply::Wire { responder, tag, encoding },
            nested: false,
        }
    }
}

/// Records what a peer did wrong, but no more than [`Offences::PER_MINUTE`] times a minute: a peer must not be able to
/// fill the log. What was left out is counted in the next record.
#[derive(Default)]
struct Offences(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    began: Option<Instant>,
    recorded: u32,
    left_out: u64,
}

impl Offences {
    const PER_MINUTE: u32 = 30;

    pub(super) fn record(
        &self,
        router: &RouterHandle,
        event: &'static str,
        user: Option<&User>,
        mut data: serde_json::Value,
    ) {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.began.is_none_or(|began| began.elapsed() >= Duration::from_secs(60)) {
            (minute.began, minute.recorded) = (Some(Instant::now()), 0);
        }
        if minute.recorded >= Self::PER_MINUTE {
            minute.left_out += 1;
            return;
        }
        minute.recorded += 1;
        let left_out = std::mem::take(&mut minute.left_out);
        if left_out > 0 {
            data["left_out_before"] = left_out.into();
        }
        let mut event = Event::new(event).with(data);
        if let Some(user) = user {
            event = event.of_user(Arc::clone(&user.name), user.uid);
        }
        if router.address.try_send(Note(event)).is_err() {
            minute.left_out += 1 + left_out;
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Note(Event);

impl Handler<Note> for Router {
    type Result = ();

    fn handle(&mut self, Note(event): Note, _: &mut Context<Self>) {
        self.record(event);
    }
}
