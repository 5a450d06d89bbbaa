//! serde's `Deserializer` from a [`Value`], with errors that name the parameter.
//!
//! An error never repeats a string's or a blob's content: a parameter may be a secret, and faults are logged.

use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use crate::rpc::{Struct, Value};

/// Why a value does not fit a type, and where in it.
#[derive(Debug)]
pub(super) struct Error {
    /// Names and positions, the innermost first.
    path: Vec<String>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Missing(&'static str),
    Unknown { name: String, known: &'static [&'static str] },
    Other(String),
}

impl Error {
    fn new(problem: Problem) -> Self {
        Self { path: Vec::new(), problem }
    }

    fn within(mut self, segment: String) -> Self {
        self.path.push(segment);
        self
    }

    /// The path, and `last` at its end: `pty.rows`, `argv[2]`.
    fn parameter(&self, last: Option<&str>) -> String {
        let mut path = String::new();
        for segment in self.path.iter().rev().map(String::as_str).chain(last) {
            if !path.is_empty() && !segment.starts_with('[') {
                path.push('.');
            }
            path.push_str(segment);
        }
        path
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Missing(name) => write!(f, "parameter `{}` is missing", self.parameter(Some(name))),
            Problem::Unknown { name, known } => {
                write!(f, "no parameter is called `{}`, ", self.parameter(Some(name)))?;
                match known {
                    [] => write!(f, "none is taken"),
                    known => write!(f, "there are {}", listed(known)),
                }
            }
            Problem::Other(message) if self.path.is_empty() => write!(f, "{message}"),
            Problem::Other(message) => write!(f, "parameter `{}`: {message}", self.parameter(None)),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Problem::Other(message.to_string()))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {}, got {}", Plain(expected), type_of(&unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = Plain(expected);
        match unexpected {
            Unexpected::Signed(number) => Self::custom(format_args!("expected {expected}, got {number}")),
            Unexpected::Unsigned(number) => Self::custom(format_args!("expected {expected}, got {number}")),
            Unexpected::Float(number) => Self::custom(format_args!("expected {expected}, got {number}")),
            other => Self::custom(format_args!("expected {expected}, got {} that is not", type_of(&other))),
        }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let variant = shown(variant);
        match known {
            [] => Self::custom(format_args!("unknown variant `{variant}`, none is taken")),
            known => Self::custom(format_args!("unknown variant `{variant}`, expected one of {}", listed(known))),
        }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Self::new(Problem::Unknown { name: shown(name), known })
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(Problem::Missing(name))
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::custom(format_args!("the parameter `{name}` comes twice, or once by each of its two names"))
    }
}

/// A name that a peer chose, fit for one line of a log.
fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The names of [`Value::type_name`] rather than serde's.
fn type_of(unexpected: &Unexpected<'_>) -> &'static str {
    match unexpected {
        Unexpected::Bool(_) => "boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "int",
        Unexpected::Float(_) => "double",
        Unexpected::Char(_) | Unexpected::Str(_) => "string",
        Unexpected::Bytes(_) => "base64",
        Unexpected::Unit | Unexpected::Option => "nil",
        Unexpected::Seq => "array",
        Unexpected::Map | Unexpected::NewtypeStruct => "struct",
        _ => "something else",
    }
}

/// serde's words for an expectation, without names that only our source has.
struct Plain<'a>(&'a dyn Expected);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.0.to_string();
        match words.split(' ').next() {
            Some("struct") => f.write_str("a struct"),
            Some("tuple") => f.write_str("an array"),
            _ if words == "a sequence" => f.write_str("an array"),
            _ if words == "a map" => f.write_str("a struct"),
            Some("enum") => f.write_str("a string, or a struct of one member"),
            Some("i8" | "i16" | "i32" | "i64") => write!(f, "an int ({words})"),
            Some("u8" | "u16" | "u32" | "u64" | "usize") => write!(f, "an int that is not negative ({words})"),
            Some("f32" | "f64") => f.write_str("a double"),
            _ => f.write_str(&words),
        }
    }
}

/// Reads one value.
pub(super) struct ValueDeserializer(pub(super) Value);

impl ValueDeserializer {
    /// Bytes as the string that they are when they are UTF-8.
    fn textual(self) -> Self {
        match self.0 {
            Value::Bytes(bytes) => match String::from_utf8(bytes.into()) {
                Ok(text) => Self(Value::String(text)),
                Err(error) => Self(Value::Bytes(error.into_bytes().into())),
            },
            other => Self(other),
        }
    }
}

impl<'de> Deserializer<'de> for ValueDeserializer {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Nil => visitor.visit_unit(),
            Value::Bool(truth) => visitor.visit_bool(truth),
            Value::Int(number) => visitor.visit_i64(number),
            Value::Double(number) => visitor.visit_f64(number),
            Value::String(text) => visitor.visit_string(text),
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes.into()),
            Value::DateTime(moment) => visitor.visit_string(moment.to_string()),
            Value::Array(items) => {
                let mut items = Items { next: 0, items: items.into_iter() };
                let value = visitor.visit_seq(&mut items)?;
                match items.items.len() {
                    0 => Ok(value),
                    more => Err(de::Error::custom(format_args!("{more} more than the array may have"))),
                }
            }
            Value::Struct(members) => {
                let mut members = Members { members: members.into_iter(), next: None };
                let value = visitor.visit_map(&mut members)?;
                match members.members.next() {
                    None => Ok(value),
                    Some((name, _)) => Err(Error::new(Problem::Unknown { name: shown(&name), known: &[] })),
                }
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Nil => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.textual().0 {
            Value::String(variant) => visitor.visit_enum(Variant { name: variant, content: None }),
            Value::Struct(members) if members.len() == 1 => {
                let (name, content) = members.into_iter().next().unwrap_or_default();
                visitor.visit_enum(Variant { name, content: Some(content) })
            }
            other => {
                let got = other.type_name();
                Err(de::Error::custom(format_args!("expected a string, or a struct of one member, got {got}")))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.textual().deserialize_any(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.textual().deserialize_any(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.textual().deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier
    }
}

impl IntoDeserializer<'_, Error> for ValueDeserializer {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items {
    next: usize,
    items: std::vec::IntoIter<Value>,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let at = self.next;
        self.next += 1;
        seed.deserialize(ValueDeserializer(item)).map(Some).map_err(|error| error.within(format!("[{at}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members {
    members: <Struct as IntoIterator>::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Members {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.members.next() else { return Ok(None) };
        let key = seed.deserialize(name.as_str().into_deserializer())?;
        self.next = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (name, value) = self.next.take().ok_or_else(|| Error::new(Problem::Missing("a member")))?;
        seed.deserialize(ValueDeserializer(value)).map_err(|error| error.within(shown(&name)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.members.len())
    }
}

/// One variant of an enum: its name, and what it holds.
struct Variant {
    name: String,
    content: Option<Value>,
}

impl<'de> EnumAccess<'de> for Variant {
    type Error = Error;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content), Error> {
        let variant = seed.deserialize(self.name.as_str().into_deserializer())?;
        Ok((variant, Content(self.content)))
    }
}

/// What a variant holds.
struct Content(Option<Value>);

impl Content {
    fn required(self) -> Result<ValueDeserializer, Error> {
        let content = self.0.map(ValueDeserializer);
        content.ok_or_else(|| de::Error::custom("this variant needs content: a struct of its name and the content"))
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.0 {
            // One spelling only, its name: policy compares parameters as text.
            None => Ok(()),
            Some(_) => Err(de::Error::custom("this variant takes no content")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.required()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.required()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Error> {
        self.required()?.deserialize_any(visitor)
    }
}
