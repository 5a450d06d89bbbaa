//! Where a daemon's channel lies: `-c virtio-serial|unix-listen|unix-connect|isa-serial|vsock-listen`.
//!
//! Owns opening, waiting for the other end, and coming back after it left. Must never interpret a byte.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::termios::{self, BaudRate, SetArg};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};

use super::async_fd::readable;
use super::port::Port;

/// Anything that carries frames.
pub trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// One presence of the other end.
pub type Conversation = Box<dyn Stream + Unpin>;

/// The kinds of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// A virtio-serial port: the usual one.
    VirtioSerial,
    /// A unix socket that we make; in place of the port where there is no VM.
    UnixListen,
    /// A unix socket that somebody else listens on.
    UnixConnect,
    /// A serial line at 38400 baud, raw, 8 bits without parity.
    IsaSerial,
    /// An AF_VSOCK port that we listen on; the path is its number.
    VsockListen,
}

impl ChannelKind {
    /// All kinds with their names on the command line.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("virtio-serial", Self::VirtioSerial),
        ("unix-listen", Self::UnixListen),
        ("unix-connect", Self::UnixConnect),
        ("isa-serial", Self::IsaSerial),
        ("vsock-listen", Self::VsockListen),
    ];
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for ChannelKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("no such channel; there are {}", names.join(", "))
        })
    }
}

/// Why a channel can't be opened or used.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {path}: {what}")]
pub struct ChannelError {
    kind: ChannelKind,
    path: PathBuf,
    what: String,
}

/// An open channel; [`Channel::next`] yields one conversation after the other.
pub struct Channel {
    kind: ChannelKind,
    path: PathBuf,
    state: State,
}

enum State {
    Port(Port),
    Unix(UnixListener),
    Connect { first: bool },
    Serial,
    Vsock(AsyncFd<OwnedFd>),
}

/// The socket's file goes with the channel that made it.
impl Drop for Channel {
    fn drop(&mut self) {
        if matches!(self.state, State::Unix(_)) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Channel {
    /// Opens the port, or makes the socket.
    ///
    /// # Errors
    /// What is wrong, in one line: the daemon's start fails with it.
    pub fn open(kind: ChannelKind, path: &Path) -> Result<Self, ChannelError> {
        let fail = |what: String| ChannelError { kind, path: path.to_owned(), what };
        let state = match kind {
            ChannelKind::VirtioSerial => State::Port(Port::new(open_port(path).map_err(&fail)?)),
            ChannelKind::UnixListen => State::Unix(listen(path, 0o600).map_err(&fail)?),
            ChannelKind::UnixConnect => State::Connect { first: true },
            ChannelKind::IsaSerial => {
                open_serial(path).map_err(&fail)?;
                State::Serial
            }
            ChannelKind::VsockListen => State::Vsock(listen_vsock(path).map_err(&fail)?),
        };
        Ok(Self { kind, path: path.to_owned(), state })
    }

    /// What the channel is, for messages.
    pub fn describe(&self) -> String {
        format!("{} {}", self.kind, self.path.display())
    }

    /// Waits for the other end.
    ///
    /// # Errors
    /// When there will be no other end any more; one that is away for now is waited for, without a wake-up where the
    /// kernel tells of its return and with back-off where it does not.
    pub async fn next(&mut self) -> Result<Conversation, ChannelError> {
        let fail =
            |error: io::Error| ChannelError { kind: self.kind, path: self.path.clone(), what: error.to_string() };
        match &mut self.state {
            State::Port(port) => {
                port.present().await.map_err(&fail)?;
                Ok(Box::new(port.conversation().map_err(&fail)?))
            }
            State::Unix(listener) => Ok(Box::new(listener.accept().await.map_err(&fail)?.0)),
            State::Connect { first } => {
                let mut wait = if std::mem::take(first) { Duration::ZERO } else { BACK_OFF_FIRST };
                loop {
                    tokio::time::sleep(wait).await;
                    match UnixStream::connect(&self.path).await {
                        Ok(stream) => return Ok(Box::new(stream)),
                        Err(error) => tracing::debug!(path = %self.path.display(), %error, "not connected yet"),
                    }
                    wait = (wait * 2).clamp(BACK_OFF_FIRST, BACK_OFF_LAST);
                }
            }
            State::Serial => loop {
                match open_serial(&self.path) {
                    Ok(fd) => return Ok(Box::new(Port::new(fd).conversation().map_err(&fail)?)),
                    Err(error) => tracing::debug!(path = %self.path.display(), error, "not open yet"),
                }
                tokio::time::sleep(BACK_OFF_LAST).await;
            },
            State::Vsock(listener) => {
                let port = Port::new(accept_vsock(listener).await.map_err(&fail)?);
                Ok(Box::new(port.conversation().map_err(&fail)?))
            }
        }
    }
}

/// The waits between attempts to connect.
pub const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// The longest of them.
pub const BACK_OFF_LAST: Duration = Duration::from_secs(5);

fn open_port(path: &Path) -> Result<OwnedFd, String> {
    use nix::errno::Errno;
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::ENOENT => {
            "no such port; give the VM a virtserialport of that name (README, \"Give a VM its channel\")".into()
        }
        Errno::EBUSY => "another program has the port open".into(),
        Errno::EACCES | Errno::EPERM => format!("{}; the system daemon runs as root", errno.desc()),
        _ => errno.desc().to_owned(),
    })
}

