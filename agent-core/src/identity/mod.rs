//! Users, sessions and the boot.

mod random;

pub use self::random::random_u32;
