//! JSON-RPC 2.0.
//!
//! Owns the envelope: `{"jsonrpc": "2.0", "id": TAG, "method": ..., "params": [...]}` and its reply. A reply is matched by
//! its frame's tag; its `id` is the call's own, as the specification has it, and in our calls the tag. Batches are refused: a link
//! pipelines calls, and `system.multicall` groups them.

mod read;
mod write;

use bytes::Bytes;

use self::read::Reader;
use self::write::Writer;
use super::tree::{Budget, Size, invalid, measure, twice};
use crate::rpc::{Call, Fault, Outcome, Struct, Tag, Value};

pub(super) fn encode_call(call: &Call, tag: &Tag) -> Result<Bytes, Fault> {
    let mut out = Writer::for_size(&measure(&call.params)?);
    open_envelope(&mut out, tag);
    out.raw(",\"method\":");
    out.string(call.method.as_str());
    out.raw(",\"params\":[");
    for (index, value) in call.params.iter().enumerate() {
        if index > 0 {
            out.raw(",");
        }
        out.value(value);
    }
    out.raw("]}");
    Ok(out.into_bytes())
}

pub(super) fn encode_outcome(outcome: &Outcome, tag: &Tag, id: Option<&Value>) -> Result<Bytes, Fault> {
    let mut out = match outcome {
        Ok(value) => Writer::for_size(&measure([value])?),
        Err(fault) => Writer::for_size(&measure(fault.data.as_deref())?),
    };
    match id {
        Some(id) => {
            out.raw("{\"jsonrpc\":\"2.0\",\"id\":");
            out.value(id);
        }
        None => open_envelope(&mut out, tag),
    }
    match outcome {
        Ok(value) => {
            out.raw(",\"result\":");
            out.value(value);
        }
        Err(fault) => {
            out.raw(",\"error\":{\"code\":");
            out.raw(&fault.code.to_string());
            out.raw(",\"message\":");
            out.string(&fault.message);
            if let Some(data) = &fault.data {
                out.raw(",\"data\":");
                out.value(data);
            }
            out.raw("}");
        }
    }
    out.raw("}");
    Ok(out.into_bytes())
}

pub(super) fn encode_value(value: &Value) -> Result<String, Fault> {
    let mut out = Writer::for_size(&measure([value])?);
    out.value(value);
    Ok(out.into_string())
}

fn open_envelope(out: &mut Writer, tag: &Tag) {
    out.raw("{\"jsonrpc\":\"2.0\",\"id\":");
    out.string(tag.as_str());
}

pub(super) fn decode_call(body: &Bytes) -> Result<(Call, Option<Value>), Fault> {
    let envelope = Envelope::read(body)?;
    let Some(method) = envelope.method else {
        return Err(invalid("a JSON-RPC call needs the member \"method\""));
    };
    let method = method.as_str().ok_or_else(|| invalid("\"method\" must be a string"))?;
    let method = method.parse().map_err(|error| invalid(format!("{error}")))?;
    Ok((Call { method, params: envelope.params.unwrap_or_default() }, envelope.id))
}

pub(super) fn decode_outcome(body: &Bytes) -> Result<Outcome, Fault> {
    let envelope = Envelope::read(body)?;
    match (envelope.result, envelope.error) {
        (Some(value), None) => Ok(Ok(value)),
        (None, Some(fault)) => Ok(Err(fault)),
        _ => Err(invalid("a JSON-RPC reply needs either \"result\" or \"error\"")),
    }
}

pub(super) fn decode_value(text: &str) -> Result<Value, Fault> {
    let mut reader = Reader::new(text);
    let value = reader.value(&mut Budget::new())?;
    reader.end()?;
    Ok(value)
}

/// A call's or a reply's members. Others are read and dropped, so that a newer peer may add some.
#[derive(Default)]
struct Envelope {
    version: Option<Value>,
    id: Option<Value>,
    method: Option<Value>,
    params: Option<Vec<Value>>,
    result: Option<Value>,
    error: Option<Fault>,
}

impl Envelope {
    fn read(body: &Bytes) -> Result<Self, Fault> {
        let text = std::str::from_utf8(body).map_err(|error| super::tree::malformed(format!("JSON: {error}")))?;
        let mut reader = Reader::new(text);
        let mut envelope = Self::default();
        match reader.peek()? {
            b'{' => {}
            b'[' => return Err(invalid("batches are not taken: send each call in its own frame, or system.multicall")),
            _ => {
                reader.value(&mut Budget::new())?;
                return Err(invalid("a JSON-RPC body must be an object"));
            }
        }
        reader.object(|reader, name| match name {
            "jsonrpc" => once(&mut envelope.version, name, reader.value(&mut Budget::new())?),
            "id" => once(&mut envelope.id, name, reader.value(&mut Budget::new())?),
            "method" => once(&mut envelope.method, name, reader.value(&mut Budget::new())?),
            "params" => once(&mut envelope.params, name, params(reader)?),
            "result" => once(&mut envelope.result, name, reader.value(&mut Budget::new())?),
            "error" => once(&mut envelope.error, name, fault(reader)?),
            _ => reader.value(&mut Budget::new()).map(drop),
        })?;
        reader.end()?;
        if envelope.version.as_ref().and_then(Value::as_str) != Some("2.0") {
            return Err(invalid("a JSON-RPC body needs \"jsonrpc\": \"2.0\""));
        }
        match &envelope.id {
            None | Some(Value::Nil | Value::Int(_) | Value::Double(_) | Value::String(_)) => Ok(envelope),
            Some(other) => {
                Err(invalid(format!("\"id\" must be a string, a number or null, not a {}", other.type_name())))
            }
        }
    }
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}

fn params(reader: &mut Reader) -> Result<Vec<Value>, Fault> {
    let mut budget = Budget::new();
    match reader.peek()? {
        b'[' => {
            let mut params = Vec::new();
            reader.array(|reader| {
                params.push(reader.value(&mut budget)?);
                Ok(())
            })?;
            Ok(params)
        }
        _ => match reader.value(&mut budget)? {
            named @ Value::Struct(_) => Ok(vec![named]),
            other => Err(invalid(format!("\"params\" must be an array or an object, not a {}", other.type_name()))),
        },
    }
}

fn fault(reader: &mut Reader) -> Result<Fault, Fault> {
    if reader.peek()? != b'{' {
        return Err(invalid("\"error\" must be an object"));
    }
    let mut members = Struct::new();
    reader.object(|reader, name| {
        let value = reader.value(&mut Budget::new())?;
        match members.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(twice(name)),
        }
    })?;
    super::fault_of(members)
}
