//! Descriptors under tokio's reactor: the crate's only unsafe code.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::epoll::Epoll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns the one descriptor which its `as_raw_fd` names, for as long as it lives.
trait Owner: AsRawFd {}

impl Owner for OwnedFd {}
impl Owner for Instance {}

/// An epoll instance as tokio sees it.
pub(super) struct Instance(pub(super) Epoll);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

fn register<T: Owner>(owner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the owner keeps its descriptor open until it is dropped, and AsyncFd owns the owner; `Owner` is
    // implemented for two types here, whose `as_raw_fd` always names the descriptor that they own.
    unsafe { AsyncFd::register_with_interest(owner, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Watches a descriptor for reading.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd)
}

/// Watches an epoll instance for events.
pub(super) fn nested(epoll: Epoll) -> io::Result<AsyncFd<Instance>> {
    register(Instance(epoll))
}
