//! Values as JSON text. What it is given was measured before, so it can't fail.

use bytes::Bytes;

use super::Size;
use crate::encoding::base64;
use crate::rpc::{Struct, Value};

pub(super) struct Writer(String);

impl Writer {
    pub(super) fn for_size(size: &Size) -> Self {
        let envelope = 256;
        Self(String::with_capacity(envelope + size.text + base64::encoded_len(size.bytes) + 8 * size.values))
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into_bytes().into()
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }

    pub(super) fn raw(&mut self, json: &str) {
        self.0.push_str(json);
    }

    /// A string in quotes: `"`, `\` and control characters escaped, everything else as it is.
    pub(super) fn string(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.0.push('"');
        let mut written = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.0.push_str(&text[written..at]);
            written = at + 1;
            match byte {
                b'"' => self.0.push_str("\\\""),
                b'\\' => self.0.push_str("\\\\"),
                b'\n' => self.0.push_str("\\n"),
                b'\r' => self.0.push_str("\\r"),
                b'\t' => self.0.push_str("\\t"),
                _ => {
                    self.0.push_str("\\u00");
                    self.0.push(char::from(HEX[usize::from(byte >> 4)]));
                    self.0.push(char::from(HEX[usize::from(byte & 15)]));
                }
            }
        }
        self.0.push_str(&text[written..]);
        self.0.push('"');
    }

    /// Recursion ends at [`crate::rpc::MAX_DEPTH`]: the value was measured.
    pub(super) fn value(&mut self, value: &Value) {
        match value {
            Value::Nil => self.raw("null"),
            Value::Bool(truth) => self.raw(if *truth { "true" } else { "false" }),
            Value::Int(number) => self.raw(&number.to_string()),
            // Debug writes the shortest digits that read back the same, always with `.` or an exponent.
            Value::Double(number) => self.raw(&format!("{number:?}")),
            Value::String(text) => self.string(text),
            Value::Bytes(bytes) => {
                self.raw("{\"$base64\":\"");
                base64::encode_into(bytes, &mut self.0);
                self.raw("\"}");
            }
            Value::DateTime(moment) => self.raw(&format!("{{\"$dateTime\":\"{moment}\"}}")),
            Value::Array(items) => {
                self.raw("[");
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.raw(",");
                    }
                    self.value(item);
                }
                self.raw("]");
            }
            Value::Struct(members) => self.members(members),
        }
    }

    fn members(&mut self, members: &Struct) {
        let alone = members.len() == 1;
        self.raw("{");
        for (index, (name, member)) in members.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            if alone && name.starts_with('$') {
                self.string(&format!("${name}"));
            } else {
                self.string(name);
            }
            self.raw(":");
            self.value(member);
        }
        self.raw("}");
    }
}
