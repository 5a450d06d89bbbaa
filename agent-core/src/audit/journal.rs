//! journald's native protocol (systemd's `docs/JOURNAL_NATIVE_PROTOCOL.md`): one datagram a record. Owns the socket.
//! Must never block, and must never fail a call that the log's file has recorded.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::error::{AuditError, errno_of};

/// journald's socket.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Appends a field: `NAME=value`, or the length-prefixed form for a value that holds a newline.
pub(super) fn field(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// Sends entries. The address is looked up for each, so that a journald that restarts is found again.
pub(super) struct Journal {
    socket: UnixDatagram,
    path: Arc<Path>,
}

impl Journal {
    pub fn new(path: Arc<Path>) -> Result<Self, AuditError> {
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match open() {
            Ok(socket) => Ok(Self { socket, path }),
            Err(error) => Err(AuditError::file(&path, "make a socket for the journal", &error)),
        }
    }

    /// Sends one entry, or says at once why not.
    pub fn send(&self, entry: &[u8]) -> Result<(), Errno> {
        match self.socket.send_to(entry, &*self.path) {
            Ok(_) => Ok(()),
            Err(error) => Err(errno_of(&error)),
        }
    }

    pub fn error(&self, errno: Errno) -> AuditError {
        AuditError::Journal { socket: Arc::clone(&self.path), errno }
    }
}

/// Whether the errno means that there is no journald, which is nobody's loss.
pub(super) fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR | Errno::EACCES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_newline_takes_the_binary_form() {
        let mut entry = Vec::new();
        field(&mut entry, "A", "x=y");
        field(&mut entry, "B", "x\ny");
        assert_eq!(entry, b"A=x=y\nB\n\x03\0\0\0\0\0\0\0x\ny\n");
    }

    #[test]
    fn a_full_or_absent_socket_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = Journal::new(path.as_path().into()).unwrap();
        assert!(is_absent(journal.send(b"A=b\n").unwrap_err()));
        let _receiver = UnixDatagram::bind(&path).unwrap();
        let refused = (0..100_000).find_map(|_| journal.send(&[b'x'; 4096]).err());
        assert_eq!(refused, Some(Errno::EAGAIN));
    }
}
