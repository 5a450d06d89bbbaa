//! The audit log: a record of every call before it runs and of what came of it, in JSON Lines whose every record
//! carries the hash of the line before.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `handle` | [`Audit`], which the router holds |
//! | `record`, `summary` | what a record says, and what of a call's values it says |
//! | `queue`, `writer` | the way to the one thread that writes, and that thread |
//! | `file`, `tail`, `chain` | the file, where its chain ends, and the chain |
//! | `counter`, `journal` | calls that are counted only; journald |
//! | `verify`, `show`, `format`, `lines` | the reader's side |
//!
//! A chain without a secret key shows what was altered, removed or reordered by somebody who did not rewrite everything
//! after it; who can rewrite the whole file can rewrite its chain. The journal's copies carry each line's number and
//! hash (`VIRTAGENT_SEQ`, `VIRTAGENT_HASH`), so that one can be held against the other.
//!
//! Must never: let a call run whose record was not written, write a secret, or write a file that is not its own.

mod chain;
mod counter;
mod error;
mod file;
mod format;
mod handle;
mod journal;
mod lines;
mod queue;
mod record;
mod settings;
mod show;
mod summary;
mod tail;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use self::chain::LineHash;
pub use self::error::AuditError;
pub use self::handle::{Audit, Recorded};
pub use self::record::{Closing, Direction, Event, Opening, Source, Verdict};
pub use self::settings::AuditSettings;
pub use self::show::{Filter, Show, follow, show};
pub use self::summary::{summarise, summarise_result};
pub use self::verify::{Break, Recovery, Unfinished, VerifyReport, verify};
