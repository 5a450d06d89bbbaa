//! What can go wrong, in words that tell the caller what to do.

use agent_core::rpc::{Fault, FaultCode};
use nix::errno::Errno;

/// Why a call of this module fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ExecError {
    #[error("{0}")]
    Params(String),
    #[error("{what}: {errno}")]
    Os { what: String, errno: Errno },
    #[error("{0} of your programs run or were not waited for yet, which is the limit (max_processes in [module.exec])")]
    TooMany(usize),
    #[error("output_limit is {asked}, the most is {most} (max_output in [module.exec])")]
    OutputLimit { asked: usize, most: usize },
    #[error("{came} bytes came at once, exec.stdin takes at most {most} a call: send them in parts")]
    StdinLimit { came: usize, most: usize },
    #[error("no program of yours has the handle {0}: exec.start gives one, exec.wait releases it")]
    NoHandle(i64),
    #[error("the program has ended: exec.wait tells how")]
    Ended,
    #[error("the program's standard input is closed")]
    StdinClosed,
    #[error("process {0} does not end although SIGKILL was sent: it waits in the kernel, or belongs to another user")]
    Stuck(i32),
    #[error("the caller is gone, the program was ended")]
    OwnerGone,
    #[error("the daemon lost sight of the program")]
    Lost,
}

impl ExecError {
    pub(crate) fn os(what: impl Into<String>, errno: Errno) -> Self {
        Self::Os { what: what.into(), errno }
    }

    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self::os(what, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl From<ExecError> for Fault {
    fn from(error: ExecError) -> Self {
        let code = match &error {
            ExecError::Os { what, errno } => return Self::errno(what, *errno),
            ExecError::Params(_) | ExecError::NoHandle(_) => FaultCode::InvalidParams,
            ExecError::TooMany(_) | ExecError::OutputLimit { .. } | ExecError::StdinLimit { .. } => {
                FaultCode::LimitExceeded
            }
            ExecError::Ended | ExecError::StdinClosed | ExecError::Stuck(_) => FaultCode::Unavailable,
            ExecError::OwnerGone => FaultCode::Cancelled,
            ExecError::Lost => FaultCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}
