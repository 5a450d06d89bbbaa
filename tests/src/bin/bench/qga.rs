//! qemu-guest-agent's side: lines of JSON, as its documentation has them
//! (<https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>).

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::agent::{Agent, Line, Transfer, WINDOW};

/// What is not to be run, whoever asks: all that could touch the machine's power, clock, passwords or file systems.
pub const BLOCKED: &str = "guest-shutdown,guest-set-time,guest-set-user-password,guest-suspend-disk,guest-suspend-ram,\
    guest-suspend-hybrid,guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fsfreeze-thaw,guest-fstrim,\
    guest-set-vcpus,guest-set-memory-blocks,guest-ssh-add-authorized-keys,guest-ssh-remove-authorized-keys";

const PING: &[u8] = b"{\"execute\":\"guest-ping\"}\n";

/// A connection to the agent.
pub struct Qga {
    line: Line,
    pings: Vec<u8>,
}

impl Qga {
    /// Connects and synchronises.
    ///
    /// # Errors
    /// When nobody listens, or nobody answers within `limit`.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Qga> {
        let line = Line::connect(socket)?;
        line.patience(limit)?;
        let mut qga = Qga { line, pings: PING.repeat(WINDOW) };
        let id = std::process::id();
        qga.send(&json!({"execute": "guest-sync", "arguments": {"id": id}}))?;
        // Answers to somebody else's calls may come first.
        while qga.answer()? != json!(id) {}
        qga.line.patience(Duration::from_secs(60))?;
        Ok(qga)
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        self.line.send(format!("{message}\n").as_bytes())
    }

    /// The next line, handed to `take` where it lies.
    fn next<T>(&mut self, take: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let mut seen = 0;
        loop {
            match self.line.buffer[seen..].iter().position(|byte| *byte == b'\n') {
                Some(at) => {
                    let line = self.line.buffer.split_to(seen + at + 1);
                    return take(&line);
                }
                None => {
                    seen = self.line.buffer.len();
                    self.line.more()?;
                }
            }
        }
    }

    fn answer(&mut self) -> Result<Value> {
        self.next(|line| {
            let mut answer: Value = serde_json::from_slice(line).context("no JSON")?;
            match answer.get_mut("return") {
                Some(value) => Ok(value.take()),
                None => bail!("qemu-ga refused: {answer}"),
            }
        })
    }

    fn call(&mut self, method: &str, arguments: Value) -> Result<Value> {
        self.send(&json!({"execute": method, "arguments": arguments}))?;
        self.answer().with_context(|| method.to_owned())
    }
}

fn pong(line: &[u8]) -> Result<()> {
    ensure!(line == b"{\"return\": {}}\n", "not an answer to guest-ping: {}", String::from_utf8_lossy(line));
    Ok(())
}

impl Agent for Qga {
    fn ping(&mut self) -> Result<()> {
        self.line.send(PING)?;
        self.next(pong)
    }

    fn pings(&mut self) -> Result<()> {
        self.line.send(&self.pings)?;
        for _ in 0..WINDOW {
            self.next(pong)?;
        }
        Ok(())
    }

    fn read_file(&mut self, Transfer { path, size, chunk, window }: Transfer) -> Result<()> {
        let handle = self.call("guest-file-open", json!({"path": path, "mode": "r"}))?;
        let read =
            format!("{}\n", json!({"execute": "guest-file-read", "arguments": {"handle": handle, "count": chunk}}));
        let (mut asked, mut taken, mut under_way) = (0, 0, 0);
        while taken < size {
            while asked < size && under_way < window {
                self.line.send(read.as_bytes())?;
                (asked, under_way) = (asked + chunk, under_way + 1);
            }
            let block = self.answer()?;
            let data = STANDARD.decode(block["buf-b64"].as_str().context("no buf-b64")?)?;
            ensure!(!data.is_empty(), "the file ends after {taken} bytes");
            (taken, under_way) = (taken + data.len(), under_way - 1);
        }
        self.call("guest-file-close", json!({"handle": handle})).map(drop)
    }

    fn write_file(&mut self, Transfer { path, size, chunk, window }: Transfer) -> Result<()> {
        let handle = self.call("guest-file-open", json!({"path": path, "mode": "w"}))?;
        let arguments = json!({"handle": handle, "buf-b64": STANDARD.encode(vec![0_u8; chunk])});
        let write = format!("{}\n", json!({"execute": "guest-file-write", "arguments": arguments}));
        let (mut sent, mut under_way) = (0, 0);
        while sent < size || under_way > 0 {
            while sent < size && under_way < window {
                // Coded once: what a host pays for base64 is not the agent's matter.
                self.line.send(write.as_bytes())?;
                (sent, under_way) = (sent + chunk, under_way + 1);
            }
            let written = self.answer()?;
            ensure!(written["count"] == json!(chunk), "a short write: {written}");
            under_way -= 1;
        }
        self.call("guest-file-close", json!({"handle": handle})).map(drop)
    }

    fn run(&mut self, argv: &[&str]) -> Result<String> {
        let start = json!({"path": argv[0], "arg": &argv[1..], "capture-output": true});
        let pid = self.call("guest-exec", start)?["pid"].take();
        loop {
            let status = self.call("guest-exec-status", json!({"pid": pid}))?;
            if status["exited"] == json!(true) {
                ensure!(status["exitcode"] == json!(0), "guest-exec: {status}");
                let stdout = STANDARD.decode(status["out-data"].as_str().unwrap_or_default())?;
                return Ok(String::from_utf8_lossy(&stdout).into_owned());
            }
        }
    }
}
