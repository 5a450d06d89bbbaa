//! From `-s`, `--vm` and the environment to a connected stream.
//!
//! Owns finding the channel and saying what to do when it can't be used. Must never speak on it.

mod libvirt;
mod vms;

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use tokio::net::UnixStream;

use crate::cli::Global;
use crate::failure::{Failure, Result, reason};

/// Names the socket when no option does.
const VARIABLE: &str = "VIRTAGENT_SOCKET";

/// How long the other end may take to accept: a full backlog makes connecting to a unix socket wait.
const ACCEPT: Duration = Duration::from_secs(5);

/// Where a VM's channel is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Vsock { cid: u32, port: u32 },
}

/// A VM and its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What messages call it.
    pub name: String,
    pub address: Address,
}

impl Address {
    /// `vsock:CID:PORT`, or else a path.
    fn parse(text: &Path) -> Result<Self> {
        let Some(numbers) = text.to_str().and_then(|text| text.strip_prefix("vsock:")) else {
            return Ok(Self::Unix(text.to_owned()));
        };
        let parsed = numbers.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
        let (cid, port) = parsed
            .ok_or_else(|| Failure::usage(format!("not a vsock address (want vsock:CID:PORT): vsock:{numbers}")))?;
        Ok(Self::Vsock { cid, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

/// The VM that the command line means.
pub fn locate(global: &Global) -> Result<Target> {
    let places = Places::of_this_user();
    if let Some(path) = &global.socket {
        return named_by_address(path);
    }
    if let Some(name) = &global.vm {
        return by_name(name, &places);
    }
    match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        Some(path) => named_by_address(Path::new(&path)),
        None => only_one(candidates(&places)?, &places),
    }
}

fn named_by_address(path: &Path) -> Result<Target> {
    let address = Address::parse(path)?;
    Ok(Target { name: address.to_string(), address })
}

/// Where VMs are looked for.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// `vms.toml`.
    vms: Option<PathBuf>,
    libvirt: libvirt::Roots,
}

impl Places {
    fn of_this_user() -> Self {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = variable("XDG_CONFIG_HOME").or_else(|| home.map(|home| home.join(".config")));
        let runtime = variable("XDG_RUNTIME_DIR");
        Self {
            vms: config.as_ref().map(|config| config.join("virtagent/vms.toml")),
            libvirt: libvirt::Roots::usual(config.as_deref(), runtime.as_deref()),
        }
    }

    fn vms_file(&self) -> String {
        self.vms.as_ref().map_or_else(|| "~/.config/virtagent/vms.toml".to_owned(), |path| path.display().to_string())
    }

    fn known(&self) -> Result<BTreeMap<String, PathBuf>> {
        self.vms.as_deref().map_or_else(|| Ok(BTreeMap::new()), vms::read)
    }
}

fn by_name(name: &str, places: &Places) -> Result<Target> {
    if let Some(socket) = places.known()?.remove(name) {
        return Ok(Target { name: name.to_owned(), address: Address::parse(&socket)? });
    }
    let mut channels = libvirt::channels_of(name, &places.libvirt);
    if channels.len() > 1 {
        let list = list(channels.iter().map(|path| path.display().to_string()));
        return Err(Failure::usage(format!("{name} could be several libvirt domains; choose one with -s: {list}")));
    }
    if let Some(path) = channels.pop() {
        return Ok(Target { name: name.to_owned(), address: Address::Unix(path) });
    }
    let others = candidates(places).unwrap_or_default();
    let known = if others.is_empty() {
        "no other VM is found either".to_owned()
    } else {
        format!("found: {}", list(others.iter().map(|target| target.name.clone())))
    };
    let file = places.vms_file();
    let unreadable = libvirt::unreadable(&places.libvirt)
        .map_or_else(String::new, |path| format!(", and {} is closed to you (try as root)", path.display()));
    Err(Failure::NoConnection(format!(
        "no VM {name}: neither [vm.{name}] in {file} nor a running libvirt domain with a channel {}{unreadable}; {known}",
        libvirt::PORT
    )))
}

/// Every VM that can be found, by name.
fn candidates(places: &Places) -> Result<Vec<Target>> {
    let mut found = Vec::new();
    for (name, socket) in places.known()? {
        found.push(Target { name, address: Address::parse(&socket)? });
    }
    for (name, path) in libvirt::channels(&places.libvirt) {
        let address = Address::Unix(path);
        if !found.iter().any(|target| target.address == address) {
            found.push(Target { name, address });
        }
    }
    Ok(found)
}

fn only_one(mut candidates: Vec<Target>, places: &Places) -> Result<Target> {
    if candidates.len() > 1 {
        let list = list(candidates.iter().map(|target| target.name.clone()));
        return Err(Failure::usage(format!("which VM? give --vm NAME, or -s PATH; found: {list}")));
    }
    candidates.pop().ok_or_else(|| {
        let unreadable = libvirt::unreadable(&places.libvirt)
            .map_or_else(String::new, |path| format!(" ({} is closed to you: try as root)", path.display()));
        Failure::NoConnection(format!(
            "no VM found: give -s PATH, name one in {}, or run a libvirt domain with a channel {}{unreadable}",
            places.vms_file(),
            libvirt::PORT
        ))
    })
}

fn list(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Connects; every reason why that can fail says what to do.
pub async fn open(target: &Target) -> Result<UnixStream> {
    match &target.address {
        Address::Unix(path) => match tokio::time::timeout(ACCEPT, UnixStream::connect(path)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Failure::NoConnection(cannot_connect(path, &error))),
            Err(_) => Err(Failure::NoConnection(busy(&target.address))),
        },
        Address::Vsock { cid, port } => {
            let (cid, port) = (*cid, *port);
            let connecting = tokio::task::spawn_blocking(move || connect_vsock(cid, port));
            let fd = tokio::time::timeout(ACCEPT, connecting).await;
            let fd = match fd {
                Ok(Ok(Ok(fd))) => fd,
                Ok(Ok(Err(errno))) => {
                    return Err(Failure::NoConnection(format!(
                        "can't connect to vsock:{cid}:{port}: {}; is the VM running with that guest-cid, and virtagentd -c vsock-listen in it?",
                        errno.desc()
                    )));
                }
                _ => return Err(Failure::NoConnection(format!("vsock:{cid}:{port} does not accept a connection"))),
            };
            // Reading and writing a connected stream is the same for every family.
            let stream = std::os::unix::net::UnixStream::from(fd);
            let adopted = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
            adopted.map_err(|error| Failure::NoConnection(format!("vsock:{cid}:{port}: {error}")))
        }
    }
}

fn connect_vsock(cid: u32, port: u32) -> nix::Result<OwnedFd> {
    let fd = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &VsockAddr::new(cid, port))?;
    Ok(fd)
}

/// What to say when a connected channel stays silent.
pub fn busy(address: &Address) -> String {
    format!(
        "no answer on {address}: either another program holds the channel (it serves one at a time), or virtagentd does not run in the guest (there: systemctl status virtagentd)"
    )
}

fn cannot_connect(path: &Path, error: &std::io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        ErrorKind::NotFound => {
            format!("no socket {shown}: is the VM running, with a channel {} whose socket is there?", libvirt::PORT)
        }
        ErrorKind::ConnectionRefused if !is_socket(path) => {
            format!("{shown} is not a socket: -s wants the host's end of the VM's channel")
        }
        ErrorKind::ConnectionRefused => {
            format!("nobody listens on {shown}: the VM that made it has ended; start it, or correct the path")
        }
        ErrorKind::PermissionDenied => {
            format!("no permission for {shown}: use sudo, or become a member of the group that may write to it")
        }
        ErrorKind::InvalidInput => format!("{shown} is too long for a socket's path (107 bytes at most)"),
        _ => format!("can't connect to {shown}: {}", reason(error)),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dir: &Path) -> Places {
        Places { vms: Some(dir.join("vms.toml")), libvirt: libvirt::Roots::below(&dir.join("run"), &dir.join("lib")) }
    }