/// Makes a unix socket, over a stale file but never over a live one.
///
/// # Errors
/// What is wrong, in words.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener, String> {
    if let Ok(existing) = std::fs::symlink_metadata(path) {
        if !existing.file_type().is_socket() {
            return Err("a file that is no socket is in the way".into());
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err("another daemon listens there already".into());
        }
        std::fs::remove_file(path).map_err(|error| format!("removing the stale socket: {error}"))?;
    }
    // Nobody gets in between making the socket and setting its mode: its directory entry appears with the strict mode.
    let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = listener.map_err(|error| error.to_string())?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|error| error.to_string())?;
    Ok(listener)
}

/// Opens a serial line raw at 38400 baud, which is what the 2011 agent uses.
fn open_serial(path: &Path) -> Result<OwnedFd, String> {
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let say = |errno: nix::errno::Errno| errno.desc().to_owned();
    let fd = nix::fcntl::open(path, flags, Mode::empty()).map_err(say)?;
    let mut settings = termios::tcgetattr(&fd).map_err(|errno| format!("not a serial line: {}", errno.desc()))?;
    termios::cfmakeraw(&mut settings);
    termios::cfsetspeed(&mut settings, BaudRate::B38400).map_err(say)?;
    termios::tcsetattr(&fd, SetArg::TCSANOW, &settings).map_err(say)?;
    Ok(fd)
}

/// Listens on an AF_VSOCK port, for callers of any context id.
fn listen_vsock(path: &Path) -> Result<AsyncFd<OwnedFd>, String> {
    let number = path.to_str().and_then(|text| text.parse::<u32>().ok());
    let number = number.ok_or("the path of vsock-listen is a port number, such as -p 1024")?;
    let open = || -> io::Result<_> {
        let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::vsock(VMADDR_CID_ANY, number))?;
        socket.listen(8)?;
        readable(socket.into())
    };
    open().map_err(|error| error.to_string())
}

/// linux/vm_sockets.h
const VMADDR_CID_ANY: u32 = u32::MAX;

async fn accept_vsock(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    loop {
        let mut ready = listener.readable().await?;
        if let Ok(accepted) = ready.try_io(|listener| SockRef::from(listener.get_ref()).accept()) {
            let (socket, _) = accepted?;
            socket.set_nonblocking(true)?;
            return Ok(socket.into());
        }
    }
}
