//! Bytes to vocabulary and back: XML-RPC, JSON-RPC 2.0 and CBOR behind one [`Value`](crate::rpc::Value).
//!
//! Owns the three encodings and their limits of depth and size. Must never do I/O, recurse deeper than
//! [`crate::rpc::MAX_DEPTH`], or allocate by a length that the input only claims.

use std::fmt;

use bytes::Bytes;

use crate::rpc::{Call, Fault, Outcome, Tag};

/// How a body is written, named by its frame's `Content-Type`. A reply has its call's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// XML-RPC: `text/xml`. The only one that a 2011 peer speaks.
    Xml,
    /// JSON-RPC 2.0: `application/json`.
    Json,
    /// CBOR: `application/cbor`. Bytes stay bytes.
    Cbor,
}

impl Encoding {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Xml, Self::Json, Self::Cbor];

    /// The `Content-Type` without parameters.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Xml => "text/xml",
            Self::Json => "application/json",
            Self::Cbor => "application/cbor",
        }
    }

    /// The encoding of a `Content-Type`; parameters such as `; charset=utf-8` are passed over.
    pub fn from_content_type(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|encoding| essence.eq_ignore_ascii_case(encoding.content_type()))
    }

    /// Whether bodies are UTF-8 text, in which the sentinel `0xFF` can't occur.
    pub const fn is_text(self) -> bool {
        !matches!(self, Self::Cbor)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xml => "xml",
            Self::Json => "json",
            Self::Cbor => "cbor",
        })
    }
}

/// The body of a call. The tag is JSON-RPC's `id`.
///
/// # Errors
/// [`crate::rpc::FaultCode::Internal`] for a value that no encoding carries (a double that is not finite, nesting that
/// is too deep).
pub fn encode_call(_encoding: Encoding, _call: &Call, _tag: &Tag) -> Result<Bytes, Fault> {
    Err(Fault::internal("to come"))
}

/// A call from its body.
///
/// # Errors
/// The fault to answer: [`crate::rpc::FaultCode::Parse`], [`crate::rpc::FaultCode::InvalidRequest`] or
/// [`crate::rpc::FaultCode::LimitExceeded`].
pub fn decode_call(_encoding: Encoding, _body: &Bytes) -> Result<Call, Fault> {
    Err(Fault::internal("to come"))
}

/// The body of a reply.
///
/// # Errors
/// [`crate::rpc::FaultCode::Internal`] for a result that no encoding carries; encode that fault instead.
pub fn encode_outcome(_encoding: Encoding, _outcome: &Outcome, _tag: &Tag) -> Result<Bytes, Fault> {
    Err(Fault::internal("to come"))
}

/// An outcome from a reply's body.
///
/// # Errors
/// [`crate::rpc::FaultCode::Parse`] or [`crate::rpc::FaultCode::InvalidRequest`]: the peer's reply is no reply.
pub fn decode_outcome(_encoding: Encoding, _body: &Bytes) -> Result<Outcome, Fault> {
    Err(Fault::internal("to come"))
}
