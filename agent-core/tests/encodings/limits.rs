//! What hostile input may cost: depth bombs, count bombs, claimed lengths, and what the encoders refuse themselves.

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::rpc::{FaultCode, MAX_DEPTH, MAX_VALUES, Struct, Value};
use bytes::Bytes;

use crate::support::{call, refused, tag, through_call, through_reply};

fn nested(depth: usize) -> Value {
    (1..depth).fold(Value::Array(vec![]), |inner, level| match level % 2 {
        0 => Value::Array(vec![inner]),
        _ => Value::object([("deeper", inner)]),
    })
}

#[test]
fn values_nest_to_the_limit_and_no_deeper_in_every_encoding() {
    for encoding in Encoding::ALL {
        let deepest = nested(MAX_DEPTH);
        assert_eq!(through_call(encoding, vec![deepest.clone()]), Ok(vec![deepest.clone()]), "{encoding}");
        assert_eq!(through_reply(encoding, &Ok(deepest.clone())), Ok(Ok(deepest)), "{encoding}");
        let fault = through_call(encoding, vec![nested(MAX_DEPTH + 1)]).unwrap_err();
        assert!(fault.is(FaultCode::Internal), "{encoding}: {fault}");
    }
}

#[test]
fn bytes_at_the_deepest_level_survive_json() {
    let mut value = Value::Bytes(Bytes::from_static(b"\xff"));
    for _ in 0..MAX_DEPTH {
        value = Value::Array(vec![value]);
    }
    assert_eq!(through_call(Encoding::Json, vec![value.clone()]), Ok(vec![value]));
}

