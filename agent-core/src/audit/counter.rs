//! Calls that are counted rather than written. Owns the counts between two `counted` records. Must never wait, do I/O
//! or wake another thread for a count that is not the first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value as Json, json};

use crate::rpc::MethodName;

/// Who is counted: a method and the user it ran as.
pub(super) type Key = (MethodName, Option<Arc<str>>);

/// Kinds of calls that are counted apart before a record must be written: a peer chooses the names.
const KINDS_MAX: usize = 256;

#[derive(Default)]
struct Counts {
    since: Option<SystemTime>,
    kinds: HashMap<Key, [u64; 2]>,
}

/// What a count asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// The first since the last record: arm the timer.
    First,
    /// Nothing to do.
    Another,
    /// As many kinds as are kept: write now.
    Full,
}

#[derive(Default)]
pub(super) struct Counter {
    globs: Vec<String>,
    counts: Mutex<Counts>,
}

impl Counter {
    pub fn new(globs: &[String]) -> Self {
        Self { globs: globs.to_vec(), counts: Mutex::default() }
    }

    /// Whether calls of this method are counted.
    pub fn counts(&self, method: &MethodName) -> bool {
        self.globs.iter().any(|glob| glob == method.as_str() || fast_glob::glob_match(glob, method.as_str()))
    }

    pub fn add(&self, key: Key, ok: bool) -> Counted {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.kinds.entry(key).or_default()[usize::from(!ok)] += 1;
        if counts.since.is_none() {
            counts.since = Some(SystemTime::now());
            return Counted::First;
        }
        if counts.kinds.len() >= KINDS_MAX { Counted::Full } else { Counted::Another }
    }

    /// The body of a `counted` record, if there is anything to count; starts anew.
    pub fn take(&self) -> Option<Json> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let since = counts.since?;
        let mut kinds: Vec<_> = counts.kinds.into_iter().collect();
        kinds.sort_unstable();
        let rows: Vec<Json> = kinds
            .into_iter()
            .map(|((method, user), [ok, fault])| {
                let mut row = json!({ "method": method.as_str(), "ok": ok, "fault": fault });
                if let Some(user) = user {
                    row["user"] = (*user).into();
                }
                row
            })
            .collect();
        Some(json!({ "since": humantime::format_rfc3339_micros(since).to_string(), "counts": rows }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_count_asks_for_a_timer_and_nothing_counted_is_no_record() {
        let counter = Counter::new(&["va.*".to_owned()]);
        let ping: MethodName = "va.ping".parse().unwrap();
        assert!(counter.counts(&ping));
        assert!(!counter.counts(&"exec.run".parse().unwrap()));
        assert_eq!(counter.take(), None);
        assert_eq!(counter.add((ping.clone(), None), true), Counted::First);
        assert_eq!(counter.add((ping.clone(), None), false), Counted::Another);
        assert_eq!(counter.add((ping.clone(), Some("alice".into())), true), Counted::Another);
        let body = counter.take().unwrap();
        assert_eq!(body["counts"][0], json!({ "method": "va.ping", "ok": 1, "fault": 1 }));
        assert_eq!(body["counts"][1], json!({ "method": "va.ping", "user": "alice", "ok": 1, "fault": 0 }));
        assert_eq!(counter.take(), None);
        assert_eq!(counter.add((ping, None), true), Counted::First);
    }

    #[test]
    fn names_that_a_peer_chooses_do_not_grow_the_counter_without_bound() {
        let counter = Counter::new(&["*".to_owned()]);
        let mut full = false;
        for n in 0..KINDS_MAX {
            full = counter.add((format!("x.{n}").parse().unwrap(), None), false) == Counted::Full;
        }
        assert!(full);
    }
}
