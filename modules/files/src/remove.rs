//! Removing entries, and whole trees of them. Everything here blocks.
//!
//! Must never follow a symlink or leave the filesystem that it began on.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result};
use crate::resolve::Entry;

/// How deep a tree may be: each level costs a descriptor while it is emptied.
const MAX_DEPTH: usize = 128;

/// How many names of one directory are kept while it is emptied.
const BATCH: usize = 4096;

/// Removes the entry at a resolved path: a symlink itself, an empty directory, or with `recursive` a whole tree.
pub(crate) fn remove(path: PathBuf, recursive: bool, stop: impl Fn() -> bool) -> Result<()> {
    let entry = Entry::open(path)?;
    let name = entry.name.as_os_str();
    match unlinkat(&entry.directory, name, UnlinkatFlags::NoRemoveDir) {
        // unlinkat(2) says EISDIR, POSIX and some filesystems EPERM.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        result => return result.map_err(|errno| entry.error("remove", errno)),
    }
    match unlinkat(&entry.directory, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOTEMPTY | Errno::EEXIST) if recursive => {}
        Err(Errno::ENOTDIR) => return Err(entry.error("remove", Errno::EPERM)),
        Err(errno @ (Errno::ENOTEMPTY | Errno::EEXIST)) => {
            return Err(Error::os(format!("remove {} (recursive=true would empty it)", entry.path.display()), errno));
        }
        result => return result.map_err(|errno| entry.error("remove", errno)),
    }
    empty(&entry, &stop)?;
    unlinkat(&entry.directory, name, UnlinkatFlags::RemoveDir).map_err(|errno| entry.error("remove", errno))
}

/// A directory that is being emptied: its names that were read and not yet removed.
struct Level {
    directory: Dir,
    name: OsString,
    names: Vec<(OsString, bool)>,
}

impl Level {
    fn enter(parent: impl AsFd, name: &OsStr) -> nix::Result<Self> {
        let directory = Dir::from_fd(open_directory(parent, name)?)?;
        let mut level = Self { directory, name: name.to_owned(), names: Vec::new() };
        level.refill()?;
        Ok(level)
    }

    fn refill(&mut self) -> nix::Result<()> {
        for entry in self.directory.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                self.names.push((name.to_owned(), entry.file_type() == Some(Type::Directory)));
            }
            if self.names.len() == BATCH {
                break;
            }
        }
        Ok(())
    }
}

fn open_directory(parent: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let resolve = ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(parent, name, OpenHow::new().flags(flags).resolve(resolve))
}

fn empty(entry: &Entry, stop: &impl Fn() -> bool) -> Result<()> {
    let failed = |name: &OsStr, errno| match errno {
        Errno::EXDEV => {
            let (name, path) = (name.display(), entry.path.display());
            Error::os(format!("remove {name} in {path} (another filesystem is mounted there)"), errno)
        }
        _ => Error::os(format!("remove {} in {}", name.display(), entry.path.display()), errno),
    };
    let name = entry.name.as_os_str();
    let mut levels = vec![Level::enter(&entry.directory, name).map_err(|errno| failed(name, errno))?];
    while let Some(level) = levels.last_mut() {
        if stop() {
            return Err(Error::Cancelled);
        }
        let Some((name, is_directory)) = level.names.pop() else {
            level.refill().map_err(|errno| failed(&level.name, errno))?;
            if level.names.is_empty() {
                let done = levels.pop();
                if let (Some(done), Some(parent)) = (done, levels.last()) {
                    unlinkat(&parent.directory, done.name.as_os_str(), UnlinkatFlags::RemoveDir)
                        .map_err(|errno| failed(&done.name, errno))?;
                }
            }
            continue;
        };
        let removed = match is_directory {
            true => Err(Errno::EISDIR),
            false => unlinkat(&level.directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir),
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => {
                let below = Level::enter(&level.directory, &name).map_err(|errno| failed(&name, errno))?;
                levels.push(below);
                if levels.len() > MAX_DEPTH {
                    let path = entry.path.display();
                    return Err(Error::Limit(format!("remove {path}: it is more than {MAX_DEPTH} directories deep")));
                }
            }
            Err(errno) => return Err(failed(&name, errno)),
        }
    }
    Ok(())
}
