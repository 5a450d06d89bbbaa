//! XML-RPC, as its specification of 1999 has it, with the common extensions `i8` and `nil` (`ex:i8` and `ex:nil` are read
//! too). The one encoding that a 2011 peer speaks.
//!
//! Owns the document: `methodCall`, `methodResponse` with a result or a fault. A fault's data has no place here; its message
//! says the same. No document type and no entities but XML's own five are taken.

mod grammar;
mod read;
mod write;

use bytes::Bytes;

use self::read::{Document, Reply};
use self::write::Writer;
use super::tree::{invalid, measure};
use crate::rpc::{Call, Fault, Outcome, Value};

pub(super) fn encode_call(call: &Call) -> Result<Bytes, Fault> {
    let mut out = Writer::for_size(&measure(&call.params)?);
    out.raw("<methodCall><methodName>");
    out.raw(call.method.as_str());
    out.raw("</methodName><params>");
    for value in &call.params {
        out.raw("<param>");
        out.value(value)?;
        out.raw("</param>");
    }
    out.raw("</params></methodCall>");
    Ok(out.into_bytes())
}

pub(super) fn encode_outcome(outcome: &Outcome) -> Result<Bytes, Fault> {
    match outcome {
        Ok(value) => {
            let mut out = Writer::for_size(&measure([value])?);
            out.raw("<methodResponse><params><param>");
            out.value(value)?;
            out.raw("</param></params></methodResponse>");
            Ok(out.into_bytes())
        }
        Err(fault) => {
            let code = Value::Int(fault.code);
            let message = Value::String(write::carryable(&fault.message).into_owned());
            let members = Value::object([("faultCode", code), ("faultString", message)]);
            let mut out = Writer::for_size(&measure([&members])?);
            out.raw("<methodResponse><fault>");
            out.value(&members)?;
            out.raw("</fault></methodResponse>");
            Ok(out.into_bytes())
        }
    }
}

pub(super) fn decode_call(body: &Bytes) -> Result<Call, Fault> {
    match Document::read(body)? {
        Document::Call { method, params } => {
            let method = method.trim().parse().map_err(|error| invalid(format!("{error}")))?;
            Ok(Call { method, params })
        }
        Document::Response(_) => Err(invalid("a methodResponse where a methodCall is due")),
    }
}

pub(super) fn decode_outcome(body: &Bytes) -> Result<Outcome, Fault> {
    match Document::read(body)? {
        Document::Response(Reply::Result(value)) => Ok(Ok(value)),
        Document::Response(Reply::Fault(value)) => fault(value).map(Err),
        Document::Call { .. } => Err(invalid("a methodCall where a methodResponse is due")),
    }
}

fn fault(value: Value) -> Result<Fault, Fault> {
    let Value::Struct(mut members) = value else { return Err(invalid("a fault must be a struct")) };
    let Some(Value::Int(code)) = members.remove("faultCode") else {
        return Err(invalid("a fault needs faultCode, an int"));
    };
    let Some(Value::String(message)) = members.remove("faultString") else {
        return Err(invalid("a fault needs faultString, a string"));
    };
    Ok(Fault { code, message, data: None })
}
