//! What the bench asks of an agent, the same of each: blocking calls on a socket, so that the client costs little and
//! costs both sides the same.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Calls that are sent together where a measurement is pipelined.
pub const WINDOW: usize = 64;
/// File blocks that are under way together.
pub const BLOCKS: usize = 8;

/// How a file is moved.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    pub path: &'a str,
    pub size: usize,
    pub chunk: usize,
    /// Calls under way at a time.
    pub window: usize,
}

/// One agent at the other end of a socket.
pub trait Agent {
    /// One call that does nothing, and its answer.
    fn ping(&mut self) -> Result<()>;
    /// [`WINDOW`] of them at once, and all answers.
    fn pings(&mut self) -> Result<()>;
    /// Opens a file, reads it to its end and closes it.
    fn read_file(&mut self, transfer: Transfer) -> Result<()>;
    /// Makes a file of zeros.
    fn write_file(&mut self, transfer: Transfer) -> Result<()>;
    /// Runs a program to its end and gives its standard output.
    fn run(&mut self, argv: &[&str]) -> Result<String>;
}

/// A stream with what is read and not yet used.
pub struct Line {
    stream: UnixStream,
    piece: Box<[u8]>,
    pub buffer: bytes::BytesMut,
}

/// Longer than anything that is measured takes.
const SILENCE: Duration = Duration::from_secs(60);

impl Line {
    /// Connects to a socket.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(socket: &Path) -> Result<Line> {
        let stream = UnixStream::connect(socket).with_context(|| format!("can't connect to {}", socket.display()))?;
        Line::over(stream)
    }

    pub fn over(stream: UnixStream) -> Result<Line> {
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Line { stream, piece: vec![0; 256 * 1024].into(), buffer: bytes::BytesMut::with_capacity(1 << 20) })
    }

    pub fn patience(&self, limit: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(limit))?)
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads what is there, at least one byte.
    pub fn more(&mut self) -> Result<()> {
        let read = self.stream.read(&mut self.piece).context("no answer")?;
        if read == 0 {
            bail!("the other end closed the connection");
        }
        self.buffer.extend_from_slice(&self.piece[..read]);
        Ok(())
    }

    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// Connects and asks until there is an answer, for a daemon that was started this moment.
pub fn first_answer<T>(limit: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if begin.elapsed() > limit => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}
