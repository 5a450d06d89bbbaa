//! What a parameter type says of itself: its field names in order, and XML-RPC's view of its JSON schema.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde_json::Value as Json;

/// A type's JSON schema, whole in itself: what it is made of stands in its place, not behind a reference.
pub(super) fn of<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::default().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

/// The fields of a struct in the order of its declaration, as serde's derive hands them to a deserializer.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The error is the point: it stops before anything is deserialized.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

struct FieldNames<'a>(&'a mut &'static [&'static str]);

#[derive(Debug, thiserror::Error)]
#[error("field names only")]
struct Stop;

impl de::Error for Stop {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        Err(Stop)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Stop> {
        *self.0 = fields;
        Err(Stop)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// XML-RPC's name for what a JSON schema describes.
pub(super) fn xmlrpc_type(schema: &Json) -> &'static str {
    if schema.get("contentEncoding").is_some() {
        return "base64";
    }
    let kind = match schema.get("type") {
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null"),
        Some(kind) => kind.as_str(),
        None => schema
            .get("anyOf")
            .or_else(|| schema.get("oneOf"))
            .and_then(Json::as_array)
            .and_then(|choices| choices.iter().map(xmlrpc_type).find(|kind| *kind != "nil"))
            .map(|kind| if kind == "undef" { "struct" } else { kind }),
    };
    match kind {
        Some("boolean") => "boolean",
        Some("integer" | "int") => "int",
        Some("number" | "double") => "double",
        Some("string") => "string",
        Some("base64") => "base64",
        Some("array") => "array",
        Some("object" | "struct") => "struct",
        Some("null" | "nil") => "nil",
        _ if schema.get("$ref").is_some() => "struct",
        _ if schema.get("enum").is_some() || schema.get("const").is_some() => "string",
        _ => "undef",
    }
}

/// The XML-RPC type of each property, in order.
pub(super) fn property_types(schema: &Schema) -> Vec<&'static str> {
    match schema.get("properties") {
        Some(Json::Object(properties)) => properties.values().map(xmlrpc_type).collect(),
        _ => Vec::new(),
    }
}

/// Whether the first property takes a struct, so that one struct alone may be it rather than all the names.
pub(super) fn first_property_is_object(schema: &Schema) -> bool {
    property_types(schema).first().is_some_and(|kind| matches!(*kind, "struct" | "undef"))
}
