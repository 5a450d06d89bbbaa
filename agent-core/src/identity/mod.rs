//! Who is who: users, their login sessions, the peers of sockets, this boot.
//!
//! | file | what it owns |
//! |---|---|
//! | `users` | users by name or number |
//! | `peer` | the other end of a Unix socket, by the kernel's word |
//! | `logind` | login sessions and the active seat's user |
//! | `boot` | this boot |
//! | `random` | tags that no other conversation uses |
//!
//! Must never: take an identity from a frame, block the event loop, or keep anything running while idle.

mod boot;
#[cfg(test)]
mod fake_logind;
mod logind;
mod peer;
mod random;
mod users;

pub use self::boot::boot_id;
pub use self::logind::{LoginSession, Logind};
pub use self::peer::Peer;
pub use self::random::random_u32;
pub use self::users::{BadUsername, User, Username, lookup_user, resolve_user};
