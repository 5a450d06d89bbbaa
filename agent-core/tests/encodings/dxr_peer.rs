//! XML-RPC against the crate dxr, both ways.

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::rpc::{Fault, Struct, Value};
use dxr::{FaultResponse, MethodCall, MethodResponse};
use proptest::prelude::*;

use crate::support::{call, moment, tag, tree};

fn from_dxr(value: &dxr::Value) -> Value {
    match value {
        dxr::Value::Nil => Value::Nil,
        dxr::Value::Boolean(truth) => Value::Bool(*truth),
        dxr::Value::Integer(number) => Value::Int((*number).into()),
        dxr::Value::Long(number) => Value::Int(*number),
        dxr::Value::Double(number) => Value::Double(*number),
        dxr::Value::String(text) => Value::String(text.clone()),
        dxr::Value::Base64(bytes) => Value::Bytes(bytes.clone().into()),
        dxr::Value::DateTime(moment) => Value::DateTime(moment.to_string().parse().unwrap()),
        dxr::Value::Array(items) => Value::Array(items.iter().map(from_dxr).collect()),
        dxr::Value::Struct(members) => {
            Value::Struct(members.iter().map(|(name, member)| (name.clone(), from_dxr(member))).collect())
        }
        other => panic!("a type that dxr did not have: {other:?}"),
    }
}

fn to_dxr(value: &Value) -> dxr::Value {
    match value {
        Value::Nil => dxr::Value::Nil,
        Value::Bool(truth) => dxr::Value::Boolean(*truth),
        Value::Int(number) => i32::try_from(*number).map_or(dxr::Value::Long(*number), dxr::Value::Integer),
        Value::Double(number) => dxr::Value::Double(*number),
        Value::String(text) => dxr::Value::String(text.clone()),
        Value::Bytes(bytes) => dxr::Value::Base64(bytes.to_vec()),
        Value::DateTime(moment) => dxr::Value::DateTime(moment.to_string().parse().unwrap()),
        Value::Array(items) => dxr::Value::Array(items.iter().map(to_dxr).collect()),
        Value::Struct(members) => {
            dxr::Value::Struct(members.iter().map(|(name, member)| (name.clone(), to_dxr(member))).collect())
        }
    }
}

/// Text without what quick-xml's serde reader, on which dxr stands, trims: white space at either end.
fn text() -> impl Strategy<Value = String> + Clone {
    "[!-~é\u{20ac}\u{1f600}]([ -~é\u{20ac}\u{1f600}\n\t]{0,12}[!-~é\u{20ac}])?".prop_map(String::from).boxed()
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i32>().prop_map(|number| Value::Int(number.into())),
        crate::support::finite().prop_map(Value::Double),
        text().prop_map(Value::String),
        Just(Value::String(String::new())),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
        moment().prop_map(Value::DateTime),
    ];
    tree(leaf, text())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dxr_reads_our_calls_and_we_read_dxrs(values in prop::collection::vec(value(), 0..3)) {
        let ours = call("file.open", values.clone());
        let body = encode_call(Encoding::Xml, &ours, &tag()).unwrap();
        let read = MethodCall::from_xml(std::str::from_utf8(&body).unwrap()).unwrap();
        prop_assert_eq!(&*read.name, "file.open");
        prop_assert_eq!(read.params.iter().map(from_dxr).collect::<Vec<_>>(), values.clone());

        let theirs = MethodCall { name: "file.open".into(), params: values.iter().map(to_dxr).collect() };
        for xml in [theirs.to_xml().unwrap(), theirs.to_xml_pretty().unwrap()] {
            prop_assert_eq!(decode_call(Encoding::Xml, &xml.into()).unwrap(), ours.clone());
        }
    }

    #[test]
    fn dxr_reads_our_results_and_we_read_dxrs(value in value()) {
        let body = encode_outcome(Encoding::Xml, &Ok(value.clone()), &tag()).unwrap();
        let read = MethodResponse::from_xml(std::str::from_utf8(&body).unwrap()).unwrap();
        prop_assert_eq!(from_dxr(&read.value), value.clone());

        let xml = MethodResponse { value: to_dxr(&value) }.to_xml().unwrap();
        prop_assert_eq!(decode_outcome(Encoding::Xml, &xml.into()).unwrap(), Ok(value));
    }

    #[test]
    fn dxr_reads_our_faults_and_we_read_dxrs(code: i32, message in text()) {
        let fault = Fault { code: code.into(), message: message.clone(), data: None };
        let body = encode_outcome(Encoding::Xml, &Err(fault.clone()), &tag()).unwrap();
        let read = FaultResponse::from_xml(std::str::from_utf8(&body).unwrap()).unwrap();
        prop_assert_eq!((read.fault.code(), read.fault.string()), (code, message.as_str()));

        let xml = FaultResponse { fault: dxr::Fault::new(code, message) }.to_xml().unwrap();
        prop_assert_eq!(decode_outcome(Encoding::Xml, &xml.into()).unwrap(), Err(fault));
    }
}

#[test]
fn dxr_reads_an_empty_struct_and_an_empty_array() {
    let body = encode_call(Encoding::Xml, &call("a", vec![Value::Struct(Struct::new()), Value::Array(vec![])]), &tag())
        .unwrap();
    let read = MethodCall::from_xml(std::str::from_utf8(&body).unwrap()).unwrap();
    assert_eq!(
        read.params.iter().map(from_dxr).collect::<Vec<_>>(),
        [Value::Struct(Struct::new()), Value::Array(vec![])]
    );
}
