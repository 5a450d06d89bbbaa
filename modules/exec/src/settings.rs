//! `[module.exec]`.

use agent_core::module::BuildError;
use serde::Deserialize;
use std::time::Duration;

/// The module's table of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// How many programs one caller may have at a time: running, or started and not yet waited for.
    pub max_processes: usize,
    /// The most that `exec.run` keeps of each of a program's two outputs, in bytes. Both must fit one reply: with the
    /// default body limit of 2 MiB and XML-RPC's base64, 750 KiB do.
    pub max_output: usize,
    /// How long a program has between SIGTERM and SIGKILL, in milliseconds; the daemon's own end takes 5 s at most.
    pub kill_grace_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_processes: 32, max_output: 750 << 10, kill_grace_ms: 2000 }
    }
}

impl Settings {
    /// What `exec.run` keeps of each output when the call names no limit.
    const DEFAULT_OUTPUT: usize = 512 << 10;

    pub(crate) fn check(self) -> Result<Self, BuildError> {
        let wrong = |text: String| Err(BuildError::Settings(text));
        match self {
            Self { max_processes: n @ (0 | 65_537..), .. } => {
                wrong(format!("max_processes is {n}, it must be 1 to 65536"))
            }
            Self { max_output: n, .. } if n > 8 << 20 => wrong(format!(
                "max_output is {n}, it must be at most 8388608 (8 MiB): both outputs travel in one reply"
            )),
            Self { kill_grace_ms: n @ 4001.., .. } => {
                wrong(format!("kill_grace_ms is {n}, it must be at most 4000: the daemon stops within 5 s"))
            }
            fine => Ok(fine),
        }
    }

    pub(crate) fn kill_grace(&self) -> Duration {
        Duration::from_millis(self.kill_grace_ms)
    }

    pub(crate) fn default_output(&self) -> usize {
        Self::DEFAULT_OUTPUT.min(self.max_output)
    }
}
