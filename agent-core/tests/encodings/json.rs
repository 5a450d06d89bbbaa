//! JSON-RPC 2.0 to the letter, and the mapping of values.

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome, from_json, to_json};
use agent_core::rpc::{DateTime, Fault, FaultCode, Value};
use bytes::Bytes;

use crate::support::{call, refused, tag};

#[track_caller]
fn parse(json: &str) -> FaultCode {
    from_json(json).expect_err(json).kind().unwrap()
}

#[test]
fn a_call_and_its_reply_are_json_rpc() {
    let body = encode_call(Encoding::Json, &call("va.ping", vec![Value::Int(1), "x".into()]), &tag()).unwrap();
    assert_eq!(body, r#"{"jsonrpc":"2.0","id":"0000feed00000001","method":"va.ping","params":[1,"x"]}"#);
    let body = encode_outcome(Encoding::Json, &Ok(Value::Nil), &tag()).unwrap();
    assert_eq!(body, r#"{"jsonrpc":"2.0","id":"0000feed00000001","result":null}"#);
    let fault = Fault::new(FaultCode::Os, "no \"such\" file").with_data(Value::object([("errno", Value::Int(2))]));
    let body = encode_outcome(Encoding::Json, &Err(fault), &tag()).unwrap();
    assert_eq!(
        body,
        r#"{"jsonrpc":"2.0","id":"0000feed00000001","error":{"code":-32010,"message":"no \"such\" file","data":{"errno":2}}}"#
    );
    // And serde_json reads all of it.
    serde_json::from_slice::<serde_json::Value>(&body).unwrap();
}

#[test]
fn parameters_by_name_are_one_struct() {
    let body = br#" { "method" : "file.open" , "params" : { "path" : "/a" , "mode" : "read" } , "id" : 7 , "jsonrpc" : "2.0" } "#;
    let named = Value::object([("path", "/a".into()), ("mode", "read".into())]);
    assert_eq!(decode_call(Encoding::Json, &Bytes::from_static(body)).unwrap(), call("file.open", vec![named]));
}

#[test]
fn ids_are_strings_numbers_null_or_absent() {
    for id in ["", r#","id":"x""#, r#","id":1"#, r#","id":-1.5"#, r#","id":null"#] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"a"{id}}}"#);
        assert_eq!(decode_call(Encoding::Json, &Bytes::from(body)), Ok(call("a", vec![])));
    }
    for id in ["{}", "[]", "true"] {
        let body = format!(r#"{{"jsonrpc":"2.0","method":"a","id":{id}}}"#);
        assert_eq!(refused(Encoding::Json, body).0, FaultCode::InvalidRequest);
    }
}

#[test]
fn batches_are_refused_with_advice() {
    let (code, message) = refused(Encoding::Json, r#" [{"jsonrpc":"2.0","method":"a","id":1}]"#);
    assert_eq!(code, FaultCode::InvalidRequest);
    assert!(message.contains("system.multicall"), "{message}");
}

#[test]
fn what_is_no_json_rpc_is_no_request() {
    for body in [
        "1",
        "\"x\"",
        "null",
        "{}",
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"method":"a"}"#,
        r#"{"jsonrpc":"1.0","method":"a"}"#,
        r#"{"jsonrpc":2.0,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","method":1}"#,
        r#"{"jsonrpc":"2.0","method":"a","params":1}"#,
        r#"{"jsonrpc":"2.0","method":"a","params":null}"#,
        r#"{"jsonrpc":"2.0","method":"a","params":{"$base64":"AAAA"}}"#,
    ] {
        assert_eq!(refused(Encoding::Json, body).0, FaultCode::InvalidRequest, "{body}");
    }
    for body in [
        r#"{"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","result":1,"error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","error":1}"#,
        r#"{"jsonrpc":"2.0","error":{"code":"1","message":"x"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1.5,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1,"message":2}}"#,
    ] {
        assert!(
            decode_outcome(Encoding::Json, &Bytes::from(body)).unwrap_err().is(FaultCode::InvalidRequest),
            "{body}"
        );
    }
}

#[test]
fn what_is_not_well_formed_is_a_parse_error() {
    for json in [
        "",
        " ",
        "{",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "{'a':1}",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "--1",
        "0x10",
        "1_000",
        "NaN",
        "Infinity",
        "tru",
        "truex",
        "nul",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\n\"",
        "\"\t\"",
        "1 2",
        "[1 2]",
        "[1}",
        "{\"a\":1]",
        "]",
        "\u{feff}1",
        "//c\n1",
        "\u{a0}1",
    ] {
        assert_eq!(parse(json), FaultCode::Parse, "{json:?}");
    }
    assert_eq!(refused(Encoding::Json, b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}").0, FaultCode::Parse);
}

#[test]
fn numbers_keep_their_kind() {
    assert_eq!(from_json("1"), Ok(Value::Int(1)));
    assert_eq!(from_json("-0"), Ok(Value::Int(0)));
    assert_eq!(from_json("1.0"), Ok(Value::Double(1.0)));
    assert_eq!(from_json("1e2"), Ok(Value::Double(100.0)));
    assert_eq!(from_json("-1.5E-1"), Ok(Value::Double(-0.15)));
    assert_eq!(from_json("-9223372036854775808"), Ok(Value::Int(i64::MIN)));
    for outside in ["9223372036854775808", "-9223372036854775809", "100000000000000000000000", "1e400"] {
        assert_eq!(parse(outside), FaultCode::InvalidRequest, "{outside}");
    }
    assert_eq!(to_json(&Value::Double(1.0)).unwrap(), "1.0");
}

#[test]
fn strings_keep_every_character() {
    assert_eq!(from_json(r#""\u0041\n\/\ud83d\ude00 é \\ \"""#), Ok("A\n/\u{1f600} é \\ \"".into()));
    let hard = "\0\u{1}\u{1f}\"\\/\u{7f}\u{2028}\u{10ffff}";
    let json = to_json(&hard.into()).unwrap();
    assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hard);
}

#[test]
fn bytes_and_moments_have_forms_of_their_own() {
    let bytes = Value::Bytes(Bytes::from_static(b"\x00\xff"));
    assert_eq!(to_json(&bytes).unwrap(), r#"{"$base64":"AP8="}"#);
    assert_eq!(from_json(r#" { "$base64" : "AP8" } "#), Ok(bytes.clone()));
    assert_eq!(from_json(r#"{"\u0024base64":"AP8="}"#), Ok(bytes));
    let moment = Value::DateTime(DateTime::new(1998, 7, 17, 14, 8, 55).unwrap());
    assert_eq!(to_json(&moment).unwrap(), r#"{"$dateTime":"19980717T14:08:55"}"#);
    assert_eq!(from_json(r#"{"$dateTime":"1998-07-17T14:08:55Z"}"#), Ok(moment));
}

#[test]
fn a_sole_name_with_a_dollar_is_escaped_and_others_are_not() {
    assert_eq!(to_json(&Value::object([("$base64", 1.into())])).unwrap(), r#"{"$$base64":1}"#);
    assert_eq!(from_json(r#"{"$$base64":"AAAA"}"#), Ok(Value::object([("$base64", "AAAA".into())])));
    let two = Value::object([("$base64", "AAAA".into()), ("b", 1.into())]);
    assert_eq!(to_json(&two).unwrap(), r#"{"$base64":"AAAA","b":1}"#);
    assert_eq!(from_json(r#"{"$base64":"AAAA","b":1}"#), Ok(two));
}

#[test]
fn reserved_forms_are_refused_rather_than_guessed() {
    for json in [
        r#"{"$":1}"#,
        r#"{"$other":"x"}"#,
        r#"{"$base64":1}"#,
        r#"{"$base64":"*"}"#,
        r#"{"$base64":{"$base64":"AAAA"}}"#,
        r#"{"$dateTime":"yesterday"}"#,
        r#"{"$dateTime":null}"#,
    ] {
        assert_eq!(parse(json), FaultCode::InvalidRequest, "{json}");
    }
}
