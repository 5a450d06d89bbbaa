//! What of a call's values goes into its record: secrets hidden, bulk replaced by its size and digest, everything
//! bounded. Owns no record and does no I/O.

use serde_json::{Map, Value as Json, json};

use super::chain::LineHash;
use crate::rpc::{Struct, Value};

/// Strings up to this many bytes are written as they are.
const TEXT_MAX: usize = 256;
/// Strings and bytes up to this long get a digest beside their length.
const DIGEST_MAX: usize = 64 << 10;
/// No more than this is digested for one summary: hashing must not set the speed.
const DIGEST_TOTAL: usize = 256 << 10;
/// Items of an array, members of a struct.
const ITEMS_MAX: usize = 32;
const DEPTH_MAX: usize = 6;
const PARAMS_MAX: usize = 16 << 10;
const RESULT_MAX: usize = 2 << 10;

const HIDDEN: &str = "<hidden>";

/// A call's parameters for its record, at most about 16 KiB.
///
/// `names` are the method's parameters in positional order: positional parameters are written by name, so that one
/// reader and one rule of secrets serves both forms. A value named in `secrets` is written as `<hidden>`, however deep
/// it lies.
pub fn summarise(params: &[Value], names: &[&str], secrets: &[&str]) -> Json {
    let mut summary = Summary { secrets, left: PARAMS_MAX, digest_left: DIGEST_TOTAL };
    if let [Value::Struct(members)] = params {
        // One struct stands for named parameters, unless it can only be the first parameter itself.
        let named = members.keys().all(|key| names.contains(&key.as_str()));
        return match names.first() {
            Some(first) if !named && secrets.contains(first) => json!({ *first: HIDDEN }),
            _ => summary.members(members, 1),
        };
    }
    if names.is_empty() {
        return summary.items(params, 1);
    }
    let mut object = Map::new();
    for (name, value) in names.iter().zip(params) {
        object.insert((*name).to_owned(), summary.member(name, value, 1));
    }
    if params.len() > names.len() {
        object.insert("(more)".to_owned(), (params.len() - names.len()).into());
    }
    Json::Object(object)
}

/// A result for its record, at most about 2 KiB.
pub fn summarise_result(result: &Value, secrets: &[&str]) -> Json {
    Summary { secrets, left: RESULT_MAX, digest_left: DIGEST_TOTAL }.value(result, 0)
}

/// `text`, or as much of its start as fits in `max` bytes and an ellipsis.
pub(super) fn clip(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
    format!("{}…", &text[..end])
}

struct Summary<'a> {
    secrets: &'a [&'a str],
    /// Bytes of JSON that may still be made; an estimate from above.
    left: usize,
    digest_left: usize,
}

