//! One TOML file: its text and lines, who may have written it, and typed access that keeps the line for messages.
//!
//! Owns what a file of the owner's is as a file. Must never know a setting by name: that is what [`crate::config`] and
//! [`crate::policy`] do with it.
//!
//! | file | what it owns |
//! |---|---|
//! | `source` | one file: its text, lines, owner and mode |
//! | `reader` | typed access that keeps the line |
//! | `depth`, `units` | what the TOML parser does not bound; sizes and durations |
//! | `error` | file, line, what is wrong and what is allowed |

mod depth;
mod error;
pub(crate) mod reader;
pub(crate) mod source;
mod units;

pub use self::error::ConfigError;
