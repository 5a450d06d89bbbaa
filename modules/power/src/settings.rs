//! `[module.power]`: where the machine's power switch is.

use std::path::PathBuf;

use serde::Deserialize;

/// The module's table of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// The D-Bus address of the bus that logind is on; the system bus if unset.
    pub(crate) bus: Option<String>,
    /// systemctl(1), where logind does not answer.
    pub(crate) systemctl: PathBuf,
    /// shutdown(8), where systemctl fails.
    pub(crate) shutdown: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { bus: None, systemctl: "/usr/bin/systemctl".into(), shutdown: "/sbin/shutdown".into() }
    }
}
