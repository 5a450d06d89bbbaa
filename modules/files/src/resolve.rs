//! From a path as asked to a descriptor of exactly what policy judged.
//!
//! Owns the resolution of symlinks and the only opens of this crate. A path is resolved first and then opened with
//! `RESOLVE_NO_SYMLINKS` (openat2(2)), so that a symlink put there in between is refused instead of followed. Must
//! never open a path by any other way.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use agent_core::module::CallContext;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};

/// A path that a caller named, and what policy made of it.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    /// What was asked for, absolute.
    asked: PathBuf,
    /// What policy judged, when a rule looked at paths.
    judged: Option<PathBuf>,
}

impl Named {
    pub(crate) fn new(cx: &CallContext, parameter: &str, asked: PathBuf) -> Self {
        Self { asked, judged: cx.resolved_path(parameter).map(Path::to_owned) }
    }

    /// What the whole path leads to, its last component perhaps not yet there.
    pub(crate) fn followed(self) -> Result<PathBuf> {
        match self.judged {
            Some(judged) => Ok(judged),
            None => follow(&self.asked),
        }
    }

    /// The directory entry itself, a symlink or not: for what removes, renames or describes an entry.
    pub(crate) fn entry(self) -> Result<PathBuf> {
        let entry = parent_and_name(&self.asked)?;
        self.same_as_judged(entry)
    }

    /// What the path leads to, with any number of components that are still to be made.
    pub(crate) fn path_to_make(self) -> Result<PathBuf> {
        let path = follow_what_exists(&self.asked)?;
        self.same_as_judged(path)
    }

    fn same_as_judged(self, path: PathBuf) -> Result<PathBuf> {
        match self.judged {
            Some(judged) if judged != path => Err(Error::Denied(format!(
                "this call would act on {}, but policy judged {}: name the entry itself, without a symlink",
                path.display(),
                judged.display()
            ))),
            _ => Ok(path),
        }
    }
}

fn follow(path: &Path) -> Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => parent_and_name(path),
        result => result.map_err(|error| Error::io(format!("resolve {}", path.display()), error)),
    }
}

fn parent_and_name(path: &Path) -> Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::Invalid(format!("{}: want a path that ends in a name", path.display())));
    };
    match parent.canonicalize() {
        Ok(parent) => Ok(parent.join(name)),
        Err(error) => Err(Error::io(format!("resolve {}", parent.display()), error)),
    }
}

fn follow_what_exists(path: &Path) -> Result<PathBuf> {
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut there = path;
    loop {
        match there.canonicalize() {
            Ok(found) => return Ok(found.join(missing.iter().rev().collect::<PathBuf>())),
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            Err(error) => return Err(Error::io(format!("resolve {}", there.display()), error)),
        }
        match (there.components().next_back(), there.parent()) {
            (Some(Component::Normal(name)), Some(parent)) => {
                missing.push(name);
                there = parent;
            }
            _ => return Err(Error::Invalid(format!("{}: `..` after a directory that is not there", path.display()))),
        }
    }
}

/// Opens a resolved path, and nothing that a symlink leads to.
pub(crate) fn open(path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    open_at(AT_FDCWD, path.as_os_str(), flags, mode).map_err(|errno| in_the_way("open", path, errno))
}

/// The same below an open directory.
pub(crate) fn open_at(
    directory: impl AsFd,
    name: &OsStr,
    flags: OFlag,
    mode: Mode,
) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    // openat2 refuses what means nothing beside O_PATH.
    let usual = if flags.contains(OFlag::O_PATH) { OFlag::empty() } else { OFlag::O_NOCTTY | OFlag::O_LARGEFILE };
    let how = OpenHow::new().flags(flags | usual | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    loop {
        match openat2(&directory, name, how) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// The error of opening a resolved path; ELOOP can only mean that a symlink is where none was.
pub(crate) fn in_the_way(verb: &str, path: &Path, errno: Errno) -> Error {
    let path = path.display();
    match errno {
        Errno::ELOOP => Error::os(format!("{verb} {path} (a symlink is in the way, or was put there just now)"), errno),
        _ => Error::os(format!("{verb} {path}"), errno),
    }
}

/// A directory entry as its open directory and its name.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The directory, open for lookups only.
    pub(crate) directory: OwnedFd,
    /// The name in it.
    pub(crate) name: OsString,
    /// Both, for messages.
    pub(crate) path: PathBuf,
}

impl Entry {
    /// Opens the directory of a resolved path.
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Invalid(format!("{}: not an entry of a directory", path.display())));
        };
        let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?;
        Ok(Self { directory, name: name.to_owned(), path })
    }

    /// The error of `verb` on this entry.
    pub(crate) fn error(&self, verb: &str, errno: Errno) -> Error {
        Error::os(format!("{verb} {}", self.path.display()), errno)
    }
}
