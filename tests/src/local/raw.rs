//! One end of a link as bytes and frames, for peers that do what no link of ours would.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::time::{Duration, Instant};

use agent_core::config::Limits;
use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::frame::{Frame, FrameDecoder, FrameEncoder, Heads, Item, Kind};
use agent_core::rpc::{Call, Fault, Outcome, Value};
use anyhow::{Context, Result, bail};
use bytes::BytesMut;
use serde_json::Value as Json;
use tokio_util::codec::{Decoder, Encoder};

use super::{LIMIT, json, value};

/// A stream of frames in the test's own hands.
pub struct Raw {
    stream: UnixStream,
    decoder: FrameDecoder,
    buffer: BytesMut,
    /// The process that the stream goes through, where it is another's.
    relay: Option<Child>,
}

impl Raw {
    /// Over a connection of ours.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, decoder: FrameDecoder::new(&Limits::default()), buffer: BytesMut::new(), relay: None }
    }

    /// Over a connection of another process.
    pub fn through(stream: UnixStream, relay: Child) -> Self {
        let mut raw = Self::new(stream);
        raw.relay = Some(relay);
        raw
    }

    /// The process at the end of the connection, where it is not ours.
    pub fn pid(&self) -> Option<u32> {
        self.relay.as_ref().map(Child::id)
    }

    /// The stream.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn frame(&mut self, frame: Frame) -> Result<()> {
        let mut bytes = BytesMut::new();
        FrameEncoder.encode(frame, &mut bytes)?;
        self.bytes(&bytes)
    }

    /// Writes a call without heads of ours.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn call(&mut self, tag: &str, method: &str, params: Json) -> Result<()> {
        self.call_with(tag, method, params, Heads::default())
    }

    /// Writes a call for a user, or in a user's name.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn call_as(&mut self, user: &str, tag: &str, method: &str, params: Json) -> Result<()> {
        self.call_with(tag, method, params, Heads { username: Some(user.to_owned()), ..Heads::default() })
    }

    /// Writes a call.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn call_with(&mut self, tag: &str, method: &str, params: Json, heads: Heads) -> Result<()> {
        self.frame(call_frame(tag, method, params, heads)?)
    }

    /// Writes a reply.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn reply(&mut self, tag: &str, outcome: Outcome) -> Result<()> {
        let tag = tag.parse()?;
        let body = encode_outcome(Encoding::Cbor, &outcome, &tag)?;
        self.frame(Frame { kind: Kind::Reply, tag, encoding: Encoding::Cbor, heads: Heads::default(), body })
    }

    /// Begins a session, as a user daemon does.
    ///
    /// # Errors
    /// When the system daemon refuses.
    pub fn hello(&mut self) -> Result<()> {
        self.call("hello-0000000000", "session.hello", serde_json::json!({"modules": ["raw"]}))?;
        self.answer("hello-0000000000")?.map_err(|fault| anyhow::anyhow!("session.hello: {fault}"))?;
        Ok(())
    }

    /// The next frame; `None` when the other end has closed.
    ///
    /// # Errors
    /// When none comes in time, or something that is no frame.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        self.next_within(LIMIT)
    }

    /// The same with a limit of the test's own.
    ///
    /// # Errors
    /// When none comes in time, or something that is no frame.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Frame>> {
        let begin = Instant::now();
        loop {
            match self.decoder.decode(&mut self.buffer)? {
                Some(Item::Frame(frame)) => return Ok(Some(frame)),
                Some(Item::Bad(bad)) => bail!("the daemon sent what is no frame: {}", bad.error),
                None => {}
            }
            let Some(left) = limit.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else {
                bail!("no frame came within {} s", limit.as_secs_f32());
            };
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next call of the other end, decoded; replies before it are passed over.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn next_call(&mut self) -> Result<(Frame, Call)> {
        loop {
            let frame = self.next()?.context("the other end closed")?;
            if frame.kind == Kind::Call {
                let call = decode_call(frame.encoding, &frame.body)?;
                return Ok((frame, call));
            }
        }
    }

    /// The reply to that tag; everything before it is passed over.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn answer(&mut self, tag: &str) -> Result<Result<Json, Fault>> {
        Ok(self.answer_frame(tag)?.1)
    }

    /// The same with its frame.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn answer_frame(&mut self, tag: &str) -> Result<(Frame, Result<Json, Fault>)> {
        loop {
            let frame = self.next()?.with_context(|| format!("the other end closed before it answered {tag}"))?;
            if frame.kind == Kind::Reply && frame.tag.as_str() == tag {
                let outcome = decode_outcome(frame.encoding, &frame.body)?;
                return Ok((frame, outcome.map(|value: Value| json(&value))));
            }
        }
    }

    /// Calls and waits for the answer.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn ask(&mut self, tag: &str, method: &str, params: Json) -> Result<Result<Json, Fault>> {
        self.call(tag, method, params)?;
        self.answer(tag)
    }

    /// Waits until the other end has closed.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn closed(&mut self) -> Result<()> {
        while self.next()?.is_some() {}
        Ok(())
    }

    /// Closes our half, or all.
    ///
    /// # Errors
    /// When it is closed already.
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        Ok(self.stream.shutdown(how)?)
    }
}

/// A call as a frame, in CBOR.
///
/// # Errors
/// When tag or method are none.
pub fn call_frame(tag: &str, method: &str, params: Json, heads: Heads) -> Result<Frame> {
    let params = match &params {
        Json::Null => Vec::new(),
        Json::Array(items) => items.iter().map(value).collect(),
        named => vec![value(named)],
    };
    let tag = tag.parse()?;
    let body = encode_call(Encoding::Cbor, &Call { method: method.parse()?, params }, &tag)?;
    Ok(Frame { kind: Kind::Call, tag, encoding: Encoding::Cbor, heads, body })
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(relay) = &mut self.relay {
            let _ = relay.kill();
            let _ = relay.wait();
        }
    }
}
