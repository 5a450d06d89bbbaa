//! Between [`Value`] and a module's own types, by serde.
//!
//! | Rust | value |
//! |---|---|
//! | `Option` | nil or the value; a struct's field that is `None` is left out, and one that is missing reads as `None` |
//! | integers | int; a `u64` above `i64::MAX` is refused |
//! | `f32`, `f64` | double; an int reads as one too |
//! | `String`, `char` | string; reads a date and time, and bytes that are UTF-8 (how XML carries control characters) |
//! | [`super::Blob`], other byte buffers | bytes |
//! | `Vec`, tuples, `Vec<u8>` | array |
//! | structs, maps with string keys | struct |
//! | enums | the variant's name; with content a struct of that one member |

mod de;
mod ser;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Fault, Value};

/// A module's result as a value.
///
/// # Errors
/// [`super::FaultCode::Internal`] for what no encoding can carry (a map with keys that are not strings, an integer
/// outside 64 bits signed, nesting deeper than [`super::MAX_DEPTH`]).
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, Fault> {
    value.serialize(ser::ValueSerializer::new()).map_err(|error| Fault::internal(format!("the result: {error}")))
}

/// A value as a module's own type.
///
/// # Errors
/// [`super::FaultCode::InvalidParams`] with the parameter's name, what was expected and what came.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Fault> {
    T::deserialize(de::ValueDeserializer(value)).map_err(|error| Fault::invalid_params(error.to_string()))
}

#[cfg(test)]
mod tests;
