//! Reading and writing our ends of a program's streams without ever blocking.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::child;
use crate::error::ExecError;

/// One of our ends, shared between who reads and who writes a terminal.
pub(crate) type End = Arc<AsyncFd<OwnedFd>>;

/// Registers an end with the event loop.
pub(crate) fn end(fd: OwnedFd) -> Result<End, ExecError> {
    let register = || {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        child::watch(fd, Interest::READABLE | Interest::WRITABLE)
    };
    register().map(Arc::new).map_err(|error: io::Error| ExecError::io("watch the program's streams", &error))
}

/// Which of its outputs a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
    Terminal,
}

impl Source {
    /// Its name in `exec.output`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Terminal => "pty",
        }
    }
}

/// The longest chunk of output, in bytes.
pub(crate) const CHUNK: usize = 64 << 10;

/// A program's outputs.
pub(crate) struct Outputs {
    open: Vec<(Source, End)>,
    buffer: Box<[u8]>,
}

/// What one read brought; the bytes are in [`Outputs::bytes`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub source: Source,
    pub length: usize,
    /// Nothing follows.
    pub eof: bool,
}

impl Outputs {
    pub(crate) fn new(open: Vec<(Source, End)>) -> Self {
        Self { open, buffer: vec![0; CHUNK].into_boxed_slice() }
    }

    /// Whether any may still bring something.
    pub(crate) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    pub(crate) fn bytes(&self, chunk: Chunk) -> &[u8] {
        &self.buffer[..chunk.length]
    }

    /// Gives up those that are open and says which they were.
    pub(crate) fn close(&mut self) -> Vec<Source> {
        self.open.drain(..).map(|(source, _)| source).collect()
    }

    /// Reads what one output has, up to a chunk: many small writes become one.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Chunk> {
        for index in 0..self.open.len() {
            let (source, end) = &self.open[index];
            let source = *source;
            if let Poll::Ready((length, eof)) = poll_read(end, &mut self.buffer, cx) {
                let entry = self.open.remove(index);
                if !eof {
                    // The other one's turn comes first next time.
                    self.open.push(entry);
                }
                return Poll::Ready(Chunk { source, length, eof });
            }
        }
        Poll::Pending
    }
}

fn poll_read(end: &End, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<(usize, bool)> {
    let mut filled = 0;
    loop {
        let mut guard = match end.poll_read_ready(cx) {
            Poll::Ready(Ok(guard)) => guard,
            Poll::Ready(Err(_)) => return Poll::Ready((filled, true)),
            Poll::Pending if filled > 0 => return Poll::Ready((filled, false)),
            Poll::Pending => return Poll::Pending,
        };
        while filled < buffer.len() {
            match nix::unistd::read(end.get_ref(), &mut buffer[filled..]) {
                Ok(0) => return Poll::Ready((filled, true)),
                Ok(length) => filled += length,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    break;
                }
                // EIO is how a terminal says that nobody has its other end open.
                Err(_) => return Poll::Ready((filled, true)),
            }
        }
        if filled == buffer.len() {
            return Poll::Ready((filled, false));
        }
    }
}

/// What a program shall read, written as it takes it; done when all is written or the program wants no more.
pub(crate) struct Feed {
    end: Option<End>,
    data: Bytes,
}

impl Feed {
    pub(crate) fn new(end: Option<End>, data: Bytes) -> Self {
        Self { end: end.filter(|_| !data.is_empty()), data }
    }

    pub(crate) fn nothing() -> Self {
        Self::new(None, Bytes::new())
    }

    pub(crate) fn is_done(&self) -> bool {
        self.end.is_none()
    }

    pub(crate) fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(end) = &self.end {
            // Whatever the error (EPIPE: it closed its input), there is nobody to read the rest.
            let _ = ready!(poll_write_all(end, &mut self.data, cx));
            self.end = None;
        }
        Poll::Ready(())
    }
}

/// Writes all of `data`; what was written is gone from it, also when pending.
pub(crate) fn poll_write_all(end: &End, data: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    while !data.is_empty() {
        let mut guard = ready!(end.poll_write_ready(cx))?;
        match nix::unistd::write(end.get_ref(), data) {
            Ok(length) => data.advance(length),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => guard.clear_ready(),
            Err(errno) => return Poll::Ready(Err(errno.into())),
        }
    }
    Poll::Ready(Ok(()))
}
