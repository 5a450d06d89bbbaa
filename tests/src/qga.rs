//! A client of qemu-guest-agent: the tests' second way into the guest, which works while the host command has the channel,
//! and which knows nothing of virtagent. The protocol is documented at
//! <https://www.qemu.org/docs/master/interop/qemu-ga-ref.html>.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait;

/// What a program in the guest did.
pub struct Ended {
    pub code: i64,
    pub stdout: String,
    pub stderr: String,
}

/// A connection to the agent.
pub struct Qga {
    stream: BufReader<UnixStream>,
}

impl Qga {
    /// Connects and waits until the agent answers.
    ///
    /// # Errors
    /// When it does not within the limit.
    pub fn connect(socket: &Path, limit: Duration) -> Result<Qga> {
        let stream = UnixStream::connect(socket).with_context(|| format!("can't connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        let mut qga = Qga { stream: BufReader::new(stream) };
        let mut id = 0;
        wait::until(limit, "qemu-guest-agent's answer", || {
            id += 1;
            Ok(qga.synced(id).ok())
        })?;
        qga.stream.get_ref().set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(qga)
    }

    fn synced(&mut self, id: u64) -> Result<()> {
        self.send(&json!({"execute": "guest-sync", "arguments": {"id": id}}))?;
        // Answers to earlier attempts may come first.
        while self.receive()? != json!(id) {}
        Ok(())
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        Ok(self.stream.get_mut().write_all(format!("{message}\n").as_bytes())?)
    }

    fn receive(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("QEMU closed the connection");
        }
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line:?}"))?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("qemu-guest-agent refused: {answer}"),
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// The agent's refusal, or its silence.
    pub fn call(&mut self, method: &str, arguments: Value) -> Result<Value> {
        self.send(&json!({"execute": method, "arguments": arguments}))?;
        self.receive().with_context(|| method.to_owned())
    }

    /// Runs a shell script as root in the guest, to its end.
    ///
    /// # Errors
    /// When it does not end within the limit.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<Ended> {
        let start = json!({"path": "/bin/sh", "arg": ["-c", script], "capture-output": true});
        let pid = self.call("guest-exec", start)?["pid"].clone();
        let status = wait::until(limit, "the end of a script in the guest", || {
            let status = self.call("guest-exec-status", json!({"pid": pid}))?;
            Ok((status["exited"] == json!(true)).then_some(status))
        })
        .with_context(|| script.to_owned())?;
        let text = |name: &str| -> Result<String> {
            let Some(coded) = status[name].as_str() else { return Ok(String::new()) };
            Ok(String::from_utf8_lossy(&base64::engine::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                coded,
            )?)
            .into_owned())
        };
        // A program that a signal ended has no exit code.
        let code = status["exitcode"].as_i64().unwrap_or(-1);
        Ok(Ended { code, stdout: text("out-data")?, stderr: text("err-data")? })
    }
}
