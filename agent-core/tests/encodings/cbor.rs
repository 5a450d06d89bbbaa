//! CBOR: the examples of RFC 8949, the envelope, and bytes without a copy.

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::rpc::{DateTime, Fault, FaultCode, Value};
use bytes::Bytes;

use crate::support::{call, tag};

fn result(item: &[u8]) -> Result<Value, Fault> {
    let body = [b"\xa1\x66result", item].concat();
    decode_outcome(Encoding::Cbor, &body.into()).map(|outcome| outcome.unwrap())
}

#[track_caller]
fn wrong(item: &[u8]) -> FaultCode {
    result(item).expect_err("it must be refused").kind().unwrap()
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    let double = |item: &[u8], number: f64| assert_eq!(result(item), Ok(Value::Double(number)), "{item:x?}");
    assert_eq!(result(b"\x00"), Ok(Value::Int(0)));
    assert_eq!(result(b"\x18\x64"), Ok(Value::Int(100)));
    assert_eq!(result(b"\x1b\x00\x00\x00\xe8\xd4\xa5\x10\x00"), Ok(Value::Int(1_000_000_000_000)));
    assert_eq!(result(b"\x39\x03\xe7"), Ok(Value::Int(-1000)));
    assert_eq!(result(b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff"), Ok(Value::Int(i64::MAX)));
    assert_eq!(result(b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff"), Ok(Value::Int(i64::MIN)));
    double(b"\xf9\x00\x00", 0.0);
    double(b"\xf9\x3c\x00", 1.0);
    double(b"\xf9\x3e\x00", 1.5);
    double(b"\xf9\x7b\xff", 65504.0);
    double(b"\xf9\x00\x01", 5.960_464_477_539_063e-8);
    double(b"\xf9\x04\x00", 6.103_515_625e-5);
    double(b"\xf9\xc4\x00", -4.0);
    double(b"\xfa\x47\xc3\x50\x00", 100_000.0);
    double(b"\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a", 1.1);
    assert_eq!(result(b"\xf4"), Ok(Value::Bool(false)));
    assert_eq!(result(b"\xf6"), Ok(Value::Nil));
    assert_eq!(result(b"\xf7"), Ok(Value::Nil));
    assert_eq!(result(b"\x62\xc3\xbc"), Ok("\u{fc}".into()));
    assert_eq!(result(b"\x44\x01\x02\x03\x04"), Ok(Value::Bytes(Bytes::from_static(&[1, 2, 3, 4]))));
    assert_eq!(result(b"\x5f\x42\x01\x02\x43\x03\x04\x05\xff"), Ok(Value::Bytes(Bytes::from_static(&[1, 2, 3, 4, 5]))));
    assert_eq!(result(b"\x7f\x65strea\x64ming\xff"), Ok("streaming".into()));
    let nested = Value::Array(vec![
        Value::Int(1),
        Value::Array(vec![Value::Int(2), Value::Int(3)]),
        Value::Array(vec![Value::Int(4), Value::Int(5)]),
    ]);
    assert_eq!(result(b"\x9f\x01\x82\x02\x03\x9f\x04\x05\xff\xff"), Ok(nested));
    let members = Value::object([("Fun", Value::Bool(true)), ("Amt", Value::Int(-2))]);
    assert_eq!(result(b"\xbf\x63Fun\xf5\x63Amt\x21\xff"), Ok(members));
}

#[test]
fn what_no_value_can_hold_is_no_request() {
    for item in [
        b"\x1b\x80\x00\x00\x00\x00\x00\x00\x00".as_slice(), // 2^63
        b"\x3b\x80\x00\x00\x00\x00\x00\x00\x00",            // -2^63 - 1
        b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xf9\x7c\x00",              // infinity in 16 bits
        b"\xf9\x7e\x00",              // NaN in 16 bits
        b"\xfa\x7f\xc0\x00\x00",      // NaN in 32 bits
        b"\xa1\x01\x02",              // a key that is no text
        b"\xc0\x60",                  // a tag of others
        b"\xc2\x41\x01",              // a bignum
        b"\xda\x56\x41\x44\x54\x01",  // our tag on an integer
        b"\xda\x56\x41\x44\x54\x61x", // our tag on another text
        b"\xf0",                      // a simple value
    ] {
        assert_eq!(wrong(item), FaultCode::InvalidRequest, "{item:x?}");
    }
}

#[test]
fn what_is_not_well_formed_is_a_parse_error() {
    for item in [
        b"".as_slice(),
        b"\x18",
        b"\x1c",
        b"\x38",
        b"\xf9\x00",
        b"\xfb\x00",
        b"\x44\x01",
        b"\x62\xc3\x28",
        b"\x7f\x61\xff",
        b"\x5f\x41\x01",
        b"\x5f\x61x\xff",
        b"\x5f\x5f\x41\x01\xff\xff",
        b"\x82\x01",
        b"\x9f\x01",
        b"\xa1\x61a",
        b"\xbf\x61a\xff",
        b"\xff",
        b"\x82\x01\xff",
        b"\x01\x01",
    ] {
        assert_eq!(wrong(item), FaultCode::Parse, "{item:x?}");
    }
}

#[test]
fn the_envelope_is_a_map_of_text() {
    let body = encode_call(Encoding::Cbor, &call("va.ping", vec![Value::Int(1)]), &tag()).unwrap();
    assert_eq!(&body[..], b"\xa2\x66method\x67va.ping\x66params\x81\x01");
    let body = encode_outcome(Encoding::Cbor, &Err(Fault::new(FaultCode::Busy, "full")), &tag()).unwrap();
    assert_eq!(&body[..], b"\xa1\x65fault\xa2\x64code\x39\x7d\x03\x67message\x64full");
    let later = b"\xbf\x63new\x82\x01\x02\x66params\x9f\x01\xff\x66method\x67va.ping\xff";
    assert_eq!(decode_call(Encoding::Cbor, &Bytes::from_static(later)), Ok(call("va.ping", vec![Value::Int(1)])));
    assert_eq!(decode_call(Encoding::Cbor, &Bytes::from_static(b"\xa1\x66method\x61a")), Ok(call("a", vec![])));
    for body in [b"\x80".as_slice(), b"\xa2\x66method\x61a\x66params\xa0", b"\xa1\x66params\x80", b"\xa1\x01\x02"] {
        let fault = decode_call(Encoding::Cbor, &Bytes::from_static(body)).unwrap_err();
        assert!(fault.is(FaultCode::InvalidRequest), "{fault}");
    }
    for body in [
        b"\xa0".as_slice(),
        b"\xa1\x65fault\x01",
        b"\xa1\x65fault\xa1\x64code\x01",
        b"\xa2\x66result\x01\x65fault\xa2\x64code\x01\x67message\x60",
    ] {
        let fault = decode_outcome(Encoding::Cbor, &Bytes::from_static(body)).unwrap_err();
        assert!(fault.is(FaultCode::InvalidRequest), "{fault}");
    }
}

#[test]
fn a_moment_is_a_tagged_text() {
    let moment = Value::DateTime(DateTime::new(1998, 7, 17, 14, 8, 55).unwrap());
    let body = encode_outcome(Encoding::Cbor, &Ok(moment), &tag()).unwrap();
    assert_eq!(&body[..], b"\xa1\x66result\xda\x56\x41\x44\x54\x7119980717T14:08:55");
}

#[test]
fn bytes_are_a_slice_of_the_body() {
    let blob = Bytes::from(vec![7; 1 << 20]);
    let body = encode_call(Encoding::Cbor, &call("a", vec![blob.clone().into()]), &tag()).unwrap();
    let decoded = decode_call(Encoding::Cbor, &body).unwrap();
    let bytes = decoded.params[0].as_bytes().unwrap();
    assert_eq!(*bytes, blob);
    let inside = body.as_ptr_range();
    assert!(inside.contains(&bytes.as_ptr()), "the bytes were copied");
}
