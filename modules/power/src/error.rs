//! What can go wrong when the machine is to go down.

use std::path::PathBuf;

use agent_core::rpc::Fault;

/// Why one way, or every way, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// logind is not there, or refused.
    #[error("logind: {0}")]
    Logind(#[from] zbus::Error),
    /// logind did not answer.
    #[error("logind did not answer in {0:?}")]
    LogindSilent(std::time::Duration),
    /// logind can't do this here.
    #[error("logind: can it? {0:?}")]
    LogindUnable(String),
    /// A program could not be started.
    #[error("{}: {error}", program.display())]
    Start { program: PathBuf, error: std::io::Error },
    /// A program ran and failed.
    #[error("{}: {status}{}{output}", program.display(), if output.is_empty() { "" } else { ", " })]
    Failed { program: PathBuf, status: std::process::ExitStatus, output: String },
    /// A program did not end.
    #[error("{} did not end in {limit:?}", program.display())]
    Hangs { program: PathBuf, limit: std::time::Duration },
    /// Nothing worked.
    #[error("no way to {mode}: {}", listed(ways))]
    NoWay { mode: crate::machine::Mode, ways: Vec<Error> },
}

fn listed(ways: &[Error]) -> String {
    ways.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::unavailable(error.to_string())
    }
}
