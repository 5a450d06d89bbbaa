//! Why a command ends without success, its one line on standard error, and its exit code.
//!
//! Owns the wording of every failure. Must never write anything itself.

use std::fmt;
use std::path::Path;

use agent_core::rpc::{Fault, FaultCode, Value};
use serde_json::{Value as Json, json};

use crate::output::{clean, escape_controls};

/// What most functions here return.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command ends without success.
#[derive(Debug)]
pub enum Failure {
    /// The guest refused or failed: what was tried, and its fault.
    Fault { what: String, fault: Box<Fault> },
    /// Something of the guest's is not as it must be (a digest, a missing member).
    Guest(String),
    /// Wrong usage, or a local file.
    Usage(String),
    /// No VM, nobody listens, no answer, or the link broke.
    NoConnection(String),
    /// The time of `--timeout` passed.
    TimedOut(String),
    /// Ctrl-C or SIGTERM, with what the user should know.
    Interrupted(String),
    /// Whoever read our standard output went away: nothing to say.
    BrokenPipe,
    /// A program in the guest could not be started: the shell's code for that.
    NotStarted { code: u8, message: String },
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub fn guest(message: impl Into<String>) -> Self {
        Self::Guest(message.into())
    }

    pub fn fault(what: impl Into<String>, fault: Fault) -> Self {
        Self::Fault { what: what.into(), fault: Box::new(fault) }
    }

    /// A local file that can't be used.
    pub fn local(verb: &str, path: &Path, error: &std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::BrokenPipe;
        }
        let mut message = format!("can't {verb} {}: {}", path.display(), reason(error));
        match error.kind() {
            std::io::ErrorKind::StorageFull => message += "; free some space and run the same command again",
            std::io::ErrorKind::PermissionDenied => message += "; choose a place that you may use",
            _ => {}
        }
        Self::Usage(message)
    }

    /// Standard output can't be written.
    pub fn stdout(error: std::io::Error) -> Self {
        Self::local("write", Path::new("standard output"), &error)
    }

    /// Whether this is a fault of that code.
    pub fn is(&self, code: FaultCode) -> bool {
        matches!(self, Self::Fault { fault, .. } if fault.is(code))
    }

    /// The errno that the guest reported, if that is what failed.
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        match self {
            Self::Fault { fault, .. } => guest_errno(fault),
            _ => None,
        }
    }

    /// The exit code, as `--help` documents it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Fault { fault, .. } if fault.is(FaultCode::TimedOut) => 124,
            Self::Fault { .. } | Self::Guest(_) => 1,
            Self::Usage(_) => 2,
            Self::NoConnection(_) => 3,
            Self::TimedOut(_) => 124,
            Self::Interrupted(_) => 130,
            Self::BrokenPipe => 141,
            Self::NotStarted { code, .. } => *code,
        }
    }

    /// The failure as JSON for `--json`.
    pub fn to_json(&self) -> Json {
        let mut error = json!({ "message": self.to_string(), "exit_code": self.exit_code() });
        if let Self::Fault { what, fault } = self {
            error["what"] = json!(what);
            error["code"] = json!(fault.code);
            error["fault"] = json!(fault.message);
            if let Some(kind) = fault.kind() {
                error["name"] = json!(kind.name());
            }
            if let Some(data) = &fault.data {
                error["data"] = crate::json::from_value(data);
            }
        }
        json!({ "error": error })
    }
}

/// An I/O error without Rust's `(os error N)`.
pub fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}

fn guest_errno(fault: &Fault) -> Option<nix::errno::Errno> {
    let number = fault.data.as_deref()?.get("errno")?.as_int()?;
    Some(nix::errno::Errno::from_raw(i32::try_from(number).ok()?))
}

