//! Values as XML-RPC.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use quick_xml::escape::partial_escape;

use crate::encoding::base64;
use crate::encoding::tree::{Size, shortened};
use crate::rpc::{Fault, Value};

pub(super) struct Writer(String);

impl Writer {
    pub(super) fn for_size(size: &Size) -> Self {
        let envelope = 256;
        // `<value><string></string></value>` is 32 bytes.
        let mut text = String::with_capacity(envelope + size.text + base64::encoded_len(size.bytes) + 40 * size.values);
        text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        Self(text)
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into_bytes().into()
    }

    pub(super) fn raw(&mut self, xml: &str) {
        self.0.push_str(xml);
    }

    /// A value in its `<value>`. Recursion ends at [`crate::rpc::MAX_DEPTH`]: the value was measured.
    pub(super) fn value(&mut self, value: &Value) -> Result<(), Fault> {
        self.raw("<value>");
        match value {
            Value::Nil => self.raw("<nil/>"),
            Value::Bool(truth) => self.element("boolean", if *truth { "1" } else { "0" }),
            Value::Int(number) => {
                let name = if i32::try_from(*number).is_ok() { "int" } else { "i8" };
                self.element(name, number);
            }
            // Display never writes an exponent, which XML-RPC's double does not have.
            Value::Double(number) => self.element("double", number),
            Value::String(text) if text.chars().all(is_xml) => self.element("string", partial_escape(text.as_str())),
            Value::String(text) => self.base64(text.as_bytes()),
            Value::Bytes(bytes) => self.base64(bytes),
            Value::DateTime(moment) => self.element("dateTime.iso8601", moment),
            Value::Array(items) => {
                self.raw("<array><data>");
                items.iter().try_for_each(|item| self.value(item))?;
                self.raw("</data></array>");
            }
            Value::Struct(members) => {
                self.raw("<struct>");
                for (name, member) in members {
                    if !name.chars().all(is_xml) {
                        let name = shortened(name);
                        return Err(Fault::internal(format!(
                            "XML can't carry the member name {name}; use JSON or CBOR"
                        )));
                    }
                    self.raw("<member>");
                    self.element("name", partial_escape(name.as_str()));
                    self.value(member)?;
                    self.raw("</member>");
                }
                self.raw("</struct>");
            }
        }
        self.raw("</value>");
        Ok(())
    }

    fn element(&mut self, name: &str, content: impl std::fmt::Display) {
        // Writing to a String does not fail.
        let _ = write!(self.0, "<{name}>{content}</{name}>");
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.raw("<base64>");
        base64::encode_into(bytes, &mut self.0);
        self.raw("</base64>");
    }
}

/// Whether XML 1.0 has that character, be it as a reference (`Char` of the recommendation).
pub(super) fn is_xml(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// A text for people, with U+FFFD for what XML can't carry.
pub(super) fn carryable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_xml) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|character| if is_xml(character) { character } else { '\u{fffd}' }).collect()
}
