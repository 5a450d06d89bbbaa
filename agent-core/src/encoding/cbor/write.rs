//! Values as CBOR: definite lengths, the shortest heads, doubles in 64 bits.

use std::convert::Infallible;

use bytes::Bytes;
use minicbor::Encoder;
use minicbor::encode::Error;

use super::DATE_TIME;
use crate::encoding::tree::Size;
use crate::rpc::{Fault, Value};

pub(super) struct Writer(Encoder<Vec<u8>>);

impl Writer {
    pub(super) fn for_size(size: &Size) -> Self {
        let envelope = 256;
        Self(Encoder::new(Vec::with_capacity(envelope + size.text + size.bytes + 9 * size.values)))
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.0.into_writer().into()
    }

    pub(super) fn map(&mut self, members: usize) -> Result<(), Fault> {
        done(self.0.map(members as u64))
    }

    pub(super) fn array(&mut self, items: usize) -> Result<(), Fault> {
        done(self.0.array(items as u64))
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), Fault> {
        done(self.0.str(text))
    }

    /// Recursion ends at [`crate::rpc::MAX_DEPTH`]: the value was measured.
    pub(super) fn value(&mut self, value: &Value) -> Result<(), Fault> {
        match value {
            Value::Nil => done(self.0.null()),
            Value::Bool(truth) => done(self.0.bool(*truth)),
            Value::Int(number) => done(self.0.i64(*number)),
            Value::Double(number) => done(self.0.f64(*number)),
            Value::String(text) => self.text(text),
            Value::Bytes(bytes) => done(self.0.bytes(bytes)),
            Value::DateTime(moment) => {
                done(self.0.tag(DATE_TIME))?;
                self.text(&moment.to_string())
            }
            Value::Array(items) => {
                self.array(items.len())?;
                items.iter().try_for_each(|item| self.value(item))
            }
            Value::Struct(members) => {
                self.map(members.len())?;
                members.iter().try_for_each(|(name, member)| {
                    self.text(name)?;
                    self.value(member)
                })
            }
        }
    }
}

/// Writing to memory does not fail, but minicbor's encoder has an error type for its own refusals.
fn done(written: Result<&mut Encoder<Vec<u8>>, Error<Infallible>>) -> Result<(), Fault> {
    written.map(drop).map_err(|error| Fault::internal(format!("CBOR: {error}")))
}
