//! Who is at the other end of a Unix socket, by the kernel's word.

use std::io;

use nix::unistd::{Gid, Pid, Uid};
use tokio::net::UnixStream;

/// The credentials of the process that connected (`SO_PEERCRED`, unix(7)): as they were at connect(2), whatever it has
/// become since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective UID.
    pub uid: Uid,
    /// Its effective GID.
    pub gid: Gid,
    /// Its process; nothing when it is in a PID namespace that we can't see.
    pub pid: Option<Pid>,
}

impl Peer {
    /// The other end of that stream.
    ///
    /// # Errors
    /// getsockopt(2) fails.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let cred = stream.peer_cred()?;
        let pid = cred.pid().filter(|pid| *pid > 0).map(Pid::from_raw);
        Ok(Self { uid: Uid::from_raw(cred.uid()), gid: Gid::from_raw(cred.gid()), pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_peer_of_our_own_socket_is_us() {
        let (one, _other) = UnixStream::pair().unwrap();
        let us = Peer { uid: Uid::effective(), gid: Gid::effective(), pid: Some(Pid::this()) };
        assert_eq!(Peer::of(&one).unwrap(), us);
    }
}
