//! `[module.files]`: the module's own limits.

use agent_core::module::{BuildError, ModuleEnv};
use serde::Deserialize;

use crate::digest::Algorithm;

/// The module's table of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Files that one caller may have open.
    pub(crate) max_handles: usize,
    /// The most bytes that one read answers; keep it below `limits.body`.
    pub(crate) max_read: usize,
    /// How the bytes of a transfer are digested for its close (and so for the audit log).
    pub(crate) digest: DigestSetting,
}

/// The algorithm of a transfer's digest, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum DigestSetting {
    #[serde(rename = "xxh3-128")]
    Xxh3,
    #[serde(rename = "sha256")]
    Sha256,
    #[serde(rename = "none")]
    None,
}

impl DigestSetting {
    pub(crate) fn algorithm(self) -> Option<Algorithm> {
        match self {
            Self::Xxh3 => Some(Algorithm::Xxh3),
            Self::Sha256 => Some(Algorithm::Sha256),
            Self::None => None,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_handles: 64, max_read: 1 << 20, digest: DigestSetting::Xxh3 }
    }
}

impl Settings {
    /// No configuration may allow a longer read: 15 MiB, what a body of 16 MiB can carry.
    pub(crate) const MAX_READ: usize = 15 << 20;

    pub(crate) fn of(env: &ModuleEnv) -> Result<Self, BuildError> {
        let settings: Self = env.settings()?;
        if !(4096..=Self::MAX_READ).contains(&settings.max_read) {
            let (came, most) = (settings.max_read, Self::MAX_READ);
            return Err(BuildError::Settings(format!("max_read = {came}: want 4096 to {most} bytes")));
        }
        if !(1..=4096).contains(&settings.max_handles) {
            return Err(BuildError::Settings(format!("max_handles = {}: want 1 to 4096", settings.max_handles)));
        }
        Ok(settings)
    }
}
