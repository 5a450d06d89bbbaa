//! Every value survives every encoding, and the three agree.

use agent_core::encoding::{Encoding, from_json, to_json};
use agent_core::rpc::{Fault, FaultCode, Value};
use proptest::prelude::*;

use crate::support::{as_xml_carries, text, through_call, through_reply, value};

/// What must come back, or nothing when the value can't be sent.
fn expected(encoding: Encoding, value: &Value) -> Option<Value> {
    match encoding {
        Encoding::Xml => as_xml_carries(value),
        _ => Some(value.clone()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_survives_each_encoding_as_a_parameter(values in prop::collection::vec(value(), 0..4)) {
        for encoding in Encoding::ALL {
            let came = through_call(encoding, values.clone());
            match values.iter().map(|value| expected(encoding, value)).collect::<Option<Vec<_>>>() {
                Some(expected) => prop_assert_eq!(came, Ok(expected), "{}", encoding),
                None => prop_assert!(came.unwrap_err().is(FaultCode::Internal)),
            }
        }
    }

    #[test]
    fn every_value_survives_each_encoding_as_a_result(value in value()) {
        for encoding in Encoding::ALL {
            let came = through_reply(encoding, &Ok(value.clone()));
            match expected(encoding, &value) {
                Some(expected) => prop_assert_eq!(came, Ok(Ok(expected)), "{}", encoding),
                None => prop_assert!(came.unwrap_err().is(FaultCode::Internal)),
            }
        }
    }

    #[test]
    fn every_fault_survives_each_encoding(code: i64, message in text(), data in prop::option::of(value())) {
        let fault = Fault { code, message, data: data.map(Box::new) };
        for encoding in Encoding::ALL {
            let came = through_reply(encoding, &Err(fault.clone())).unwrap().unwrap_err();
            prop_assert_eq!(came.code, code);
            if encoding == Encoding::Xml {
                let carried: String =
                    fault.message.chars().map(|c| if crate::support::is_xml(c) { c } else { '\u{fffd}' }).collect();
                prop_assert_eq!(came.message, carried);
                prop_assert_eq!(came.data, None);
            } else {
                prop_assert_eq!(came, fault.clone());
            }
        }
    }

    #[test]
    fn a_value_as_json_reads_back(value in value()) {
        prop_assert_eq!(from_json(&to_json(&value).unwrap()), Ok(value));
    }

    #[test]
    fn noise_is_refused_with_a_fault_and_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let body = bytes::Bytes::from(noise);
        for encoding in Encoding::ALL {
            let _ = agent_core::encoding::decode_call(encoding, &body);
            let _ = agent_core::encoding::decode_outcome(encoding, &body);
        }
    }

    #[test]
    fn a_body_cut_short_is_never_taken(values in prop::collection::vec(value(), 0..3), cut in 0.0..1.0) {
        for encoding in Encoding::ALL {
            let call = crate::support::call("a.b", values.clone());
            let Ok(body) = agent_core::encoding::encode_call(encoding, &call, &crate::support::tag()) else { continue };
            let body = body.slice(..(body.len() as f64 * cut) as usize);
            prop_assert!(agent_core::encoding::decode_call(encoding, &body).is_err());
        }
    }
}
