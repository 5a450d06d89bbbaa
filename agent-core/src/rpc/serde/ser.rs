//! serde's `Serializer` into a [`Value`].

use std::fmt;

use bytes::Bytes;
use serde::ser::{
    self, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

use crate::rpc::{MAX_DEPTH, Struct, Value};

/// What no value can hold.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(String);

impl ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Makes one value, at most so many levels deep.
#[derive(Clone, Copy)]
pub(super) struct ValueSerializer {
    depth: usize,
}

impl ValueSerializer {
    pub(super) fn new() -> Self {
        Self { depth: MAX_DEPTH }
    }

    fn deeper(self) -> Result<Self, Error> {
        let depth = self.depth.checked_sub(1);
        depth.map(|depth| Self { depth }).ok_or_else(|| Error(format!("it nests deeper than {MAX_DEPTH} levels")))
    }

    fn items(self, variant: Option<&'static str>, length: usize) -> Result<Items, Error> {
        let outer = if variant.is_some() { self.deeper()? } else { self };
        // The length is our own type's word, not a peer's.
        Ok(Items { variant, items: Vec::with_capacity(length.min(1024)), inner: outer.deeper()? })
    }

    fn members(self, variant: Option<&'static str>) -> Result<Members, Error> {
        let outer = if variant.is_some() { self.deeper()? } else { self };
        Ok(Members { variant, members: Struct::new(), key: None, inner: outer.deeper()? })
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, number: $type) -> Result<Value, Error> {
            i64::try_from(number)
                .map(Value::Int)
                .map_err(|_| Error(format!("the integer {number} does not fit in 64 bits signed")))
        }
    )*};
}

impl Serializer for ValueSerializer {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Members;
    type SerializeStruct = Members;
    type SerializeStructVariant = Members;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128
    }

    fn serialize_bool(self, truth: bool) -> Result<Value, Error> {
        Ok(Value::Bool(truth))
    }

    fn serialize_f32(self, number: f32) -> Result<Value, Error> {
        self.serialize_f64(number.into())
    }

    fn serialize_f64(self, number: f64) -> Result<Value, Error> {
        match number.is_finite() {
            true => Ok(Value::Double(number)),
            false => Err(Error(format!("the double {number} is not finite"))),
        }
    }

    fn serialize_char(self, character: char) -> Result<Value, Error> {
        Ok(Value::String(character.into()))
    }

    fn serialize_str(self, text: &str) -> Result<Value, Error> {
        Ok(Value::String(text.to_owned()))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Value, Error> {
        Ok(Value::Bytes(Bytes::copy_from_slice(bytes)))
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Ok(Value::Nil)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, Error> {
        Ok(Value::Nil)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Error> {
        Ok(Value::Nil)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Error> {
        Ok(Value::String(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Value, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        Ok(Value::object([(variant, value.serialize(self.deeper()?)?)]))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items, Error> {
        self.items(None, length.unwrap_or_default())
    }

    fn serialize_tuple(self, length: usize) -> Result<Items, Error> {
        self.items(None, length)
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items, Error> {
        self.items(None, length)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items, Error> {
        self.items(Some(variant), length)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members, Error> {
        self.members(None)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members, Error> {
        self.members(None)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members, Error> {
        self.members(Some(variant))
    }
}

/// An array on the way.
pub(super) struct Items {
    variant: Option<&'static str>,
    items: Vec<Value>,
    inner: ValueSerializer,
}

impl Items {
    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        self.items.push(item.serialize(self.inner)?);
        Ok(())
    }

    fn finish(self) -> Value {
        in_variant(self.variant, Value::Array(self.items))
    }
}

/// A struct on the way.
pub(super) struct Members {
    variant: Option<&'static str>,
    members: Struct,
    key: Option<String>,
    inner: ValueSerializer,
}

impl Members {
    /// A field without a value is left out: nil is an extension that not every XML-RPC library reads.
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, field: &T) -> Result<(), Error> {
        match field.serialize(self.inner).map_err(|Error(message)| Error(format!("`{name}`: {message}")))? {
            Value::Nil => {}
            value => drop(self.members.insert(name.to_owned(), value)),
        }
        Ok(())
    }

    fn finish(self) -> Value {
        in_variant(self.variant, Value::Struct(self.members))
    }
}

fn in_variant(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(variant) => Value::object([(variant, value)]),
        None => value,
    }
}

macro_rules! item_sinks {
    ($($sink:ident: $method:ident),*) => {$(
        impl $sink for Items {
            type Ok = Value;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
                self.push(item)
            }

            fn end(self) -> Result<Value, Error> {
                Ok(self.finish())
            }
        }
    )*};
}

item_sinks! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field
}

macro_rules! field_sinks {
    ($($sink:ident),*) => {$(
        impl $sink for Members {
            type Ok = Value;
            type Error = Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, field: &T) -> Result<(), Error> {
                self.field(name, field)
            }

            fn end(self) -> Result<Value, Error> {
                Ok(self.finish())
            }
        }
    )*};
}

field_sinks! { SerializeStruct, SerializeStructVariant }

impl SerializeMap for Members {
    type Ok = Value;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        match key.serialize(self.inner)? {
            Value::String(name) => {
                self.key = Some(name);
                Ok(())
            }
            other => Err(Error(format!("a map's keys must be strings, not {}", other.type_name()))),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let name = self.key.take().ok_or_else(|| Error("a map's value without its key".to_owned()))?;
        self.members.insert(name, value.serialize(self.inner)?);
        Ok(())
    }

    fn end(self) -> Result<Value, Error> {
        Ok(self.finish())
    }
}
