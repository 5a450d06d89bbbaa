//! Why the log can't be opened, written or read. Owns only words.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;

use crate::rpc::{Fault, FaultCode};

/// Why a record was not written, or the log can't be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A setting does not fit.
    #[error("{0}")]
    Settings(String),
    /// The system refused to open, read or lock.
    #[error("audit log {}: {doing}: {} ({errno:?})", file.display(), errno.desc())]
    File {
        /// The file.
        file: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        errno: Errno,
    },
    /// Something is there that must not be written to.
    #[error("audit log {}: {reason}", file.display())]
    Unsafe {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Another daemon writes this log.
    #[error("audit log {}: another daemon writes it (it holds {}.lock); stop that one or set another audit.file", file.display(), file.display())]
    Locked {
        /// The log.
        file: PathBuf,
    },
    /// A record could not be written; its call must not run.
    #[error("audit log {}: write: {} ({errno:?})", file.display(), errno.desc())]
    Write {
        /// The log.
        file: Arc<Path>,
        /// The system's reason.
        errno: Errno,
    },
    /// The journal is the only log, and took no record.
    #[error("the journal takes no audit record (socket {}: {})", socket.display(), errno.desc())]
    Journal {
        /// The journal's socket.
        socket: Arc<Path>,
        /// The system's reason.
        errno: Errno,
    },
    /// The log was closed: the daemon stops.
    #[error("the audit log is closed: the daemon stops")]
    Stopped,
}

impl AuditError {
    pub(super) fn file(file: &Path, doing: &'static str, error: &std::io::Error) -> Self {
        Self::File { file: file.to_owned(), doing, errno: errno_of(error) }
    }
}

/// The errno of an I/O error; `EIO` for one that the system did not make.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

impl From<AuditError> for Fault {
    /// The fault that a call gets when its record can't be written.
    fn from(error: AuditError) -> Self {
        Self::new(FaultCode::Unavailable, format!("refused, because the call can't be recorded: {error}"))
    }
}