    fn channel(dir: &Path, name: &str) {
        let dir = dir.join("run/channel").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::os::unix::net::UnixListener::bind(dir.join(libvirt::PORT)).unwrap();
    }

    #[test]
    fn vms_toml_comes_before_libvirt() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vms.toml"), "[vm.web1]\nsocket = \"/run/vm/web1.sock\"\n").unwrap();
        channel(dir.path(), "1-web1");
        let target = by_name("web1", &places(dir.path())).unwrap();
        assert_eq!(target.address, Address::Unix("/run/vm/web1.sock".into()));
    }

    #[test]
    fn the_only_vm_needs_no_name() {
        let dir = tempfile::tempdir().unwrap();
        channel(dir.path(), "3-db");
        let places = places(dir.path());
        let target = only_one(candidates(&places).unwrap(), &places).unwrap();
        assert_eq!(target.name, "db");
    }

    #[test]
    fn several_vms_are_listed_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        channel(dir.path(), "3-db");
        channel(dir.path(), "4-web");
        let places = places(dir.path());
        let failure = only_one(candidates(&places).unwrap(), &places).unwrap_err();
        assert!(failure.to_string().ends_with("found: db, web"), "{failure}");
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn an_unknown_name_lists_what_there_is() {
        let dir = tempfile::tempdir().unwrap();
        channel(dir.path(), "3-db");
        let failure = by_name("dbb", &places(dir.path())).unwrap_err();
        assert!(failure.to_string().contains("found: db"), "{failure}");
        assert_eq!(failure.exit_code(), 3);
    }

    #[test]
    fn an_address_is_a_path_or_vsock() {
        assert_eq!(Address::parse(Path::new("vsock:3:9000")).unwrap(), Address::Vsock { cid: 3, port: 9000 });
        assert_eq!(Address::parse(Path::new("./x")).unwrap(), Address::Unix("./x".into()));
        assert!(Address::parse(Path::new("vsock:3")).is_err());
    }

    #[tokio::test]
    async fn a_socket_that_is_not_there_or_that_nobody_listens_on_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("va.sock");
        let target = Target { name: "x".into(), address: Address::Unix(path.clone()) };
        assert!(open(&target).await.unwrap_err().to_string().starts_with("no socket "));
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(open(&target).await.unwrap_err().to_string().starts_with("nobody listens on "));
    }
}
