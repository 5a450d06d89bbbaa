//! The TOML that the daemon reads.

mod limits;

pub use self::limits::Limits;
