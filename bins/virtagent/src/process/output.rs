//! The program's output: calls of the guest, put into order, written, then answered.

use std::collections::BTreeMap;
use std::io::Write;

use agent_core::link::Incoming;
use agent_core::rpc::{Fault, FaultCode, Value};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::failure::{Failure, Result};

/// How far ahead of the next block another may be; the guest's window is smaller.
const AHEAD: i64 = 64;

/// Takes the output of one program until the task is aborted; ends by itself only when it can't be written.
pub async fn take(mut incoming: mpsc::Receiver<Incoming>, handle: i64, user: Option<String>) -> Result<()> {
    let mut next = 0;
    let mut early = BTreeMap::new();
    while let Some(call) = incoming.recv().await {
        let from = call.username.clone();
        match Block::parse(&call.call.params, handle).and_then(|block| {
            // Another user's daemon could name our handle.
            let stranger = from.is_some() && from != user;
            let misplaced = block.seq < next || block.seq - next > AHEAD || early.contains_key(&block.seq);
            match (stranger, misplaced) {
                (true, _) => Err(Fault::new(FaultCode::Denied, "that program is another user's")),
                (_, true) => Err(Fault::invalid_params(format!("seq is {}, expected is {next}", block.seq))),
                _ => Ok(block),
            }
        }) {
            Ok(block) => {
                early.insert(block.seq, (block, call));
            }
            Err(fault) => {
                call.answer(Err(fault)).await;
            }
        }
        while let Some((block, call)) = early.remove(&next) {
            next += 1;
            if let Err(failure) = write(block).await {
                call.answer(Err(Fault::new(FaultCode::Cancelled, "the host takes no more output"))).await;
                return Err(failure);
            }
            call.answer(Ok(Value::Nil)).await;
        }
    }
    Ok(())
}

struct Block {
    error_stream: bool,
    seq: i64,
    data: Bytes,
}

impl Block {
    fn parse(params: &[Value], handle: i64) -> Result<Self, Fault> {
        const NAMES: [&str; 5] = ["handle", "stream", "seq", "data", "eof"];
        let member = |name: &str| match params {
            [only @ Value::Struct(_)] => only.get(name),
            _ => NAMES.iter().position(|known| *known == name).and_then(|index| params.get(index)),
        };
        if member("handle").and_then(Value::as_int) != Some(handle) {
            return Err(Fault::invalid_params("no such program here"));
        }
        let seq = member("seq").and_then(Value::as_int).filter(|seq| *seq >= 0);
        let seq = seq.ok_or_else(|| Fault::invalid_params("seq is missing"))?;
        let data = match member("data") {
            Some(Value::Bytes(bytes)) => bytes.clone(),
            Some(Value::String(text)) => Bytes::from(text.clone().into_bytes()),
            _ => Bytes::new(),
        };
        let error_stream = member("stream").and_then(Value::as_str) == Some("stderr");
        Ok(Self { error_stream, seq, data })
    }
}

/// On a thread of its own: a pipe that nobody reads must not stop signals.
async fn write(block: Block) -> Result<()> {
    if block.data.is_empty() {
        return Ok(());
    }
    let written = tokio::task::spawn_blocking(move || match block.error_stream {
        true => std::io::stderr().lock().write_all(&block.data),
        false => {
            let mut out = std::io::stdout().lock();
            out.write_all(&block.data).and_then(|()| out.flush())
        }
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::stdout(error)),
        Err(_) => Err(Failure::BrokenPipe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_taken_by_name_or_by_position_and_only_for_our_program() {
        let named = Value::object([
            ("handle", Value::Int(3)),
            ("stream", "stderr".into()),
            ("seq", Value::Int(0)),
            ("data", Bytes::from_static(b"x").into()),
        ]);
        let block = Block::parse(std::slice::from_ref(&named), 3).unwrap();
        assert!(block.error_stream && block.data == "x");
        assert!(Block::parse(&[named], 4).is_err());
        let positional = [Value::Int(3), "stdout".into(), Value::Int(5), Bytes::from_static(b"y").into()];
        assert_eq!(Block::parse(&positional, 3).unwrap().seq, 5);
    }
}