#[test]
fn a_depth_bomb_is_refused_in_every_encoding() {
    let deep = 400_000;
    let xml = format!("<methodCall><methodName>a</methodName><params><param>{}", "<value><array><data>".repeat(deep));
    let json = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{}"#, "[".repeat(deep));
    let json_objects = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{}"#, r#"{"a":"#.repeat(deep));
    let unknown = format!(r#"{{"jsonrpc":"2.0","method":"a","more":{}"#, "[".repeat(deep));
    let mut cbor = b"\xa2\x66method\x61a\x66params\x81".to_vec();
    cbor.extend(std::iter::repeat_n(0x9f, deep));
    for (encoding, body) in [
        (Encoding::Xml, xml.into_bytes()),
        (Encoding::Json, json.into_bytes()),
        (Encoding::Json, json_objects.into_bytes()),
        (Encoding::Json, unknown.into_bytes()),
        (Encoding::Cbor, cbor),
    ] {
        let (code, message) = refused(encoding, body);
        assert_eq!(code, FaultCode::LimitExceeded, "{encoding}: {message}");
        assert!(message.contains("64"), "{message}");
    }
}

#[test]
fn as_many_values_as_the_limit_are_taken_and_one_more_is_refused() {
    for encoding in Encoding::ALL {
        let full = vec![Value::Nil; MAX_VALUES];
        assert_eq!(through_call(encoding, full.clone()).map(|params| params.len()), Ok(MAX_VALUES));
        let bytes = Value::Array(vec![Value::Bytes(Bytes::new()); MAX_VALUES - 1]);
        assert!(through_reply(encoding, &Ok(bytes)).is_ok(), "{encoding}");
        let mut more = full;
        more.push(Value::Nil);
        assert!(encode_call(encoding, &call("a", more), &tag()).unwrap_err().is(FaultCode::LimitExceeded));
    }
}

#[test]
fn a_count_bomb_is_refused_in_every_encoding() {
    let many = MAX_VALUES + 1;
    let xml =
        format!("<methodCall><methodName>a</methodName><params><param><value><array><data>{}", "<value/>".repeat(many));
    let json = format!(r#"{{"jsonrpc":"2.0","method":"a","params":[0{}]}}"#, ",0".repeat(many));
    let mut cbor = b"\xa2\x66method\x61a\x66params\x9f".to_vec();
    cbor.extend(std::iter::repeat_n(0xf6, many));
    for (encoding, body) in
        [(Encoding::Xml, xml.into_bytes()), (Encoding::Json, json.into_bytes()), (Encoding::Cbor, cbor)]
    {
        let (code, message) = refused(encoding, body);
        assert_eq!(code, FaultCode::LimitExceeded, "{encoding}: {message}");
        assert!(message.contains(&MAX_VALUES.to_string()), "{message}");
    }
}

#[test]
fn small_structs_count_for_the_memory_that_they_take() {
    // Four bytes each in CBOR, some 700 in memory: 2 MiB of them would take 350 MiB.
    let struct_of_one = Value::object([("a", Value::Nil)]);
    let many = Value::Array(vec![struct_of_one.clone(); MAX_VALUES / 10 - 1]);
    let more = Value::Array(vec![struct_of_one; MAX_VALUES / 10 + 1]);
    for encoding in Encoding::ALL {
        assert!(through_reply(encoding, &Ok(many.clone())).is_ok());
        assert!(encode_outcome(encoding, &Ok(more.clone()), &tag()).unwrap_err().is(FaultCode::LimitExceeded));
    }
    let mut cbor = b"\xa1\x66result\x9f".to_vec();
    cbor.extend(b"\xa1\x61a\xf6".repeat(MAX_VALUES / 10 + 1));
    cbor.push(0xff);
    assert!(decode_outcome(Encoding::Cbor, &cbor.into()).unwrap_err().is(FaultCode::LimitExceeded));
}

#[test]
fn a_length_that_is_only_claimed_costs_nothing() {
    for head in [b"\x9b", b"\xbb", b"\x5b", b"\x7b"] {
        let mut body = b"\xa1\x66result".to_vec();
        body.extend(head);
        body.extend([0x7f; 8]);
        let fault = decode_outcome(Encoding::Cbor, &body.into()).unwrap_err();
        assert!(fault.is(FaultCode::Parse), "{fault}");
    }
}

#[test]
fn doubles_that_are_not_finite_are_refused_both_ways() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for encoding in Encoding::ALL {
            let fault = through_call(encoding, vec![Value::Array(vec![Value::Double(number)])]).unwrap_err();
            assert!(fault.is(FaultCode::Internal), "{fault}");
        }
        let mut cbor = b"\xa2\x66method\x61a\x66params\x81\xfb".to_vec();
        cbor.extend(number.to_be_bytes());
        assert_eq!(refused(Encoding::Cbor, cbor).0, FaultCode::InvalidRequest);
        let xml = format!(
            "<methodCall><methodName>a</methodName><params><param><value><double>{number}</double></value></param></params></methodCall>"
        );
        assert_eq!(refused(Encoding::Xml, xml).0, FaultCode::InvalidRequest);
    }
    let json = r#"{"jsonrpc":"2.0","method":"a","params":[1e999]}"#;
    assert_eq!(refused(Encoding::Json, json).0, FaultCode::InvalidRequest);
}

#[test]
fn half_a_mebibyte_of_each_kind_survives_each_encoding() {
    let entry = Value::object([
        ("name", "a file's name.txt".into()),
        ("type", "file".into()),
        ("size", Value::Int(123_456)),
        ("mtime", Value::Double(1_700_000_000.25)),
        ("owner", "alice & bob".into()),
    ]);
    for encoding in Encoding::ALL {
        for params in [
            vec![Value::Array(vec![entry.clone(); 1200])],
            vec![Value::Bytes(vec![0xa5; 380_000].into())],
            vec![Value::String("a line of text\n".repeat(34_000))],
        ] {
            let body = encode_call(encoding, &call("a", params.clone()), &tag()).unwrap();
            assert_eq!(decode_call(encoding, &body).unwrap().params, params, "{encoding}");
        }
    }
}

#[test]
fn a_member_that_comes_twice_is_refused_in_every_encoding() {
    let xml = "<methodCall><methodName>a</methodName><params><param><value><struct>\
        <member><name>x</name><value>1</value></member><member><name>x</name><value>2</value></member>\
        </struct></value></param></params></methodCall>";
    let json = r#"{"jsonrpc":"2.0","method":"a","params":[{"x":1,"x":2}]}"#;
    let json_escaped = r#"{"jsonrpc":"2.0","method":"a","params":[{"x":1,"\u0078":2}]}"#;
    let json_envelope = r#"{"jsonrpc":"2.0","method":"a","method":"b"}"#;
    let json_params = r#"{"jsonrpc":"2.0","method":"a","params":[],"params":[1]}"#;
    let cbor = b"\xa2\x66method\x61a\x66params\x81\xa2\x61x\x01\x61x\x02";
    let cbor_envelope = b"\xa2\x66method\x61a\x66method\x61b";
    for (encoding, body) in [
        (Encoding::Xml, xml.as_bytes()),
        (Encoding::Json, json.as_bytes()),
        (Encoding::Json, json_escaped.as_bytes()),
        (Encoding::Json, json_envelope.as_bytes()),
        (Encoding::Json, json_params.as_bytes()),
        (Encoding::Cbor, cbor.as_slice()),
        (Encoding::Cbor, cbor_envelope.as_slice()),
    ] {
        let (code, message) = refused(encoding, body);
        assert_eq!(code, FaultCode::InvalidRequest, "{encoding}: {message}");
        assert!(message.contains("twice"), "{message}");
    }
}

#[test]
fn bytes_after_the_document_are_refused_in_every_encoding() {
    for encoding in Encoding::ALL {
        for stray in [b"x".as_slice(), b"{}", b"\x00", b"<a/>", b"\xf6"] {
            let mut body = encode_call(encoding, &call("a", vec![]), &tag()).unwrap().to_vec();
            body.extend(stray);
            let (code, _) = refused(encoding, body);
            assert!(matches!(code, FaultCode::Parse | FaultCode::InvalidRequest));
        }
    }
}

#[test]
fn a_call_is_no_reply_and_a_reply_no_call() {
    for encoding in Encoding::ALL {
        let body = encode_call(encoding, &call("a", vec![Value::Int(1)]), &tag()).unwrap();
        assert!(decode_outcome(encoding, &body).unwrap_err().is(FaultCode::InvalidRequest), "{encoding}");
        let body = encode_outcome(encoding, &Ok(Value::Int(1)), &tag()).unwrap();
        assert!(decode_call(encoding, &body).unwrap_err().is(FaultCode::InvalidRequest), "{encoding}");
        assert!(decode_call(encoding, &Bytes::new()).unwrap_err().is(FaultCode::Parse), "{encoding}");
        assert!(decode_outcome(encoding, &Bytes::new()).unwrap_err().is(FaultCode::Parse), "{encoding}");
    }
}

#[test]
fn method_names_outside_the_alphabet_are_no_request() {
    let long = "a".repeat(129);
    for name in ["", "a b", "va.ping\u{fc}", "a;b", long.as_str()] {
        let xml = format!("<methodCall><methodName>{name}</methodName></methodCall>");
        assert_eq!(refused(Encoding::Xml, xml).0, FaultCode::InvalidRequest, "{name:?}");
        let json = format!(r#"{{"jsonrpc":"2.0","method":"{name}"}}"#);
        assert_eq!(refused(Encoding::Json, json).0, FaultCode::InvalidRequest, "{name:?}");
    }
    assert_eq!(refused(Encoding::Cbor, b"\xa1\x66method\x63a b").0, FaultCode::InvalidRequest);
    assert_eq!(refused(Encoding::Cbor, b"\xa1\x66method\x01").0, FaultCode::InvalidRequest);
    assert_eq!(refused(Encoding::Cbor, b"\xa0").0, FaultCode::InvalidRequest);
}

#[test]
fn an_empty_struct_and_an_empty_array_differ() {
    for encoding in Encoding::ALL {
        let params = vec![Value::Struct(Struct::new()), Value::Array(vec![]), "".into(), Value::Bytes(Bytes::new())];
        assert_eq!(through_call(encoding, params.clone()), Ok(params));
    }
}
