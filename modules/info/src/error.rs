//! What can go wrong when the system is asked about itself.

use agent_core::rpc::Fault;

/// Why something can't be told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The system refused.
    #[error("{what}: {error}")]
    Io { what: &'static str, error: std::io::Error },
    /// What the system says can't be understood.
    #[error("{0}")]
    Malformed(String),
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io { what, error }
    }

    pub(crate) fn errno(what: &'static str) -> impl FnOnce(nix::errno::Errno) -> Self {
        move |errno| Self::Io { what, error: errno.into() }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { what, error } => Self::os(what, &error),
            Error::Malformed(_) => Self::unavailable(error.to_string()),
        }
    }
}
