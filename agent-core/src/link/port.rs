//! File descriptors as streams: virtio-serial ports, serial lines, vsock.
//!
//! A virtio-serial port whose host is away reports IN and HUP for ever, so a level-triggered loop would spin; and tokio
//! keeps a HUP once seen. Each direction therefore has an epoll instance of its own in which the port is registered
//! edge-triggered; tokio waits for that instance, which never hangs up. With the host away nothing wakes at all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::async_fd::{Instance, nested};

/// Edge-triggered readiness of one direction of one descriptor.
struct Edges(AsyncFd<Instance>);

impl Edges {
    fn new(fd: &OwnedFd, direction: EpollFlags) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(fd, EpollEvent::new(direction | EpollFlags::EPOLLET, 0))?;
        Ok(Self(nested(epoll)?))
    }

    /// Waits for the next edge and takes it.
    fn poll_edge(&self, cx: &mut Context<'_>) -> Poll<io::Result<EpollFlags>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let mut events = [EpollEvent::empty(); 1];
            // Cleared first: an edge between the two lines below is then seen, not lost.
            ready.clear_ready();
            if self.0.get_ref().0.wait(&mut events, EpollTimeout::ZERO)? > 0 {
                return Poll::Ready(Ok(events[0].events()));
            }
        }
    }
}

/// A descriptor that a guest's port, a serial line or a socket lies behind.
pub(super) struct Port {
    fd: Arc<OwnedFd>,
}

impl Port {
    /// Takes over a descriptor that was opened non-blocking.
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Waits until the other end is there (a virtio-serial port can be written to only then).
    pub(super) async fn present(&self) -> io::Result<()> {
        let edges = Edges::new(&self.fd, EpollFlags::EPOLLOUT)?;
        loop {
            let flags = std::future::poll_fn(|cx| edges.poll_edge(cx)).await?;
            if flags.contains(EpollFlags::EPOLLOUT) && !flags.contains(EpollFlags::EPOLLHUP) {
                return Ok(());
            }
        }
    }

    /// A stream over the descriptor; it ends when the other end leaves, and the descriptor stays open for the next.
    pub(super) fn conversation(&self) -> io::Result<Conversation> {
        Ok(Conversation {
            readable: Edges::new(&self.fd, EpollFlags::EPOLLIN)?,
            writable: Edges::new(&self.fd, EpollFlags::EPOLLOUT)?,
            fd: Arc::clone(&self.fd),
        })
    }
}

/// One presence of the other end.
pub(super) struct Conversation {
    fd: Arc<OwnedFd>,
    readable: Edges,
    writable: Edges,
}

impl AsyncRead for Conversation {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match nix::unistd::read(self.fd.as_fd(), buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::EAGAIN) => {
                    ready!(self.readable.poll_edge(cx))?;
                }
                Err(Errno::EINTR) => {}
                // A serial line or a pseudo-terminal whose other end is gone.
                Err(Errno::EIO) => return Poll::Ready(Ok(())),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match nix::unistd::write(&self.fd, bytes) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(Errno::EAGAIN) => {
                    ready!(self.writable.poll_edge(cx))?;
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
