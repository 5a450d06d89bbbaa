//! XML-RPC against Python's `xmlrpc.client`, both ways, in a process of its own.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome, from_json, to_json};
use agent_core::rpc::{Fault, Value};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::support::{call, moment, tag, tree};

struct Python {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Mutex<Self> {
        // The other implementation is a program, and tests are no daemon.
        #[allow(clippy::disallowed_methods)]
        let mut child = Command::new("python3")
            .args(["-X", "utf8", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/encodings/python_peer.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed: apt-get install python3");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().unwrap());
        Mutex::new(Self { child, input, output })
    }

    fn ask(this: &Mutex<Self>, line: &str) -> String {
        let mut python = this.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(python.input.as_mut().unwrap(), "{line}").unwrap();
        let mut answer = String::new();
        python.output.read_line(&mut answer).unwrap();
        assert!(answer.ends_with('\n'), "python ended; its error is above");
        answer
    }

    /// What Python understands of a document.
    fn read(this: &Mutex<Self>, xml: &[u8]) -> Value {
        let hex = xml.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        from_json(&Self::ask(this, &format!("read {hex}"))).unwrap()
    }

    /// What Python writes.
    fn write(this: &Mutex<Self>, what: &Value) -> Vec<u8> {
        let hex = Self::ask(this, &format!("write {}", to_json(what).unwrap()));
        let digits: Vec<u8> = hex.trim().bytes().map(|digit| char::from(digit).to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// What xmlrpc.client can write: integers of 32 bits, and no carriage return, which it writes without a reference and so
/// loses. `control`: it writes control characters raw, and its own reader (rightly) refuses them.
fn value(control: bool) -> impl Strategy<Value = Value> {
    let text = match control {
        true => "[ -~é\u{20ac}\u{1f600}\n\t\u{1b}\u{1}]{0,12}",
        false => "[ -~é\u{20ac}\u{1f600}\n\t]{0,12}",
    };
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i32>().prop_map(|number| Value::Int(number.into())),
        crate::support::finite().prop_map(Value::Double),
        text.prop_map(Value::String),
        prop::collection::vec(any::<u8>(), 0..100).prop_map(|bytes| Value::Bytes(bytes.into())),
        moment().prop_map(Value::DateTime),
    ];
    tree(leaf, "[$ -~é\n]{0,8}".prop_map(String::from).boxed())
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn python_reads_our_calls_results_and_faults() {
    let python = Python::start();
    let run = |value: Value| {
        let body =
            encode_call(Encoding::Xml, &call("file.open", vec![value.clone(), Value::Int(1 << 40)]), &tag()).unwrap();
        let params = Value::Array(vec![value.clone(), Value::Int(1 << 40)]);
        prop_assert_eq!(
            Python::read(&python, &body),
            Value::object([("method", "file.open".into()), ("params", params)])
        );
        let body = encode_outcome(Encoding::Xml, &Ok(value.clone()), &tag()).unwrap();
        prop_assert_eq!(Python::read(&python, &body), Value::object([("result", value)]));
        Ok(())
    };
    runner().run(&value(false), run).unwrap();
    // Each kind of line end, and white space that some readers trim.
    run("a\rb\r\nc\nd ".into()).unwrap();
    run(" \t\n ".into()).unwrap();
    let fault = Fault { code: -32004, message: "<busy> & \"full\"".into(), data: None };
    let body = encode_outcome(Encoding::Xml, &Err(fault), &tag()).unwrap();
    let read = Value::Array(vec![Value::Int(-32004), "<busy> & \"full\"".into()]);
    assert_eq!(Python::read(&python, &body), Value::object([("fault", read)]));
}

#[test]
fn we_read_pythons_calls_results_and_faults() {
    let python = Python::start();
    let run = |value: Value| {
        let params = Value::Array(vec![value.clone()]);
        let xml = Python::write(&python, &Value::object([("method", "file.open".into()), ("params", params)]));
        prop_assert_eq!(decode_call(Encoding::Xml, &xml.into()), Ok(call("file.open", vec![value.clone()])));
        let xml = Python::write(&python, &Value::object([("result", value.clone())]));
        prop_assert_eq!(decode_outcome(Encoding::Xml, &xml.into()), Ok(Ok(value)));
        Ok(())
    };
    runner().run(&value(true), run).unwrap();
    // Base64 in lines of 76 characters.
    run(Value::Bytes(vec![0xa5; 5000].into())).unwrap();
    let fault = Value::Array(vec![Value::Int(-502), "number of <parameters>".into()]);
    let xml = Python::write(&python, &Value::object([("fault", fault)]));
    let read = decode_outcome(Encoding::Xml, &xml.into()).unwrap().unwrap_err();
    assert_eq!(read, Fault { code: -502, message: "number of <parameters>".into(), data: None });
}
