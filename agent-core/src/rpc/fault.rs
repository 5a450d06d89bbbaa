//! Faults: a small stable set of codes, and a message that tells the user what to do.

use std::fmt;

use super::Value;

/// The codes of docs/protocol.md. Numbers never change their meaning.
///
/// The first five are JSON-RPC 2.0's and the XML-RPC fault code interoperability specification's own; the rest lie in
/// the range that both leave to the implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultCode {
    /// The body is not well-formed.
    Parse = -32700,
    /// The body is well-formed, but no call.
    InvalidRequest = -32600,
    /// No such method at this level.
    MethodNotFound = -32601,
    /// The parameters do not fit the method.
    InvalidParams = -32602,
    /// A defect here.
    Internal = -32603,
    /// The named user does not exist in this guest.
    NoSuchUser = -32001,
    /// The user exists, but has no user daemon connected.
    NoSession = -32002,
    /// Policy refused the call.
    Denied = -32003,
    /// The module has as much to do as it takes; try again later.
    Busy = -32004,
    /// The call's deadline passed; its work was cancelled.
    TimedOut = -32005,
    /// The caller cancelled the call, or went away.
    Cancelled = -32006,
    /// The session that was to answer closed first.
    SessionClosed = -32007,
    /// A limit of the configuration was exceeded.
    LimitExceeded = -32008,
    /// What the method needs is not there (now).
    Unavailable = -32009,
    /// The operating system refused; the fault's data carries `errno` and `name`.
    Os = -32010,
}

impl FaultCode {
    /// Every code, in the order of docs/protocol.md.
    pub const ALL: [Self; 15] = [
        Self::Parse,
        Self::InvalidRequest,
        Self::MethodNotFound,
        Self::InvalidParams,
        Self::Internal,
        Self::NoSuchUser,
        Self::NoSession,
        Self::Denied,
        Self::Busy,
        Self::TimedOut,
        Self::Cancelled,
        Self::SessionClosed,
        Self::LimitExceeded,
        Self::Unavailable,
        Self::Os,
    ];

    /// The number on the wire.
    pub const fn number(self) -> i64 {
        self as i64
    }

    /// The code with that number, if it is one of ours.
    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The short name that documentation and the audit log use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse error",
            Self::InvalidRequest => "invalid request",
            Self::MethodNotFound => "method not found",
            Self::InvalidParams => "invalid params",
            Self::Internal => "internal error",
            Self::NoSuchUser => "no such user",
            Self::NoSession => "no session",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
            Self::SessionClosed => "session closed",
            Self::LimitExceeded => "limit exceeded",
            Self::Unavailable => "unavailable",
            Self::Os => "OS error",
        }
    }
}

/// A call's error: a code, a sentence, and for some codes data.
///
/// The code is a number because a peer may send one that we do not know; [`Fault::kind`] names ours. XML-RPC's fault
/// struct has no room for data, so it travels in JSON and CBOR only and the message always says it too.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The number on the wire.
    pub code: i64,
    /// What failed, where, and what to do: one sentence without a full stop.
    pub message: String,
    /// What a program wants to know (`errno`, `rule`), as a struct. Boxed to keep `Result`s small.
    pub data: Option<Box<Value>>,
}

impl Fault {
    /// A fault of one of our codes. Whatever of a peer's text the message quotes, it stays one line of bounded length.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code: code.number(), message: one_line(message.into()), data: None }
    }

    /// The same fault with data for programs.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = Some(Box::new(data));
        self
    }

    /// Which of our codes this is, if any.
    pub fn kind(&self) -> Option<FaultCode> {
        FaultCode::from_number(self.code)
    }

    /// Whether this is a fault of that code.
    pub fn is(&self, code: FaultCode) -> bool {
        self.code == code.number()
    }

    /// [`FaultCode::InvalidParams`].
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(FaultCode::InvalidParams, message)
    }

    /// [`FaultCode::MethodNotFound`].
    pub fn method_not_found(message: impl Into<String>) -> Self {
        Self::new(FaultCode::MethodNotFound, message)
    }

    /// [`FaultCode::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FaultCode::Internal, message)
    }

    /// [`FaultCode::LimitExceeded`].
    pub fn limit(message: impl Into<String>) -> Self {
        Self::new(FaultCode::LimitExceeded, message)
    }

    /// [`FaultCode::Unavailable`].
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(FaultCode::Unavailable, message)
    }

    /// [`FaultCode::Os`] from an errno: `open /etc/shadow: Permission denied (EACCES, errno 13)`.
    pub fn errno(what: impl fmt::Display, errno: nix::errno::Errno) -> Self {
        let number = errno as i32;
        let name = format!("{errno:?}");
        Self::new(FaultCode::Os, format!("{what}: {} ({name}, errno {number})", errno.desc()))
            .with_data(Value::object([("errno", Value::Int(number.into())), ("name", name.into())]))
    }

    /// [`FaultCode::Os`] from an I/O error; one without an errno becomes [`FaultCode::Unavailable`].
    pub fn os(what: impl fmt::Display, error: &std::io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Self::errno(what, nix::errno::Errno::from_raw(number)),
            None => Self::unavailable(format!("{what}: {error}")),
        }
    }
}

/// The longest message of ours, in bytes.
const MESSAGE_MAX: usize = 1024;

fn one_line(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        message.push('…');
    }
    match message.chars().any(char::is_control) {
        false => message,
        true => message.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect(),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(code) => write!(f, "{} ({}, {})", self.message, code.name(), self.code),
            None => write!(f, "{} ({})", self.message, self.code),
        }
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_quotes_a_peer_stays_one_short_line() {
        let fault = Fault::invalid_params(format!("no such name: {}\n\u{1b}[2J", "ü".repeat(1 << 20)));
        assert!(fault.message.len() <= MESSAGE_MAX + 3 && fault.message.ends_with("ü…"));
        assert_eq!(Fault::internal("a\nb\u{0}").message, "a\u{fffd}b\u{fffd}");
        assert_eq!(Fault::internal("ß").message, "ß");
    }
}
