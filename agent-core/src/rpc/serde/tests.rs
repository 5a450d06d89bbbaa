use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{from_value, to_value};
use crate::rpc::{Blob, DateTime, Fault, FaultCode, MAX_DEPTH, Value};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Read,
    Write,
    Limited(u16),
    Pair(i32, i32),
    Sized { rows: u16, cols: u16 },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    path: String,
    mode: Mode,
    #[serde(default)]
    argv: Vec<String>,
    env: Option<HashMap<String, String>>,
    size: Option<Size>,
    data: Option<Blob>,
    #[serde(default = "yes")]
    follow: bool,
    ratio: Option<f64>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Size {
    rows: u16,
    cols: u16,
}

fn yes() -> bool {
    true
}

fn full() -> Params {
    Params {
        path: "/a".into(),
        mode: Mode::Read,
        argv: vec!["ls".into(), "-l".into()],
        env: Some(HashMap::from([("HOME".into(), "/root".into())])),
        size: Some(Size { rows: 24, cols: 80 }),
        data: Some(Blob(Bytes::from_static(b"\x00\xff"))),
        follow: false,
        ratio: Some(0.5),
    }
}

#[track_caller]
fn complaint<const N: usize>(members: [(&str, Value); N]) -> String {
    let fault = from_value::<Params>(Value::object(members)).unwrap_err();
    assert!(fault.is(FaultCode::InvalidParams));
    fault.message
}

#[test]
fn a_type_survives_the_way_through_a_value() {
    let value = to_value(&full()).unwrap();
    assert_eq!(
        value,
        Value::object([
            ("path", "/a".into()),
            ("mode", "read".into()),
            ("argv", Value::Array(vec!["ls".into(), "-l".into()])),
            ("env", Value::object([("HOME", "/root".into())])),
            ("size", Value::object([("rows", 24.into()), ("cols", 80.into())])),
            ("data", Value::Bytes(Bytes::from_static(b"\x00\xff"))),
            ("follow", false.into()),
            ("ratio", Value::Double(0.5)),
        ])
    );
    assert_eq!(from_value::<Params>(value).unwrap(), full());
}

#[test]
fn every_kind_of_variant_survives() {
    for (mode, value) in [
        (Mode::Write, "write".into()),
        (Mode::Limited(7), Value::object([("limited", 7.into())])),
        (Mode::Pair(1, -2), Value::object([("pair", Value::Array(vec![1.into(), (-2).into()]))])),
        (Mode::Sized { rows: 1, cols: 2 }, {
            Value::object([("sized", Value::object([("rows", 1.into()), ("cols", 2.into())]))])
        }),
    ] {
        assert_eq!(to_value(&mode).unwrap(), value);
        assert_eq!(from_value::<Mode>(value).unwrap(), mode);
    }
    // One spelling only: policy compares parameters as text, and must see what the method will.
    assert!(from_value::<Mode>(Value::object([("read", Value::Nil)])).is_err());
}

#[test]
fn what_is_optional_may_be_nil_or_missing() {
    let least = [("path", "/a".into()), ("mode", "read".into())];
    let params: Params = from_value(Value::object(least.clone())).unwrap();
    assert_eq!((params.env.as_ref(), params.follow, params.argv.len()), (None, true, 0));
    let [path, mode] = least;
    let with_nil = Value::object([path, mode, ("env", Value::Nil), ("data", Value::Nil)]);
    assert_eq!(from_value::<Params>(with_nil).unwrap(), params);
    assert_eq!(to_value(&params).unwrap().get("env"), None);
}

#[test]
fn a_map_keeps_its_nils_and_needs_string_keys() {
    let map = BTreeMap::from([("a", None), ("b", Some(1))]);
    assert_eq!(to_value(&map).unwrap(), Value::object([("a", Value::Nil), ("b", 1.into())]));
    assert_eq!(to_value(&BTreeMap::from([('a', 1)])).unwrap(), Value::object([("a", 1.into())]));
    let fault = to_value(&BTreeMap::from([(1, 2)])).unwrap_err();
    assert!(fault.is(FaultCode::Internal), "{fault}");
}

