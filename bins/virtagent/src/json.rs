//! Between the wire's values and JSON for people and programs: bytes are `{"$base64": ".."}`, dates `{"$dateTime": ".."}`.
//!
//! Owns no I/O.

use agent_core::rpc::{MAX_DEPTH, Struct, Value};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

/// The only member of an object that stands for bytes.
const BASE64: &str = "$base64";
/// The only member of an object that stands for a date.
const DATE_TIME: &str = "$dateTime";

/// A result as JSON.
pub fn from_value(value: &Value) -> Json {
    let tagged = |name: &str, text: String| Json::Object(Map::from_iter([(name.to_owned(), Json::String(text))]));
    match value {
        Value::Nil => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        Value::Double(number) => Json::from(*number),
        Value::String(text) => Json::String(text.clone()),
        Value::Bytes(bytes) => tagged(BASE64, STANDARD.encode(bytes)),
        Value::DateTime(moment) => tagged(DATE_TIME, moment.to_string()),
        Value::Array(items) => Json::Array(items.iter().map(from_value).collect()),
        Value::Struct(members) => {
            Json::Object(members.iter().map(|(name, member)| (name.clone(), from_value(member))).collect())
        }
    }
}

/// JSON as a parameter; says what can't be one.
pub fn to_value(json: Json) -> Result<Value, String> {
    convert(json, 0)
}

fn convert(json: Json, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(format!("nested deeper than {MAX_DEPTH}"));
    }
    Ok(match json {
        Json::Null => Value::Nil,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Int(integer),
            (None, _) if number.is_u64() => return Err(format!("{number} does not fit 64 bits with a sign")),
            (None, Some(double)) if double.is_finite() => Value::Double(double),
            _ => return Err(format!("{number} is not a finite number")),
        },
        Json::String(text) => Value::String(text),
        Json::Array(items) => {
            Value::Array(items.into_iter().map(|item| convert(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Json::Object(members) => match tagged(&members)? {
            Some(value) => value,
            None => {
                let convert = |(name, member)| Ok((name, convert(member, depth + 1)?));
                Value::Struct(members.into_iter().map(convert).collect::<Result<Struct, String>>()?)
            }
        },
    })
}

fn tagged(members: &Map<String, Json>) -> Result<Option<Value>, String> {
    if members.len() != 1 {
        return Ok(None);
    }
    if let Some(Json::String(text)) = members.get(BASE64) {
        let bytes = STANDARD.decode(text).map_err(|error| format!("{BASE64}: {error}"))?;
        return Ok(Some(Value::Bytes(bytes.into())));
    }
    if let Some(Json::String(text)) = members.get(DATE_TIME) {
        return text.parse().map(|moment| Some(Value::DateTime(moment))).map_err(|error| format!("{error}"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_dates_come_back_as_they_went() {
        let value = Value::Array(vec![
            Value::Bytes(vec![0, 255, 7].into()),
            Value::DateTime("20260102T03:04:05".parse().unwrap()),
            Value::object([("a", Value::Double(0.5)), ("b", Value::Int(i64::MIN)), ("c", Value::Nil)]),
        ]);
        assert_eq!(to_value(from_value(&value)), Ok(value));
    }

    #[test]
    fn a_number_that_no_integer_holds_is_refused_with_its_value() {
        assert!(to_value(Json::from(u64::MAX)).unwrap_err().contains("18446744073709551615"));
    }
}
