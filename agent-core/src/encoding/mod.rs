//! Bytes to vocabulary and back: XML-RPC, JSON-RPC 2.0 and CBOR behind one [`Value`](crate::rpc::Value).
//!
//! Owns the three encodings and their limits of depth and size. Must never do I/O, recurse deeper than
//! [`crate::rpc::MAX_DEPTH`], or allocate by a length that the input only claims.
//!
//! | value | XML-RPC | JSON | CBOR |
//! |---|---|---|---|
//! | nil | `<nil/>` | `null` | `null` |
//! | boolean | `<boolean>` | `true`, `false` | `true`, `false` |
//! | int | `<int>` in 32 bits, else `<i8>` | a number without `.` and exponent | integer |
//! | double, finite | `<double>` without exponent | a number with `.` or exponent | float |
//! | string | `<string>`; `<base64>` of its UTF-8 when XML can't carry it | string | text |
//! | bytes | `<base64>` | `{"$base64": "..."}` | byte string |
//! | date and time | `<dateTime.iso8601>` | `{"$dateTime": "YYYYMMDDTHH:MM:SS"}` | tag 1447117908 on that text |
//! | array | `<array>` | array | array |
//! | struct | `<struct>` | object; a sole name that begins with `$` gets one more | map with text keys |
//!
//! In all three a member that comes twice is refused, and so is anything after the document.

mod base64;
mod cbor;
mod json;
mod tree;
mod xml;

use std::fmt;

use bytes::Bytes;

use crate::rpc::{Call, Fault, Outcome, Struct, Tag, Value};

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
/// is too deep) or that this one doesn't (in XML a member's name with control characters);
/// [`crate::rpc::FaultCode::LimitExceeded`] for more than [`crate::rpc::MAX_VALUES`] values.
pub fn encode_call(encoding: Encoding, call: &Call, tag: &Tag) -> Result<Bytes, Fault> {
    match encoding {
        Encoding::Xml => xml::encode_call(call),
        Encoding::Json => json::encode_call(call, tag),
        Encoding::Cbor => cbor::encode_call(call),
    }
}

/// A call from its body.
///
/// # Errors
/// The fault to answer: [`crate::rpc::FaultCode::Parse`], [`crate::rpc::FaultCode::InvalidRequest`] or
/// [`crate::rpc::FaultCode::LimitExceeded`].
pub fn decode_call(encoding: Encoding, body: &Bytes) -> Result<Call, Fault> {
    decode_call_and_id(encoding, body).map(|(call, _)| call)
}

/// The same with JSON-RPC's `id`, which the reply repeats. The other encodings have none, and a call may lack it.
///
/// # Errors
/// As [`decode_call`].
pub fn decode_call_and_id(encoding: Encoding, body: &Bytes) -> Result<(Call, Option<Value>), Fault> {
    match encoding {
        Encoding::Xml => Ok((xml::decode_call(body)?, None)),
        Encoding::Json => json::decode_call(body),
        Encoding::Cbor => Ok((cbor::decode_call(body)?, None)),
    }
}

/// The body of a reply.
///
/// # Errors
/// What [`encode_call`] answers for a value; encode that fault instead.
pub fn encode_outcome(encoding: Encoding, outcome: &Outcome, tag: &Tag) -> Result<Bytes, Fault> {
    encode_reply(encoding, outcome, tag, None)
}

/// The same for a call that came with a JSON-RPC `id`.
///
/// # Errors
/// As [`encode_outcome`].
pub fn encode_reply(encoding: Encoding, outcome: &Outcome, tag: &Tag, id: Option<&Value>) -> Result<Bytes, Fault> {
    match encoding {
        Encoding::Xml => xml::encode_outcome(outcome),
        Encoding::Json => json::encode_outcome(outcome, tag, id),
        Encoding::Cbor => cbor::encode_outcome(outcome),
    }
}

/// An outcome from a reply's body.
///
/// # Errors
/// [`crate::rpc::FaultCode::Parse`], [`crate::rpc::FaultCode::InvalidRequest`] or
/// [`crate::rpc::FaultCode::LimitExceeded`]: the peer's reply is no reply.
pub fn decode_outcome(encoding: Encoding, body: &Bytes) -> Result<Outcome, Fault> {
    match encoding {
        Encoding::Xml => xml::decode_outcome(body),
        Encoding::Json => json::decode_outcome(body),
        Encoding::Cbor => cbor::decode_outcome(body),
    }
}

/// A value as JSON on one line, in the mapping of the JSON encoding (`{"$base64": "..."}` for bytes).
///
/// # Errors
/// As [`encode_call`].
pub fn to_json(value: &Value) -> Result<String, Fault> {
    json::encode_value(value)
}

/// A value from JSON, in the mapping of the JSON encoding.
///
/// # Errors
/// As [`decode_call`].
pub fn from_json(text: &str) -> Result<Value, Fault> {
    json::decode_value(text)
}

/// A fault from the members `code`, `message` and `data` that JSON's and CBOR's replies give it.
fn fault_of(mut members: Struct) -> Result<Fault, Fault> {
    let code = members.get("code").and_then(Value::as_int);
    let code = code.ok_or_else(|| tree::invalid("a fault needs \"code\", an integer"))?;
    let Some(Value::String(message)) = members.remove("message") else {
        return Err(tree::invalid("a fault needs \"message\", a string"));
    };
    Ok(Fault { code, message, data: members.remove("data").map(Box::new) })
}