#[test]
fn integers_outside_their_type_are_refused_with_the_number() {
    assert_eq!(from_value::<u8>(Value::Int(255)).unwrap(), 255);
    assert_eq!(from_value::<u64>(Value::Int(i64::MAX)).unwrap(), i64::MAX as u64);
    assert_eq!(
        from_value::<u8>(Value::Int(256)).unwrap_err().message,
        "expected an int that is not negative (u8), got 256"
    );
    assert!(from_value::<u64>(Value::Int(-1)).is_err());
    assert_eq!(to_value(&u64::MAX).unwrap_err().kind(), Some(FaultCode::Internal));
    assert_eq!(to_value(&(i64::MAX as u64)).unwrap(), Value::Int(i64::MAX));
}

#[test]
fn an_int_reads_as_a_double_and_not_the_reverse() {
    assert_eq!(from_value::<f64>(Value::Int(3)).unwrap(), 3.0);
    assert_eq!(from_value::<Option<f64>>(Value::Int(-3)).unwrap(), Some(-3.0));
    assert!(from_value::<i64>(Value::Double(3.0)).is_err());
    assert!(to_value(&f64::NAN).unwrap_err().is(FaultCode::Internal));
}

#[test]
fn bytes_that_are_text_read_as_a_string_and_text_as_bytes() {
    let bytes = |bytes: &'static [u8]| Value::Bytes(Bytes::from_static(bytes));
    assert_eq!(from_value::<String>(bytes(b"a\x1bb")).unwrap(), "a\u{1b}b");
    assert_eq!(from_value::<Vec<String>>(Value::Array(vec![bytes(b"x")])).unwrap(), ["x"]);
    assert_eq!(from_value::<String>(bytes(b"\xff")).unwrap_err().message, "expected a string, got base64 that is not");
    assert_eq!(from_value::<Blob>("text".into()).unwrap().0, "text");
    assert_eq!(from_value::<Blob>(bytes(b"\xff")).unwrap().0, &b"\xff"[..]);
    let moment = DateTime::new(2011, 1, 2, 3, 4, 5).unwrap();
    assert_eq!(from_value::<String>(Value::DateTime(moment)).unwrap(), "20110102T03:04:05");
}

#[test]
fn an_error_names_the_parameter() {
    let path = || ("path", Value::from("/a"));
    let mode = || ("mode", Value::from("read"));
    assert_eq!(complaint([mode()]), "parameter `path` is missing");
    assert_eq!(
        complaint([path(), ("mode", "x".into())]),
        "parameter `mode`: unknown variant `x`, expected one of `read`, `write`, `limited`, `pair`, `sized`"
    );
    assert_eq!(
        complaint([path(), ("mode", 1.into())]),
        "parameter `mode`: expected a string, or a struct of one member, got int"
    );
    assert_eq!(complaint([mode(), ("path", 1.into())]), "parameter `path`: expected a string, got int");
    assert_eq!(complaint([path(), mode(), ("argv", "ls".into())]), "parameter `argv`: expected an array, got string");
    assert_eq!(
        complaint([path(), mode(), ("argv", Value::Array(vec!["a".into(), Value::Nil]))]),
        "parameter `argv[1]`: expected a string, got nil"
    );
    assert_eq!(
        complaint([path(), mode(), ("size", Value::object([("rows", 1.into())]))]),
        "parameter `size.cols` is missing"
    );
    assert_eq!(
        complaint([path(), mode(), ("size", Value::object([("rows", 70_000.into()), ("cols", 1.into())]))]),
        "parameter `size.rows`: expected an int that is not negative (u16), got 70000"
    );
    assert_eq!(
        complaint([path(), mode(), ("nope", 1.into())]),
        "no parameter is called `nope`, there are `path`, `mode`, `argv`, `env`, `size`, `data`, `follow`, `ratio`"
    );
    assert_eq!(
        complaint([path(), ("mode", Value::object([("limited", "x".into())]))]),
        "parameter `mode`: expected an int that is not negative (u16), got string"
    );
    assert_eq!(
        complaint([path(), ("mode", "limited".into())]),
        "parameter `mode`: this variant needs content: a struct of its name and the content"
    );
}

