//! Between [`Value`] and a module's own types, by serde.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Fault, Value};

/// A module's result as a value.
///
/// # Errors
/// [`super::FaultCode::Internal`] for what no encoding can carry (a map with keys that are not strings, an integer
/// outside 64 bits signed).
pub fn to_value<T: Serialize + ?Sized>(_value: &T) -> Result<Value, Fault> {
    Err(Fault::internal("to come"))
}

/// A value as a module's own type.
///
/// # Errors
/// [`super::FaultCode::InvalidParams`] with what was expected and what came.
pub fn from_value<T: DeserializeOwned>(_value: Value) -> Result<T, Fault> {
    Err(Fault::internal("to come"))
}
