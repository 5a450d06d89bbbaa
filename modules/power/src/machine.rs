//! The ways to bring the machine down: logind, then systemctl, then shutdown. The first that works is the last tried.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::process::Command;

use crate::error::Error;
use crate::logind;
use crate::settings::Settings;

/// How long a program may take to start what it has been told.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How the machine goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Off.
    #[default]
    Powerdown,
    /// Stopped, but not off.
    Halt,
    /// Down and up again.
    Reboot,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Powerdown => "powerdown",
            Self::Halt => "halt",
            Self::Reboot => "reboot",
        })
    }
}

/// This machine.
#[derive(Debug)]
pub(crate) struct Machine {
    settings: Settings,
}

impl Machine {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Whether there is a way at all, so that a call that can't succeed is refused at once.
    pub(crate) async fn check(&self, mode: Mode) -> Result<(), Error> {
        let Err(error) = logind::check(self.settings.bus.as_deref(), mode).await else { return Ok(()) };
        let mut ways = vec![error];
        for program in [&self.settings.systemctl, &self.settings.shutdown] {
            match access(program, AccessFlags::X_OK) {
                Ok(()) => return Ok(()),
                Err(errno) => ways.push(Error::Start { program: program.clone(), error: errno.into() }),
            }
        }
        Err(Error::NoWay { mode, ways })
    }

    /// Brings the machine down. Answers when one way was taken or all have failed.
    pub(crate) async fn bring_down(&self, mode: Mode, message: Option<String>) -> Result<(), Error> {
        let Settings { bus, systemctl, shutdown } = &self.settings;
        tracing::warn!("the machine goes down: {mode}");
        let Err(error) = logind::bring_down(bus.as_deref(), mode, message.as_deref()).await else { return Ok(()) };
        tracing::warn!("{error}: trying {}", systemctl.display());
        let mut ways = vec![error];

        let (verb, option) = match mode {
            Mode::Powerdown => ("poweroff", "-P"),
            Mode::Halt => ("halt", "-H"),
            Mode::Reboot => ("reboot", "-r"),
        };
        let Err(error) = run(systemctl, &["--no-wall", verb]).await else { return Ok(()) };
        tracing::warn!("{error}: trying {}", shutdown.display());
        ways.push(error);

        let message = message.as_deref().unwrap_or("the hypervisor asks for it");
        let Err(error) = run(shutdown, &[option, "now", message]).await else { return Ok(()) };
        ways.push(error);
        Err(Error::NoWay { mode, ways })
    }
}

async fn run(program: &Path, arguments: &[&str]) -> Result<(), Error> {
    let failed = |error| Error::Start { program: program.to_owned(), error };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let ended = tokio::time::timeout(TIMEOUT, command.spawn().map_err(failed)?.wait_with_output()).await;
    let output = match ended {
        Ok(output) => output.map_err(failed)?,
        Err(_) => return Err(Error::Hangs { program: program.to_owned(), limit: TIMEOUT }),
    };
    if output.status.success() {
        return Ok(());
    }
    let says = String::from_utf8_lossy(&output.stderr);
    let says = says.lines().next().unwrap_or_default().chars().take(200).collect();
    Err(Error::Failed { program: program.to_owned(), status: output.status, output: says })
}
