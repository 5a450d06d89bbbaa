//! Every module that virtagent ships, a feature each.
//!
//! `inventory` keeps what a crate registers only where some code names the crate. This one names them all, and a daemon
//! names this one.
#![forbid(unsafe_code)]

#[cfg(feature = "exec")]
pub use virtagent_exec as exec;
#[cfg(feature = "files")]
pub use virtagent_files as files;
#[cfg(feature = "info")]
pub use virtagent_info as info;
#[cfg(feature = "power")]
pub use virtagent_power as power;
