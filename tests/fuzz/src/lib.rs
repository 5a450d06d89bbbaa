//! What the targets of the encodings assert: whatever decodes is encoded again, in every encoding, and decodes to the same.
//! Beside them, what `frame` and `policy` assert.

pub mod frame;
pub mod policy;

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::rpc::{Call, Fault, FaultCode, Outcome, Struct, Tag, Value};
use bytes::Bytes;

/// Feeds one body to both decoders of an encoding.
pub fn body(encoding: Encoding, data: &[u8]) {
    let body = Bytes::copy_from_slice(data);
    match decode_call(encoding, &body) {
        Ok(call) => Encoding::ALL.into_iter().for_each(|to| call_survives(to, &call)),
        Err(fault) => is_documented(&fault),
    }
    match decode_outcome(encoding, &body) {
        Ok(outcome) => Encoding::ALL.into_iter().for_each(|to| outcome_survives(to, &outcome)),
        Err(fault) => is_documented(&fault),
    }
}

fn tag() -> Tag {
    Tag::numbered(0, 0)
}

fn call_survives(encoding: Encoding, call: &Call) {
    let params: Option<Vec<Value>> = call.params.iter().map(|value| carried(encoding, value)).collect();
    match (encode_call(encoding, call, &tag()), params) {
        (Ok(body), Some(params)) => {
            let expected = Call { method: call.method.clone(), params };
            assert_eq!(decode_call(encoding, &body), Ok(expected), "{encoding}");
        }
        (Err(fault), None) => assert!(fault.is(FaultCode::Internal), "{fault}"),
        (came, expected) => panic!("{encoding}: {came:?} where {expected:?} was expected"),
    }
}

fn outcome_survives(encoding: Encoding, outcome: &Outcome) {
    let expected = match outcome {
        Ok(value) => carried(encoding, value).map(Ok),
        Err(fault) if encoding == Encoding::Xml => {
            let message = fault.message.chars().map(|c| if is_xml(c) { c } else { '\u{fffd}' }).collect();
            Some(Err(Fault { code: fault.code, message, data: None }))
        }
        Err(fault) => Some(Err(fault.clone())),
    };
    match (encode_outcome(encoding, outcome, &tag()), expected) {
        (Ok(body), Some(expected)) => assert_eq!(decode_outcome(encoding, &body), Ok(expected), "{encoding}"),
        (Err(fault), None) => assert!(fault.is(FaultCode::Internal), "{fault}"),
        (came, expected) => panic!("{encoding}: {came:?} where {expected:?} was expected"),
    }
}

/// What arrives of a value: XML turns a string that it can't carry into bytes, and refuses such a member's name.
fn carried(encoding: Encoding, value: &Value) -> Option<Value> {
    if encoding != Encoding::Xml {
        return Some(value.clone());
    }
    Some(match value {
        Value::String(text) if !text.chars().all(is_xml) => Value::Bytes(text.clone().into_bytes().into()),
        Value::Array(items) => Value::Array(items.iter().map(|item| carried(encoding, item)).collect::<Option<_>>()?),
        Value::Struct(members) => {
            let member = |(name, member): (&String, &Value)| {
                name.chars().all(is_xml).then_some(())?;
                Some((name.clone(), carried(encoding, member)?))
            };
            Value::Struct(members.iter().map(member).collect::<Option<Struct>>()?)
        }
        other => other.clone(),
    })
}

fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn is_documented(fault: &Fault) {
    let documented = [FaultCode::Parse, FaultCode::InvalidRequest, FaultCode::LimitExceeded];
    assert!(documented.iter().any(|code| fault.is(*code)), "{fault}");
    assert!(
        fault.message.len() < 2048 && !fault.message.contains(char::is_control),
        "not one line: {:?}",
        fault.message
    );
}
