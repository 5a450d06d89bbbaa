//! What can go wrong with a file, and the fault that tells it.

use std::fmt::Display;
use std::io;

use agent_core::rpc::{Fault, FaultCode};
use nix::errno::Errno;

/// A file operation's failure, each with the sentence that its caller reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// The system refused.
    #[error("{what}: {}", errno.desc())]
    Os { what: String, errno: Errno },
    /// The system refused without an errno.
    #[error("{what}: {error}")]
    Io { what: String, error: io::Error },
    /// The caller's parameters do not fit.
    #[error("{0}")]
    Invalid(String),
    /// More than the configuration allows.
    #[error("{0}")]
    Limit(String),
    /// What would be touched is not what policy judged.
    #[error("{0}")]
    Denied(String),
    /// The bytes are not those that the caller meant.
    #[error("{0}")]
    Mismatch(String),
    /// The caller gave up.
    #[error("cancelled by its caller")]
    Cancelled,
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the system: `what` is the verb and its object, `open /etc/shadow`.
    pub(crate) fn os(what: impl Display, errno: Errno) -> Self {
        Self::Os { what: what.to_string(), errno }
    }

    /// The same from the standard library.
    pub(crate) fn io(what: impl Display, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::os(what, Errno::from_raw(number)),
            None => Self::Io { what: what.to_string(), error },
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Os { what, errno } => return Fault::errno(what, *errno),
            Error::Io { what, error } => return Fault::os(what, error),
            Error::Invalid(_) | Error::Mismatch(_) => FaultCode::InvalidParams,
            Error::Limit(_) => FaultCode::LimitExceeded,
            Error::Denied(_) => FaultCode::Denied,
            Error::Cancelled => FaultCode::Cancelled,
        };
        Fault::new(code, error.to_string())
    }
}
