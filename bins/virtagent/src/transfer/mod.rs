//! Files across the link: pipelined, digested on the way, compared with the guest's digest, resumed.
//!
//! Owns the windows of `file.read` and `file.write`, and everything that is kept between two runs. Bytes are digested in
//! order on the thread that reads or writes the local file, so that neither disk nor digest stops the link.

mod digest;
mod get;
mod local;
mod progress;
mod put;
mod remote;

pub use self::get::{cat, get};
pub use self::put::{Put, put};

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Result};

/// How much one call carries: the most that the guest's files module gives by default.
pub const BLOCK: usize = 1 << 20;

/// How many calls are in flight.
pub const WINDOW: usize = 8;

/// Runs `work` until it is done or the user stops it.
async fn interruptible<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let of = |kind| signal(kind).map_err(|error| Failure::usage(format!("can't take signals: {error}")));
    let mut interrupt = of(SignalKind::interrupt())?;
    let mut terminate = of(SignalKind::terminate())?;
    let mut hang_up = of(SignalKind::hangup())?;
    tokio::select! {
        outcome = work => outcome,
        _ = interrupt.recv() => Err(Failure::Interrupted("interrupted".to_owned())),
        _ = terminate.recv() => Err(Failure::Interrupted("ended by SIGTERM".to_owned())),
        _ = hang_up.recv() => Err(Failure::Interrupted("ended by SIGHUP".to_owned())),
    }
}

/// The failure, with what the user should know about what is left.
fn with_note(failure: Failure, note: &str) -> Failure {
    match failure {
        Failure::NoConnection(message) => Failure::NoConnection(format!("{message}; {note}")),
        Failure::TimedOut(message) => Failure::TimedOut(format!("{message}; {note}")),
        Failure::Interrupted(message) => Failure::Interrupted(format!("{message}; {note}")),
        Failure::Usage(message) => Failure::Usage(format!("{message}; {note}")),
        other => {
            crate::output::note(&format!("virtagent: {note}"));
            other
        }
    }
}
