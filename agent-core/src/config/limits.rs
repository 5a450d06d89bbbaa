//! `[limits]`: how much of anything a peer may ask for.

use std::time::Duration;

use crate::document::ConfigError;
use crate::document::reader::Section;

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

    pub(super) const KEYS: [&str; 6] =
        ["head", "body", "calls_per_session", "calls_host", "frame_timeout", "default_timeout"];

    /// Takes what a `[limits]` table sets; each setting that it does not name stays.
    pub(super) fn apply(&mut self, section: &Section) -> Result<(), ConfigError> {
        const SECOND: Duration = Duration::from_secs(1);
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        // Every size here is at most 16 MiB and every count at most 65,536, which a usize holds.
        if let Some(item) = section.get("head") {
            self.head = item.size(1024..=64 << 10)? as usize;
        }
        if let Some(item) = section.get("body") {
            self.body = item.size(64 << 10..=Self::BODY_MAX as u64)? as usize;
        }
        if let Some(item) = section.get("calls_per_session") {
            self.calls_per_session = item.number(1..=65_536)? as usize;
        }
        if let Some(item) = section.get("calls_host") {
            self.calls_host = item.number(1..=65_536)? as usize;
        }
        if let Some(item) = section.get("frame_timeout") {
            self.frame_timeout = item.duration(SECOND..=Duration::from_secs(3600), false)?;
        }
        if let Some(item) = section.get("default_timeout") {
            self.default_timeout = item.duration(SECOND..=DAY, true)?;
        }
        Ok(())
    }
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
