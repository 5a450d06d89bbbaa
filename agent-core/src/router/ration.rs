//! How much of the audit log one user's calls to the host may take, so that nobody can push the host's own deeds out of
//! it by calling often.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::unistd::Uid;

use crate::rpc::Fault;

/// What a user may have written at once, in bytes of calls.
const BURST: f64 = 4.0 * 1024.0 * 1024.0;
/// What is added each second: 16 KiB, or some 25 small calls. The packaged 576 MiB of log last ten hours so.
const PER_SECOND: f64 = 16.0 * 1024.0;
/// A record's own members, beside its parameters.
const OVERHEAD: usize = 640;
/// A record's parameters are cut at about this length.
const LONGEST: usize = 16 * 1024;

/// What each user has left. A user who is at the full ration needs no entry.
#[derive(Default)]
pub(super) struct Rations(Mutex<HashMap<Uid, Left>>);

struct Left {
    bytes: f64,
    at: Instant,
}

impl Rations {
    /// Takes the room for the record of a call whose body has `size` bytes.
    ///
    /// # Errors
    /// The ration is used up: the fault to answer. The call is not recorded then, and does not run.
    pub(super) fn take(&self, uid: Uid, size: usize) -> Result<(), Fault> {
        let cost = (size.min(LONGEST) + OVERHEAD) as f64;
        let now = Instant::now();
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        users.retain(|_, left| left.bytes + now.duration_since(left.at).as_secs_f64() * PER_SECOND < BURST);
        let left = users.entry(uid).or_insert(Left { bytes: BURST, at: now });
        left.bytes = (left.bytes + now.duration_since(left.at).as_secs_f64() * PER_SECOND).min(BURST);
        left.at = now;
        if left.bytes < cost {
            return Err(Fault::limit(
                "this user's calls fill the audit log faster than 16 KiB a second; wait, or have the method counted \
                 rather than written (audit.count)",
            ));
        }
        left.bytes -= cost;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_floods_runs_out_and_another_does_not() {
        let rations = Rations::default();
        let (alice, bob) = (Uid::from_raw(1000), Uid::from_raw(1001));
        let taken = (0..100_000).take_while(|_| rations.take(alice, 100).is_ok()).count();
        assert!((5_000..10_000).contains(&taken), "{taken}");
        assert!(rations.take(bob, 100).is_ok());
    }

    #[test]
    fn a_long_body_costs_what_its_record_takes_and_no_more() {
        let rations = Rations::default();
        let alice = Uid::from_raw(1000);
        let taken = (0..10_000).take_while(|_| rations.take(alice, 2 << 20).is_ok()).count();
        assert!((200..300).contains(&taken), "{taken}");
    }
}
