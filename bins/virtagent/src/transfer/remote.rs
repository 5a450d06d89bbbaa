//! The guest's file's side: handles, and the windows of reads and writes.

use std::collections::VecDeque;

use agent_core::rpc::{FaultCode, Value};
use bytes::Bytes;
use tokio::task::JoinHandle;

use super::local::{Sink, Source};
use super::progress::Progress;
use super::{BLOCK, WINDOW};
use crate::client::{Client, Params, int, missing};
use crate::failure::{Failure, Result};

/// What `file.stat` says that a transfer needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Stat {
    pub kind: String,
    pub size: u64,
    pub mode: u32,
    /// As text, to be compared and not computed with.
    pub mtime: String,
}

/// The file's description, or nothing when it is not there or when that may not be asked.
pub async fn stat(client: &Client, path: &str) -> Result<Option<Stat>> {
    let stat = match client.call("file.stat", Params::new().with("path", path).done()).await {
        Ok(stat) => stat,
        Err(failure @ (Failure::NoConnection(_) | Failure::TimedOut(_))) => return Err(failure),
        Err(failure) if failure.is(FaultCode::NoSession) || failure.is(FaultCode::NoSuchUser) => return Err(failure),
        Err(_) => return Ok(None),
    };
    let number = |name: &str| stat.get(name).and_then(Value::as_int).and_then(|number| u64::try_from(number).ok());
    Ok(Some(Stat {
        kind: stat.get("type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        size: number("size").unwrap_or(0),
        mode: number("mode").and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o7777,
        mtime: match stat.get("mtime") {
            Some(Value::Double(seconds)) => format!("{seconds:?}"),
            Some(Value::Int(seconds)) => format!("{seconds}"),
            _ => String::new(),
        },
    }))
}

/// An open file of the guest.
pub struct Remote {
    client: Client,
    handle: i64,
    /// Its size when it was opened.
    pub size: u64,
}

impl Remote {
    pub async fn open(client: &Client, params: Params) -> Result<Self> {
        let opened = client.call("file.open", params.done()).await?;
        let handle = int(&opened, "file.open", "handle")?;
        let size = opened.get("size").and_then(Value::as_int).and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        Ok(Self { client: client.clone(), handle, size })
    }

    fn params(&self) -> Params {
        Params::new().with("handle", Value::Int(self.handle))
    }

    /// Closes; the guest's digest of what passed, if it passed in order.
    pub async fn close(&self, digest: Option<String>) -> Result<Option<String>> {
        let params = self.params().maybe("digest", digest).done();
        let closed = self.client.patient().call("file.close", params).await?;
        Ok(closed.get("digest").and_then(Value::as_str).map(str::to_owned))
    }

    /// Closes and throws away what `replace` wrote; the guest does so by itself when we are gone.
    pub async fn discard(&self) {
        let params = self.params().with("discard", true).done();
        let _ = self.client.within(std::time::Duration::from_secs(2)).call("file.close", params).await;
    }

    fn read(&self, offset: Option<u64>, length: usize) -> JoinHandle<Result<(Bytes, bool)>> {
        let params = self
            .params()
            .maybe("offset", offset.map(|offset| Value::Int(offset.cast_signed())))
            .with("length", Value::Int(length as i64))
            .done();
        let client = self.client.clone();
        tokio::spawn(async move {
            let read = client.call("file.read", params).await?;
            let data = match read.get("data") {
                Some(Value::Bytes(bytes)) => bytes.clone(),
                Some(Value::String(text)) => Bytes::copy_from_slice(text.as_bytes()),
                _ => return Err(missing("file.read", "data")),
            };
            if data.len() > length {
                return Err(Failure::guest(format!("file.read: the guest sent {} bytes for {length}", data.len())));
            }
            Ok((data, read.get("eof").and_then(Value::as_bool).unwrap_or(false)))
        })
    }

    /// Reads from `offset` to the end into `sink`: up to the size at opening many blocks at a time, then one by one, as
    /// long as there are more. What has no size (a pipe, a file of /proc) is read one by one from where it is.
    pub async fn read_into(&self, sink: &mut Sink, mut offset: u64, progress: &Progress) -> Result<()> {
        let seekable = self.size > 0;
        let mut window = VecDeque::new();
        let (mut asked, mut ended) = (offset, false);
        loop {
            while window.len() < WINDOW && asked < self.size {
                let length = BLOCK.min(usize::try_from(self.size - asked).unwrap_or(BLOCK));
                window.push_back((length, self.read(Some(asked), length)));
                asked += length as u64;
            }
            let Some((length, reading)) = window.pop_front() else { break };
            let mut missing = length;
            let mut reading = Some(reading);
            while missing > 0 {
                // A block that came short is filled up before the next one.
                let reading = reading.take().unwrap_or_else(|| self.read(Some(offset), missing));
                let (data, eof) = joined(reading).await?;
                let came = data.len();
                if came > 0 {
                    sink.send(data).await?;
                }
                progress.advance(came as u64);
                (offset, missing) = (offset + came as u64, missing - came);
                ended = eof;
                if came == 0 || (eof && missing > 0) {
                    // The file has become shorter.
                    return Ok(());
                }
            }
        }
        while !ended {
            let (data, eof) = joined(self.read(seekable.then_some(offset), BLOCK)).await?;
            ended = eof || data.is_empty();
            offset += data.len() as u64;
            progress.advance(data.len() as u64);
            if !data.is_empty() {
                sink.send(data).await?;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: Bytes) -> JoinHandle<Result<()>> {
        let (client, handle) = (self.client.clone(), self.handle);
        tokio::spawn(async move {
            let (mut offset, mut data) = (offset, data);
            while !data.is_empty() {
                let params = Params::new()
                    .with("handle", Value::Int(handle))
                    .with("offset", Value::Int(offset.cast_signed()))
                    .with("data", data.clone())
                    .done();
                let written = int(&client.call("file.write", params).await?, "file.write", "written")?;
                let written = usize::try_from(written).ok().filter(|written| (1..=data.len()).contains(written));
                let written = written.ok_or_else(|| {
                    Failure::guest(format!("file.write: the guest did not take the {} bytes at {offset}", data.len()))
                })?;
                data = data.slice(written..);
                offset += written as u64;
            }
            Ok(())
        })
    }

    /// Writes all of `source` from `offset`, many blocks at a time.
    pub async fn write_from(&self, source: &mut Source, mut offset: u64, progress: &Progress) -> Result<()> {
        let mut window = VecDeque::new();
        let mut more = true;
        while more || !window.is_empty() {
            if more && window.len() < WINDOW {
                match source.next().await? {
                    Some(block) => {
                        let length = block.len() as u64;
                        window.push_back((length, self.write(offset, block)));
                        offset += length;
                    }
                    None => more = false,
                }
                continue;
            }
            if let Some((length, writing)) = window.pop_front() {
                joined(writing).await?;
                progress.advance(length);
            }
        }
        Ok(())
    }
}

async fn joined<T>(task: JoinHandle<Result<T>>) -> Result<T> {
    task.await.unwrap_or_else(|_| Err(Failure::guest("the transfer was stopped")))
}

/// The guest's digest of the first `length` bytes of a file, or of all; nothing when it may not be asked for.
pub async fn digest(client: &Client, path: &str, length: Option<u64>) -> Result<Option<(String, u64)>> {
    let params = Params::new()
        .with("path", path)
        .with("algorithm", "xxh3-128")
        .maybe("offset", length.map(|_| Value::Int(0)))
        .maybe("length", length.map(|length| Value::Int(length.cast_signed())))
        .done();
    match client.patient().call("file.digest", params).await {
        Ok(answer) => {
            let text = answer.get("digest").and_then(Value::as_str).ok_or_else(|| missing("file.digest", "digest"))?;
            let size = int(&answer, "file.digest", "size")?;
            Ok(Some((text.to_owned(), u64::try_from(size).unwrap_or(0))))
        }
        Err(failure) if failure.is(FaultCode::Denied) || failure.is(FaultCode::MethodNotFound) => Ok(None),
        Err(failure) => Err(failure),
    }
}
