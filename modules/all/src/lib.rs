//! Every module that virtagent ships, a feature each.
//!
//! A daemon that names this crate has them all: `inventory` registers a module when its crate is linked, and a crate is
//! linked when code names it. So each is named here, and nothing else happens here.
#![forbid(unsafe_code)]

#[cfg(feature = "exec")]
pub use virtagent_exec as exec;
#[cfg(feature = "files")]
pub use virtagent_files as files;
#[cfg(feature = "info")]
pub use virtagent_info as info;
#[cfg(feature = "power")]
pub use virtagent_power as power;
