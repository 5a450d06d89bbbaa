//! The parameters of `call`: one JSON array or object, `name=value` ..., or plain values by position.
//!
//! Owns the syntax. Reads files only through the function it is given.

use std::path::Path;

use agent_core::rpc::{Struct, Value};
use serde_json::Value as Json;

use crate::failure::{Failure, Result};
use crate::json;

/// The parameters that `arguments` mean; `read` gives a file's bytes for `name=@FILE`.
pub fn parse(arguments: &[String], mut read: impl FnMut(&Path) -> Result<Vec<u8>>) -> Result<Vec<Value>> {
    if let [whole] = arguments
        && whole.trim_start().starts_with(['[', '{'])
    {
        return whole_json(whole);
    }
    let mut named = Struct::new();
    let mut positional = Vec::new();
    for argument in arguments {
        match split_name(argument) {
            Some((name, text)) => {
                let value = value(text, &mut read)?;
                if named.insert(name.to_owned(), value).is_some() {
                    return Err(Failure::usage(format!("the parameter {name} is given twice")));
                }
            }
            None => positional.push(value(argument, &mut read)?),
        }
    }
    match (named.is_empty(), positional.is_empty()) {
        (true, _) => Ok(positional),
        (false, true) => Ok(vec![Value::Struct(named)]),
        (false, false) => Err(Failure::usage(
            "some parameters have a name and some have not; name all of them (name=value) or none".to_owned(),
        )),
    }
}

fn whole_json(text: &str) -> Result<Vec<Value>> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        Failure::usage(format!("the parameters are not JSON ({error}); write them as name=value or quote them whole"))
    })?;
    match json::to_value(json).map_err(|error| Failure::usage(format!("the parameters: {error}")))? {
        Value::Array(items) => Ok(items),
        other => Ok(vec![other]),
    }
}

/// `name` of `name=value`; a name is letters, digits, `_` and `-`, and begins with a letter or `_`.
fn split_name(argument: &str) -> Option<(&str, &str)> {
    let (name, text) = argument.split_once('=')?;
    let first = name.chars().next()?;
    let fits = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    (fits && (first.is_ascii_alphabetic() || first == '_')).then_some((name, text))
}

fn value(text: &str, read: &mut impl FnMut(&Path) -> Result<Vec<u8>>) -> Result<Value> {
    if let Some(path) = text.strip_prefix('@') {
        // `@active` is a word of ours, and a lone @ is no file.
        if !path.is_empty() && path != "active" {
            return Ok(Value::Bytes(read(Path::new(path))?.into()));
        }
    }
    match serde_json::from_str::<Json>(text) {
        Ok(json) => json::to_value(json).map_err(|error| Failure::usage(format!("{text}: {error}"))),
        Err(error) if text.starts_with(['[', '{', '"']) => {
            Err(Failure::usage(format!("{text} begins like JSON but is not ({error}); mind your shell's quotes")))
        }
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Vec<Value>> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        parse(&arguments, |path| Ok(format!("bytes of {}", path.display()).into_bytes()))
    }

    #[test]
    fn a_value_is_json_or_else_a_string() {
        let values = parsed(&["a=1", "b=true", "c=x y", "d=[1, \"z\"]", "e=\"5\"", "f=", "g=null"]).unwrap();
        let expected = Value::object([
            ("a", Value::Int(1)),
            ("b", Value::Bool(true)),
            ("c", "x y".into()),
            ("d", Value::Array(vec![Value::Int(1), "z".into()])),
            ("e", "5".into()),
            ("f", "".into()),
            ("g", Value::Nil),
        ]);
        assert_eq!(values, [expected]);
    }

    #[test]
    fn an_at_sign_reads_a_file_as_bytes() {
        let bytes = Value::Bytes(b"bytes of k.pem".to_vec().into());
        assert_eq!(parsed(&["key=@k.pem"]).unwrap(), [Value::object([("key", bytes)])]);
    }

    #[test]
    fn values_without_names_go_by_position() {
        assert_eq!(parsed(&["/etc/hostname", "7"]).unwrap(), ["/etc/hostname".into(), Value::Int(7)]);
        assert_eq!(parsed(&[]).unwrap(), []);
    }

    #[test]
    fn one_json_text_is_all_the_parameters() {
        assert_eq!(parsed(&["[1, 2]"]).unwrap(), [Value::Int(1), Value::Int(2)]);
        assert_eq!(parsed(&["{\"a\": 1}"]).unwrap(), [Value::object([("a", Value::Int(1))])]);
    }

    #[test]
    fn a_path_with_an_equals_sign_is_no_name() {
        assert_eq!(parsed(&["/srv/a=b"]).unwrap(), ["/srv/a=b".into()]);
    }

    #[test]
    fn mixed_doubled_and_broken_parameters_are_usage_errors() {
        for wrong in [&["a=1", "2"][..], &["a=1", "a=2"], &["a=[1"], &["{a: 1}"]] {
            assert_eq!(parsed(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
