//! Values from CBOR, on an explicit stack.
//!
//! Takes definite and indefinite lengths, and floats of any width. Allocates as items arrive, never by a claimed length.

use bytes::Bytes;
use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

use super::DATE_TIME;
use crate::encoding::tree::{Budget, Kind, Tree, invalid, malformed};
use crate::rpc::{Fault, Value};

/// What is left of an open array or map: so many items or members, or until the break.
type Left = Option<u64>;

pub(super) struct Reader<'a> {
    body: &'a Bytes,
    decoder: Decoder<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a Bytes) -> Self {
        Self { body, decoder: Decoder::new(body) }
    }

    /// Refuses anything after the item.
    pub(super) fn end(&self) -> Result<(), Fault> {
        match self.body.len() - self.decoder.position() {
            0 => Ok(()),
            more => Err(malformed(format!("CBOR: {more} bytes after the item's end"))),
        }
    }

    /// Reads a map, calling `member` before each value with the member's name.
    pub(super) fn map(
        &mut self,
        what: &str,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if !matches!(self.kind()?, Type::Map | Type::MapIndef) {
            return Err(invalid(format!("{what} must be a CBOR map")));
        }
        let mut left = self.decoder.map().map_err(parse)?;
        while self.another(&mut left)? {
            let name = self.name()?;
            member(self, &name)?;
        }
        Ok(())
    }

    /// Reads an array of values.
    pub(super) fn values(&mut self, budget: &mut Budget) -> Result<Vec<Value>, Fault> {
        if !matches!(self.kind()?, Type::Array | Type::ArrayIndef) {
            return Err(invalid("\"params\" must be a CBOR array"));
        }
        let mut left = self.decoder.array().map_err(parse)?;
        let mut values = Vec::new();
        while self.another(&mut left)? {
            values.push(self.value(budget)?);
        }
        Ok(values)
    }

    /// Reads one value.
    pub(super) fn value(&mut self, budget: &mut Budget) -> Result<Value, Fault> {
        let mut tree = Tree::default();
        let mut open: Vec<Left> = Vec::new();
        loop {
            let mut whole = match self.kind()? {
                Type::Array | Type::ArrayIndef => {
                    tree.open_array(budget)?;
                    open.push(self.decoder.array().map_err(parse)?);
                    None
                }
                Type::Map | Type::MapIndef => {
                    tree.open_struct(budget)?;
                    open.push(self.decoder.map().map_err(parse)?);
                    None
                }
                kind => {
                    let value = self.scalar(kind)?;
                    tree.scalar(value, budget)?
                }
            };
            // End what has no more items, then come to the next value.
            loop {
                if let Some(whole) = whole {
                    return Ok(whole);
                }
                let Some(left) = open.last_mut() else { return Err(Fault::internal("CBOR: a value without an end")) };
                if another(&mut self.decoder, left)? {
                    if tree.innermost() == Some(Kind::Struct) {
                        tree.name(self.name()?, budget)?;
                    }
                    break;
                }
                open.pop();
                whole = tree.close();
            }
        }
    }

    fn scalar(&mut self, kind: Type) -> Result<Value, Fault> {
        let decoder = &mut self.decoder;
        let at = decoder.position();
        let value = match kind {
            Type::Null | Type::Undefined => {
                decoder.set_position(at + 1);
                Value::Nil
            }
            Type::Bool => Value::Bool(decoder.bool().map_err(parse)?),
            Type::U8 | Type::U16 | Type::U32 | Type::I8 | Type::I16 | Type::I32 | Type::I64 => {
                Value::Int(decoder.i64().map_err(parse)?)
            }
            Type::U64 | Type::Int => {
                let number = decoder.int().map_err(parse)?;
                let fits = i64::try_from(number);
                Value::Int(fits.map_err(|_| invalid(format!("the integer {number} does not fit in 64 bits signed")))?)
            }
            Type::F16 => {
                let Some(&[high, low]) = self.body.get(at + 1..at + 3).and_then(|half| half.first_chunk()) else {
                    return Err(malformed("CBOR: the body ends too early"));
                };
                decoder.set_position(at + 3);
                double(half(u16::from_be_bytes([high, low])))?
            }
            Type::F32 => double(decoder.f32().map_err(parse)?.into())?,
            Type::F64 => double(decoder.f64().map_err(parse)?)?,
            Type::String | Type::StringIndef => Value::String(self.text()?),
            Type::Bytes => Value::Bytes(self.body.slice_ref(decoder.bytes().map_err(parse)?)),
            Type::BytesIndef => {
                let mut bytes = Vec::new();
                for chunk in decoder.bytes_iter().map_err(parse)? {
                    bytes.extend_from_slice(chunk.map_err(parse)?);
                }
                Value::Bytes(bytes.into())
            }
            Type::Tag => {
                let tag = decoder.tag().map_err(parse)?;
                if tag != DATE_TIME {
                    let known = DATE_TIME.as_u64();
                    return Err(invalid(format!(
                        "CBOR: tag {} is not taken (only {known}, a date and time)",
                        tag.as_u64()
                    )));
                }
                if !matches!(self.kind()?, Type::String | Type::StringIndef) {
                    return Err(invalid("CBOR: a date and time must be text"));
                }
                Value::DateTime(self.text()?.parse().map_err(|error| invalid(format!("{error}")))?)
            }
            Type::Simple => return Err(invalid(format!("CBOR: a simple value without a meaning at byte {at}"))),
            Type::Break => return Err(malformed(format!("CBOR: a break where a value is due, at byte {at}"))),
            _ => return Err(malformed(format!("CBOR: no item begins like byte {at}"))),
        };
        Ok(value)
    }

    fn name(&mut self) -> Result<String, Fault> {
        match self.kind()? {
            Type::String | Type::StringIndef => self.text(),
            Type::Break => Err(malformed("CBOR: a break in the middle of a map's member")),
            other => Err(invalid(format!("CBOR: a map's keys must be text, not {other}"))),
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        if self.kind()? == Type::String {
            return Ok(self.decoder.str().map_err(parse)?.to_owned());
        }
        let mut text = String::new();
        for chunk in self.decoder.str_iter().map_err(parse)? {
            text.push_str(chunk.map_err(parse)?);
        }
        Ok(text)
    }

    fn kind(&self) -> Result<Type, Fault> {
        self.decoder.datatype().map_err(parse)
    }

    fn another(&mut self, left: &mut Left) -> Result<bool, Fault> {
        another(&mut self.decoder, left)
    }
}

/// Whether an open array or map has one more; takes the break at the end of an indefinite one.
fn another(decoder: &mut Decoder, left: &mut Left) -> Result<bool, Fault> {
    match left {
        Some(0) => Ok(false),
        Some(count) => {
            *count -= 1;
            Ok(true)
        }
        None if decoder.datatype().map_err(parse)? == Type::Break => {
            decoder.set_position(decoder.position() + 1);
            Ok(false)
        }
        None => Ok(true),
    }
}

fn double(number: f64) -> Result<Value, Fault> {
    match number.is_finite() {
        true => Ok(Value::Double(number)),
        false => Err(invalid(format!("CBOR: the double {number} is not finite"))),
    }
}

/// IEEE 754 binary16, after RFC 8949, appendix D.
fn half(bits: u16) -> f64 {
    let exponent = i32::from((bits >> 10) & 0x1f);
    let mantissa = f64::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

fn parse(error: Error) -> Fault {
    match error.is_end_of_input() {
        true => malformed("CBOR: the body ends too early"),
        false => malformed(format!("CBOR: {error}")),
    }
}