impl Summary<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Json {
        match value {
            Value::Nil => self.take(4, Json::Null),
            Value::Bool(truth) => self.take(5, (*truth).into()),
            Value::Int(number) => self.take(20, (*number).into()),
            Value::Double(number) => self.take(24, (*number).into()),
            Value::DateTime(moment) => self.take(19, moment.to_string().into()),
            // A control character takes six bytes of JSON.
            Value::String(text) if text.len() <= TEXT_MAX => {
                let length = text.chars().map(|c| if c.is_control() { 6 } else { c.len_utf8() + 1 }).sum();
                self.take(length, text.as_str().into())
            }
            Value::String(text) => self.bulk(text.as_bytes()),
            Value::Bytes(bytes) => self.bulk(bytes),
            Value::Array(items) if depth < DEPTH_MAX => self.items(items, depth + 1),
            Value::Array(items) => self.take(16, json!({ "items": items.len() })),
            Value::Struct(members) if depth < DEPTH_MAX => self.members(members, depth + 1),
            Value::Struct(members) => self.take(16, json!({ "members": members.len() })),
        }
    }

    fn items(&mut self, items: &[Value], depth: usize) -> Json {
        let mut array = Vec::with_capacity(items.len().min(ITEMS_MAX));
        for item in items.iter().take(ITEMS_MAX) {
            if self.left == 0 {
                break;
            }
            array.push(self.value(item, depth));
        }
        if array.len() < items.len() {
            array.push(json!({ "more": items.len() - array.len() }));
        }
        Json::Array(array)
    }

    fn members(&mut self, members: &Struct, depth: usize) -> Json {
        let mut object = Map::new();
        let mut written = 0;
        for (name, value) in members.iter().take(ITEMS_MAX) {
            if self.left == 0 {
                break;
            }
            object.insert(clip(name, TEXT_MAX), self.member(name, value, depth));
            written += 1;
        }
        if written < members.len() {
            object.insert("(more)".to_owned(), (members.len() - written).into());
        }
        Json::Object(object)
    }

    fn member(&mut self, name: &str, value: &Value, depth: usize) -> Json {
        self.left = self.left.saturating_sub(name.len().min(TEXT_MAX) + 4);
        match self.secrets.contains(&name) {
            true => self.take(HIDDEN.len(), HIDDEN.into()),
            false => self.value(value, depth),
        }
    }

    fn bulk(&mut self, bytes: &[u8]) -> Json {
        let mut bulk = json!({ "len": bytes.len() });
        if bytes.len() <= DIGEST_MAX && bytes.len() <= self.digest_left && self.left >= 100 {
            self.digest_left -= bytes.len();
            bulk["sha256"] = LineHash::of(bytes).to_string().into();
            return self.take(100, bulk);
        }
        self.take(16, bulk)
    }

    fn take(&mut self, size: usize, json: Json) -> Json {
        if size > self.left {
            self.left = 0;
            return json!({ "cut": size });
        }
        self.left = self.left.saturating_sub(size + 3);
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["user", "password", "options"];

    #[test]
    fn a_secret_is_hidden_by_position_by_name_and_however_deep() {
        let deep = Value::object([("password", "x-secret".into()), ("shell", "/bin/sh".into())]);
        let positional = [Value::from("alice"), "x-secret".into(), Value::Array(vec![deep.clone()])];
        let named = [Value::object([("user", "alice".into()), ("password", deep), ("options", Value::Nil)])];
        for params in [&positional[..], &named] {
            let json = summarise(params, NAMES, &["password"]);
            assert!(!json.to_string().contains("x-secret"), "{json}");
            assert_eq!(json["password"], HIDDEN);
            assert_eq!(json["user"], "alice");
        }
    }

    #[test]
    fn a_struct_that_is_the_secret_first_parameter_itself_is_hidden() {
        let json = summarise(&[Value::object([("TOKEN", "x-secret".into())])], &["env", "argv"], &["env"]);
        assert_eq!(json, json!({ "env": "<hidden>" }));
    }

    #[test]
    fn bulk_becomes_its_size_and_up_to_64_kib_its_digest() {
        let text = "a".repeat(300);
        let json = summarise(&[text.clone().into(), Value::Bytes(vec![0; 70_000].into())], &["text", "data"], &[]);
        assert_eq!(json["text"], json!({ "len": 300, "sha256": LineHash::of(text.as_bytes()).to_string() }));
        assert_eq!(json["data"], json!({ "len": 70_000 }));
    }

    #[test]
    fn long_lists_and_deep_nesting_are_cut_with_a_count() {
        let json = summarise(&[Value::Array(vec![Value::Int(1); 40])], &["list"], &[]);
        assert_eq!(json["list"].as_array().unwrap().len(), 33);
        assert_eq!(json["list"][32], json!({ "more": 8 }));
        let deep = (0..20).fold(Value::Nil, |inner, _| Value::Array(vec![inner]));
        let json = summarise(&[deep], &["deep"], &[]).to_string();
        assert_eq!(json, r#"{"deep":[[[[[{"items":1}]]]]]}"#);
    }

    #[test]
    fn whatever_the_parameters_a_summary_stays_within_its_bound() {
        let wide = |item: Value| Value::Array(vec![item; 32]);
        // Bytes are shared by their clones: the large leaf is there once.
        let large = bytes::Bytes::from(vec![b'x'; 64 << 10]);
        let leaves = ["\u{1}".repeat(256).into(), "é".repeat(128).into(), "x".repeat(256).into(), Value::Bytes(large)];
        for leaf in leaves {
            let members: Struct = (0..32).map(|n| (format!("{}{n}", "k".repeat(300)), leaf.clone())).collect();
            let value = wide(wide(Value::Struct(members)));
            let json = summarise(std::slice::from_ref(&value), &["v"], &[]).to_string();
            assert!(json.len() < PARAMS_MAX + 4096, "{}", json.len());
            let json = summarise_result(&value, &[]).to_string();
            assert!(json.len() < RESULT_MAX + 2048, "{}", json.len());
        }
    }

    #[test]
    fn clipping_never_splits_a_character() {
        assert_eq!(clip("aé", 2), "a…");
        assert_eq!(clip("aé", 3), "aé");
    }
}
