//! virtagent's side: frames with CBOR bodies, as the host's command sends them.

use std::path::Path;
use std::time::Duration;

use agent_core::config::Limits;
use agent_core::encoding::{Encoding, decode_call, decode_outcome, encode_call, encode_outcome};
use agent_core::frame::{Frame, FrameDecoder, FrameEncoder, Heads, Item, Kind};
use agent_core::rpc::{Call, Outcome, Tag, Value};
use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use tokio_util::codec::Decoder;

use crate::agent::{Agent, Line, Transfer, WINDOW};

/// A connection to the system daemon.
pub struct Va {
    line: Line,
    decoder: FrameDecoder,
    next: u32,
    /// The user at whose level calls run; nobody for the system level.
    username: Option<String>,
    ping: Vec<u8>,
    pings: Vec<u8>,
}

impl Va {
    /// Connects and shows that this is a peer of today.
    ///
    /// # Errors
    /// When nobody listens, or nobody answers within `limit`.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Va> {
        let line = Line::connect(socket)?;
        line.patience(limit)?;
        let limits = Limits { body: 16 << 20, ..Limits::default() };
        let decoder = FrameDecoder::new(&limits);
        let mut va = Va { line, decoder, next: 0, username: None, ping: vec![], pings: vec![] };
        let heads = Heads { version: Some("bench".into()), ..Heads::default() };
        va.send("va.capabilities", vec![], heads)?;
        va.receive()?.1.map_err(|fault| anyhow!("va.capabilities: {fault}"))?;
        va.line.patience(Duration::from_secs(60))?;
        va.at(None)?;
        Ok(va)
    }

    /// From now on calls run at this user's level, or at the system level.
    pub fn at(&mut self, username: Option<&str>) -> Result<()> {
        self.username = username.map(str::to_owned);
        let heads = Heads { username: self.username.clone(), ..Heads::default() };
        self.ping = self.frame("va.ping", vec![], heads.clone())?;
        self.pings = Vec::new();
        for _ in 0..WINDOW {
            let frame = self.frame("va.ping", vec![], heads.clone())?;
            self.pings.extend(frame);
        }
        Ok(())
    }

    fn frame(&mut self, method: &str, params: Vec<Value>, heads: Heads) -> Result<Vec<u8>> {
        self.next += 1;
        let tag = Tag::numbered(0xbe9c_4000, self.next);
        let call = Call { method: method.parse()?, params };
        let body = encode_call(Encoding::Cbor, &call, &tag).map_err(|fault| anyhow!("{fault}"))?;
        Ok(bytes_of(&Frame { kind: Kind::Call, tag, encoding: Encoding::Cbor, heads, body }))
    }

    fn send(&mut self, method: &str, params: Vec<Value>, heads: Heads) -> Result<()> {
        let frame = self.frame(method, params, heads)?;
        self.line.send(&frame)
    }

    /// The next reply. What the guest calls meanwhile, its hello above all, is answered.
    fn receive(&mut self) -> Result<(Tag, Outcome)> {
        loop {
            match self.decoder.decode(&mut self.line.buffer)? {
                None => self.line.more()?,
                Some(Item::Bad(bad)) => bail!("a frame that can't be read: {}", bad.error),
                Some(Item::Frame(Frame { kind: Kind::Reply, tag, encoding, body, .. })) => {
                    let outcome = decode_outcome(encoding, &body).map_err(|fault| anyhow!("{fault}"))?;
                    return Ok((tag, outcome));
                }
                Some(Item::Frame(Frame { tag, encoding, body, .. })) => {
                    decode_call(encoding, &body).map_err(|fault| anyhow!("{fault}"))?;
                    let body =
                        encode_outcome(encoding, &Ok("pong".into()), &tag).map_err(|fault| anyhow!("{fault}"))?;
                    let heads = Heads { version: Some("bench".into()), ..Heads::default() };
                    let reply = bytes_of(&Frame { kind: Kind::Reply, tag, encoding, heads, body });
                    self.line.send(&reply)?;
                }
            }
        }
    }

    fn heads(&self) -> Heads {
        Heads { username: self.username.clone(), ..Heads::default() }
    }

    /// One call and its result.
    pub fn call<const N: usize>(&mut self, method: &str, params: [(&str, Value); N]) -> Result<Value> {
        self.send(method, vec![Value::object(params)], self.heads())?;
        self.answer().with_context(|| method.to_owned())
    }

    fn answer(&mut self) -> Result<Value> {
        self.receive()?.1.map_err(|fault| anyhow!("{fault}"))
    }

    fn open(&mut self, path: &str, mode: &str) -> Result<Value> {
        let opened = self.call("file.open", [("path", path.into()), ("mode", mode.into())])?;
        opened.get("handle").cloned().context("no handle")
    }
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    FrameEncoder::head(frame, &mut bytes);
    bytes.extend_from_slice(&frame.body);
    bytes.to_vec()
}

fn int(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Agent for Va {
    fn ping(&mut self) -> Result<()> {
        self.line.send(&self.ping)?;
        self.answer().map(drop)
    }

    fn pings(&mut self) -> Result<()> {
        self.line.send(&self.pings)?;
        for _ in 0..WINDOW {
            self.answer()?;
        }
        Ok(())
    }

    fn read_file(&mut self, Transfer { path, size, chunk, window }: Transfer) -> Result<()> {
        let handle = self.open(path, "read")?;
        let (mut asked, mut taken, mut under_way) = (0, 0, 0);
        while taken < size {
            while asked < size && under_way < window {
                let params = [("handle", handle.clone()), ("offset", int(asked)), ("length", int(chunk))];
                self.send("file.read", vec![Value::object(params)], self.heads())?;
                (asked, under_way) = (asked + chunk, under_way + 1);
            }
            let block = self.answer()?;
            let data = block.get("data").and_then(Value::as_bytes).context("no data")?;
            ensure!(!data.is_empty(), "the file ends after {taken} bytes");
            (taken, under_way) = (taken + data.len(), under_way - 1);
        }
        self.call("file.close", [("handle", handle)]).map(drop)
    }

    fn write_file(&mut self, Transfer { path, size, chunk, window }: Transfer) -> Result<()> {
        let handle = self.open(path, "create")?;
        let data = Bytes::from(vec![0_u8; chunk]);
        let (mut sent, mut under_way) = (0, 0);
        while sent < size || under_way > 0 {
            while sent < size && under_way < window {
                let params = [("handle", handle.clone()), ("offset", int(sent)), ("data", data.clone().into())];
                self.send("file.write", vec![Value::object(params)], self.heads())?;
                (sent, under_way) = (sent + chunk, under_way + 1);
            }
            self.answer()?;
            under_way -= 1;
        }
        self.call("file.close", [("handle", handle)]).map(drop)
    }

    fn run(&mut self, argv: &[&str]) -> Result<String> {
        let argv: Vec<Value> = argv.iter().map(|word| (*word).into()).collect();
        let ended = self.call("exec.run", [("argv", argv.into())])?;
        ensure!(ended.get("exit_code").and_then(Value::as_int) == Some(0), "exec.run: {ended:?}");
        let stdout = ended.get("stdout").and_then(Value::as_bytes).cloned().unwrap_or_default();
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }
}
