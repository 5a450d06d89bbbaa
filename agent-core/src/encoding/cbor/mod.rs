//! CBOR (RFC 8949), for bulk: bytes stay bytes, and decode without a copy.
//!
//! Owns the envelope: `{"method": text, "params": array}` for a call, `{"result": value}` or
//! `{"fault": {"code": int, "message": text, "data"?: value}}` for a reply. The frame's tag says which call a reply
//! belongs to.

mod read;
mod write;

use bytes::Bytes;
use minicbor::data::Tag as CborTag;

use self::read::Reader;
use self::write::Writer;
use super::tree::{Budget, invalid, measure, twice};
use crate::rpc::{Call, Fault, Outcome, Struct, Value};

/// The tag of a [`crate::rpc::DateTime`], on its text: `VADT` in ASCII, not assigned by IANA.
///
/// The registered ones do not fit: 0 and 1 are moments with a zone, 1004 is a date alone.
pub(super) const DATE_TIME: CborTag = CborTag::new(0x5641_4454);

pub(super) fn encode_call(call: &Call) -> Result<Bytes, Fault> {
    let mut out = Writer::for_size(&measure(&call.params)?);
    out.map(2)?;
    out.text("method")?;
    out.text(call.method.as_str())?;
    out.text("params")?;
    out.array(call.params.len())?;
    call.params.iter().try_for_each(|value| out.value(value))?;
    Ok(out.into_bytes())
}

pub(super) fn encode_outcome(outcome: &Outcome) -> Result<Bytes, Fault> {
    match outcome {
        Ok(value) => {
            let mut out = Writer::for_size(&measure([value])?);
            out.map(1)?;
            out.text("result")?;
            out.value(value)?;
            Ok(out.into_bytes())
        }
        Err(fault) => {
            let data = fault.data.as_deref();
            let mut out = Writer::for_size(&measure(data)?);
            out.map(1)?;
            out.text("fault")?;
            out.map(2 + usize::from(data.is_some()))?;
            out.text("code")?;
            out.value(&Value::Int(fault.code))?;
            out.text("message")?;
            out.text(&fault.message)?;
            if let Some(data) = data {
                out.text("data")?;
                out.value(data)?;
            }
            Ok(out.into_bytes())
        }
    }
}

pub(super) fn decode_call(body: &Bytes) -> Result<Call, Fault> {
    let mut reader = Reader::new(body);
    let (mut method, mut params) = (None, None);
    reader.map("a call", |reader, name| match name {
        "method" => once(&mut method, name, reader.value(&mut Budget::new())?),
        "params" => once(&mut params, name, reader.values(&mut Budget::new())?),
        _ => reader.value(&mut Budget::new()).map(drop),
    })?;
    reader.end()?;
    let Some(method) = method else { return Err(invalid("a CBOR call needs the member \"method\"")) };
    let method = method.as_str().ok_or_else(|| invalid("\"method\" must be text"))?;
    let method = method.parse().map_err(|error| invalid(format!("{error}")))?;
    Ok(Call { method, params: params.unwrap_or_default() })
}

pub(super) fn decode_outcome(body: &Bytes) -> Result<Outcome, Fault> {
    let mut reader = Reader::new(body);
    let (mut result, mut fault) = (None, None);
    reader.map("a reply", |reader, name| match name {
        "result" => once(&mut result, name, reader.value(&mut Budget::new())?),
        "fault" => {
            let mut members = Struct::new();
            reader.map("\"fault\"", |reader, name| {
                let value = reader.value(&mut Budget::new())?;
                match members.insert(name.to_owned(), value) {
                    None => Ok(()),
                    Some(_) => Err(twice(name)),
                }
            })?;
            once(&mut fault, name, super::fault_of(members)?)
        }
        _ => reader.value(&mut Budget::new()).map(drop),
    })?;
    reader.end()?;
    match (result, fault) {
        (Some(value), None) => Ok(Ok(value)),
        (None, Some(fault)) => Ok(Err(fault)),
        _ => Err(invalid("a CBOR reply needs either \"result\" or \"fault\"")),
    }
}

fn once<T>(slot: &mut Option<T>, name: &str, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}
