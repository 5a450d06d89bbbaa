//! What the tests of the encodings share: shorthands, and how to make any value.

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::rpc::{Call, DateTime, Fault, FaultCode, Outcome, Struct, Tag, Value};
use bytes::Bytes;
use proptest::prelude::*;

pub fn tag() -> Tag {
    Tag::numbered(0xfeed, 1)
}

pub fn call(method: &str, params: Vec<Value>) -> Call {
    Call { method: method.parse().unwrap(), params }
}

/// A call's parameters, there and back.
pub fn through_call(encoding: Encoding, params: Vec<Value>) -> Result<Vec<Value>, Fault> {
    let body = encode_call(encoding, &call("a.b", params), &tag())?;
    let decoded = decode_call(encoding, &body)?;
    assert_eq!(decoded.method, "a.b");
    Ok(decoded.params)
}

/// An outcome, there and back.
pub fn through_reply(encoding: Encoding, outcome: &Outcome) -> Result<Outcome, Fault> {
    decode_outcome(encoding, &encode_outcome(encoding, outcome, &tag())?)
}

/// Decodes a call that must be refused.
#[track_caller]
pub fn refused(encoding: Encoding, body: impl Into<Vec<u8>>) -> (FaultCode, String) {
    let body = Bytes::from(body.into());
    let fault = decode_call(encoding, &body).expect_err("the body must be refused");
    (fault.kind().expect("a code of ours"), fault.message)
}

/// Decodes a call's only parameter.
#[track_caller]
pub fn param(encoding: Encoding, body: impl Into<Vec<u8>>) -> Value {
    let mut params = decode_call(encoding, &Bytes::from(body.into())).unwrap().params;
    assert_eq!(params.len(), 1, "{params:?}");
    params.remove(0)
}

/// Whether XML 1.0 has the character.
pub fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// What comes back from XML: a string that XML can't carry comes back as bytes, and a member of such a name can't be sent.
pub fn as_xml_carries(value: &Value) -> Option<Value> {
    Some(match value {
        Value::String(text) if !text.chars().all(is_xml) => Value::Bytes(text.clone().into_bytes().into()),
        Value::Array(items) => Value::Array(items.iter().map(as_xml_carries).collect::<Option<_>>()?),
        Value::Struct(members) => {
            let member = |(name, member): (&String, &Value)| {
                name.chars().all(is_xml).then_some(())?;
                Some((name.clone(), as_xml_carries(member)?))
            };
            Value::Struct(members.iter().map(member).collect::<Option<Struct>>()?)
        }
        other => other.clone(),
    })
}

/// Text with everything that is hard somewhere: markup, quotes, line ends, control characters, all planes.
pub fn text() -> impl Strategy<Value = String> {
    let hard = prop::sample::select(vec![
        '<',
        '>',
        '&',
        '"',
        '\'',
        '\\',
        '/',
        '$',
        ']',
        '\r',
        '\n',
        '\t',
        ' ',
        '\0',
        '\u{1}',
        '\u{1b}',
        '\u{7f}',
        '\u{85}',
        '\u{2028}',
        '\u{feff}',
        '\u{fffe}',
        '\u{ffff}',
        '\u{10ffff}',
        'é',
    ]);
    let any = prop_oneof![4 => prop::char::range(' ', '~'), 3 => hard, 1 => any::<char>()];
    prop::collection::vec(any, 0..20).prop_map(String::from_iter)
}

/// A moment that every implementation has: no year 0, no leap second.
pub fn moment() -> impl Strategy<Value = DateTime> {
    (1u16..=9999, 1u8..=12, 1u8..=28, 0u8..24, 0u8..60, 0u8..60).prop_map(|(year, month, day, hour, minute, second)| {
        DateTime::new(year, month, day, hour, minute, second).unwrap()
    })
}

pub fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::num::f64::ANY.prop_filter("finite", |number| number.is_finite()),
        prop::sample::select(vec![0.0, -0.0, 1.0, 1e15, 1e16, 1e22, f64::MAX, f64::MIN_POSITIVE, 5e-324, 9.007e15]),
    ]
}

/// A struct whose only member begins with `$`, as the JSON mapping must escape it.
fn dollars() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["$", "$$", "$base64", "$dateTime", "$$base64", "$x", "$base64 "]);
    let content = prop::sample::select(vec![Value::Nil, "AAAA".into(), "20000101T00:00:00".into(), Value::Int(1)]);
    (name, content).prop_map(|(name, content)| Value::object([(name, content)]))
}

/// Any value with leaves from `leaf` and names from `name`.
pub fn tree(
    leaf: impl Strategy<Value = Value> + 'static,
    name: impl Strategy<Value = String> + Clone + 'static,
) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(Value::Struct),
        ]
    })
}

/// Any value at all.
pub fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i32>().prop_map(|number| Value::Int(number.into())),
        finite().prop_map(Value::Double),
        text().prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
        moment().prop_map(Value::DateTime),
        dollars(),
    ];
    tree(leaf, text().boxed())
}