#[test]
fn an_error_never_repeats_a_secret() {
    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    struct Login {
        pin: u32,
        password: [u8; 2],
    }
    let login = |pin: Value, password: Value| {
        from_value::<Login>(Value::object([("pin", pin), ("password", password)])).unwrap_err().message
    };
    assert!(!login("hunter2".into(), "x".into()).contains("hunter2"));
    assert!(!login(1.into(), "hunter2".into()).contains("hunter2"));
    assert!(!login(1.into(), Value::Bytes(Bytes::from_static(b"hunter2"))).contains("hunter2"));
}

#[test]
fn a_name_that_a_peer_chose_stays_on_one_short_line() {
    let name = format!("a\nb{}", "x".repeat(100));
    for message in [
        complaint([("path", "/a".into()), ("mode", "read".into()), (&name, 1.into())]),
        complaint([("path", "/a".into()), ("mode", name.as_str().into())]),
        complaint([("path", "/a".into()), ("mode", "read".into()), ("env", Value::object([(&name, 1.into())]))]),
    ] {
        assert!(message.contains(r"a\nbxxx") && message.len() < 200 && !message.contains('\n'), "{message}");
    }
}

#[test]
fn arrays_longer_than_a_tuple_are_refused() {
    assert_eq!(from_value::<(i32, i32)>(Value::Array(vec![1.into(), 2.into()])).unwrap(), (1, 2));
    assert!(from_value::<(i32, i32)>(Value::Array(vec![1.into(), 2.into(), 3.into()])).is_err());
    assert!(from_value::<(i32, i32)>(Value::Array(vec![1.into()])).is_err());
}

#[test]
fn json_values_of_others_become_values() {
    let schema = serde_json::json!({"type": ["string", "null"], "deep": [{"x": 1.5, "n": null}]});
    let value = to_value(&schema).unwrap();
    assert_eq!(
        value.get("deep").unwrap(),
        &Value::Array(vec![Value::object([("x", Value::Double(1.5)), ("n", Value::Nil)])])
    );
    assert_eq!(from_value::<serde_json::Value>(value).unwrap(), schema);
}

#[test]
fn untagged_and_flattened_types_read_too() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(untagged)]
    enum Signal {
        Number(i32),
        Name(String),
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Outer {
        signal: Signal,
        #[serde(flatten)]
        rest: BTreeMap<String, Size>,
    }
    let size = || Value::object([("rows", 1.into()), ("cols", 2.into())]);
    let outer: Outer = from_value(Value::object([("signal", "SIGHUP".into()), ("a", size())])).unwrap();
    assert_eq!(outer.signal, Signal::Name("SIGHUP".into()));
    assert_eq!(outer.rest["a"], Size { rows: 1, cols: 2 });
    assert_eq!(from_value::<Signal>(9.into()).unwrap(), Signal::Number(9));
}

#[test]
fn a_type_without_an_end_is_refused_and_not_followed() {
    #[derive(Serialize)]
    struct Node(Option<Box<(Node,)>>);
    let mut node = Node(None);
    for _ in 0..MAX_DEPTH {
        node = Node(Some(Box::new((node,))));
    }
    assert!(to_value(&node).is_ok());
    let deeper = Node(Some(Box::new((node,))));
    assert_eq!(to_value(&deeper), Err(Fault::internal("the result: it nests deeper than 64 levels")));
}