/// What the user can do about a fault, where the guest's own sentence can't know it.
fn hint(fault: &Fault) -> Option<&'static str> {
    Some(match fault.kind()? {
        FaultCode::NoSession => "`virtagent users` lists who is connected; a user daemon runs from login to logout",
        FaultCode::NoSuchUser => "`virtagent users` lists who is connected",
        FaultCode::MethodNotFound => "`virtagent methods` lists what this guest offers",
        FaultCode::InvalidParams => "`virtagent methods METHOD` explains the parameters",
        FaultCode::Denied => "the guest's owner decides this in /etc/virtagent/virtagentd.toml inside the guest",
        FaultCode::Busy => "try again in a moment",
        FaultCode::TimedOut => "give it more with --timeout",
        _ => return None,
    })
}

/// The rule that refused, when the fault's data names one that its message does not.
fn rule(fault: &Fault) -> Option<String> {
    let rule = match fault.data.as_deref()?.get("rule")? {
        Value::String(text) => text.clone(),
        Value::Int(number) => format!("rule {number}"),
        members @ Value::Struct(_) => {
            let file = members.get("file").and_then(Value::as_str);
            let line = members.get("line").and_then(Value::as_int);
            match (file, line) {
                (Some(file), Some(line)) => format!("{file}:{line}"),
                (Some(file), None) => file.to_owned(),
                _ => return None,
            }
        }
        _ => return None,
    };
    (!fault.message.contains(&rule)).then_some(rule)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault { what, fault } => {
                let mut line = String::new();
                // The guest's sentence often begins with what we would say.
                if !what.is_empty() && !fault.message.starts_with(what.as_str()) {
                    line += what;
                    line += ": ";
                }
                line += &fault.message;
                if let Some(rule) = rule(fault) {
                    line += &format!(" ({rule})");
                }
                match fault.kind() {
                    Some(FaultCode::Os) => {}
                    Some(kind) if fault.message.contains(kind.name()) => line += &format!(" [{}]", fault.code),
                    Some(kind) => line += &format!(" [{}, {}]", kind.name(), fault.code),
                    None => line += &format!(" [fault {}]", fault.code),
                }
                // A refusal that names its file needs no other.
                let told = fault.is(FaultCode::Denied) && line.contains(".toml");
                if let Some(hint) = hint(fault).filter(|hint| !told && !fault.message.contains(hint)) {
                    line += "; ";
                    line += hint;
                }
                f.write_str(&clean(&line))
            }
            Self::Guest(message)
            | Self::Usage(message)
            | Self::NoConnection(message)
            | Self::TimedOut(message)
            | Self::Interrupted(message)
            | Self::NotStarted { message, .. } => f.write_str(&escape_controls(message)),
            Self::BrokenPipe => f.write_str("standard output was closed"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_rule_that_only_its_data_knows() {
        let data = Value::object([("rule", Value::object([("file", "/etc/v.toml".into()), ("line", Value::Int(7))]))]);
        let fault = Fault::new(FaultCode::Denied, "policy refuses exec.run at system level").with_data(data);
        let line = Failure::fault("exec.run", fault).to_string();
        assert!(
            line.starts_with("exec.run: policy refuses exec.run at system level (/etc/v.toml:7) [denied, -32003]"),
            "{line}"
        );
        assert!(!line.contains("virtagentd.toml"), "{line}");
    }

    #[test]
    fn a_missing_session_says_how_to_see_who_is_connected() {
        let failure = Failure::fault("va.ping as bob", Fault::new(FaultCode::NoSession, "bob has no session"));
        assert!(failure.to_string().contains("`virtagent users`"), "{failure}");
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn an_error_stays_one_line_and_cannot_move_the_terminals_cursor() {
        let fault = Fault::new(FaultCode::Internal, "first\nsecond \x1b[2J");
        let line = Failure::fault("x", fault).to_string();
        assert!(!line.contains('\n') && !line.contains('\x1b'), "{line:?}");
    }

    #[test]
    fn an_errno_of_the_guest_is_found() {
        let failure = Failure::fault("x", Fault::errno("open /x", nix::errno::Errno::ENOENT));
        assert_eq!(failure.errno(), Some(nix::errno::Errno::ENOENT));
        assert_eq!(failure.to_string(), "x: open /x: No such file or directory (ENOENT, errno 2)");
    }
}
