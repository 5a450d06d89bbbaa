//! `[limits]`: how much of anything a peer may ask for.

use std::time::Duration;

/// The bounds of every link. All of them are settings; `config/virtagentd.toml` documents each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest head of a frame, in bytes.
    pub head: usize,
    /// The longest body of a frame, in bytes; at most [`Limits::BODY_MAX`].
    pub body: usize,
    /// Calls in flight in each direction on a session's link.
    pub calls_per_session: usize,
    /// Calls in flight in each direction on the host's link.
    pub calls_host: usize,
    /// How long a frame may stay half-read.
    pub frame_timeout: Duration,
    /// The deadline of a call that names none; zero for no deadline.
    pub default_timeout: Duration,
}

impl Limits {
    /// No configuration may allow a longer body: 16 MiB.
    pub const BODY_MAX: usize = 16 << 20;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 4096,
            body: 2 << 20,
            calls_per_session: 64,
            calls_host: 1024,
            frame_timeout: Duration::from_secs(30),
            default_timeout: Duration::from_secs(60),
        }
    }
}
