//! What is done to directory entries: describing, listing, making, removing, renaming. Everything here blocks.
//!
//! Every entry is reached through its open directory. Must never follow a symlink: paths come resolved.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, readlinkat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Group, Uid, User};

use crate::error::{Error, Result};
use crate::params::{FileType, ListEntry, Listing, Metadata, StatResult};
use crate::path::odd_bytes;
use crate::resolve::{Entry, in_the_way, open, open_at};

/// Describes what is at a resolved path; a symlink there is described itself if `links` are wanted, and refused if not.
pub(crate) fn stat(path: &Path, links: bool) -> Result<StatResult> {
    let fd = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty())?;
    let stat = fstat(&fd).map_err(|errno| Error::os(format!("stat {}", path.display()), errno))?;
    let kind = file_type(&stat);
    if kind == FileType::Symlink && !links {
        return Err(in_the_way("stat", path, Errno::ELOOP));
    }
    let target = (kind == FileType::Symlink).then(|| readlinkat(&fd, "").ok()).flatten();
    let user = User::from_uid(Uid::from_raw(stat.st_uid)).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(Gid::from_raw(stat.st_gid)).ok().flatten().map(|group| group.name);
    Ok(StatResult { metadata: metadata(&stat, target), user, group })
}

fn file_type(stat: &FileStat) -> FileType {
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => FileType::Directory,
        SFlag::S_IFLNK => FileType::Symlink,
        SFlag::S_IFIFO => FileType::Fifo,
        SFlag::S_IFSOCK => FileType::Socket,
        SFlag::S_IFBLK => FileType::Block,
        SFlag::S_IFCHR => FileType::Char,
        _ => FileType::File,
    }
}

#[allow(clippy::cast_precision_loss)]
fn metadata(stat: &FileStat, target: Option<OsString>) -> Metadata {
    Metadata {
        kind: file_type(stat),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: stat.st_mtime as f64 + stat.st_mtime_nsec as f64 / 1e9,
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}

/// Lists a directory's entries by name, from the `offset`th, at most `limit`. Keeps only the names up to the last one
/// asked for, however many there are.
pub(crate) fn list(path: &Path, offset: usize, limit: usize, stop: impl Fn() -> bool) -> Result<Listing> {
    let failed = |errno| Error::os(format!("list {}", path.display()), errno);
    let fd = open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut directory = Dir::from_fd(fd).map_err(failed)?;
    let wanted = offset.saturating_add(limit);
    let mut first: BinaryHeap<OsString> = BinaryHeap::new();
    let mut total = 0u64;
    for entry in directory.iter() {
        let entry = entry.map_err(failed)?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        total += 1;
        if total.is_multiple_of(1024) && stop() {
            return Err(Error::Cancelled);
        }
        if first.len() < wanted {
            first.push(name.to_owned());
        } else if first.peek().is_some_and(|last| name < last.as_os_str()) {
            first.pop();
            first.push(name.to_owned());
        }
    }
    let more = total > wanted as u64;
    let names = first.into_sorted_vec();
    // What went away since its name was read is left out.
    let entries = names.into_iter().skip(offset).filter_map(|name| describe(&directory, &name)).collect();
    Ok(Listing { entries, total, more })
}

fn describe(directory: impl AsFd, name: &OsStr) -> Option<ListEntry> {
    let stat = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
    let target = (file_type(&stat) == FileType::Symlink).then(|| readlinkat(&directory, name).ok()).flatten();
    Some(ListEntry {
        name: name.to_string_lossy().into_owned(),
        name_bytes: odd_bytes(name),
        metadata: metadata(&stat, target),
    })
}

/// Makes one directory at a resolved path.
pub(crate) fn make_directory(path: PathBuf, mode: Option<u32>) -> Result<()> {
    let entry = Entry::open(path)?;
    let name = entry.name.as_os_str();
    make_at(&entry.directory, name, mode).map_err(|errno| entry.error("make the directory", errno))
}

fn make_at(directory: impl AsFd, name: &OsStr, mode: Option<u32>) -> nix::Result<()> {
    let bits = Mode::from_bits_truncate(mode.unwrap_or(0o755));
    mkdirat(&directory, name, bits)?;
    if mode.is_some() {
        let made = open_at(&directory, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
        fchmod(made, bits)?;
    }
    Ok(())
}

/// Makes a directory and the parents that it lacks; one that is there is fine.
pub(crate) fn make_directories(path: &Path, mode: Option<u32>) -> Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let mut directory = open(Path::new("/"), flags, Mode::empty())?;
    let mut names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let mut name = names.next();
    while let Some(current) = name {
        name = names.next();
        let failed = |errno| in_the_way("make the directory", path, errno);
        directory = match open_at(&directory, current, flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                let bits = if name.is_none() { mode } else { None };
                match make_at(&directory, current, bits) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(failed(errno)),
                }
                open_at(&directory, current, flags, Mode::empty()).map_err(failed)?
            }
            opened => opened.map_err(failed)?,
        };
    }
    Ok(())
}

/// Renames an entry; what is at the new path is spared unless it may be overwritten.
pub(crate) fn rename(from: PathBuf, to: PathBuf, overwrite: bool) -> Result<()> {
    let (from, to) = (Entry::open(from)?, Entry::open(to)?);
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::RENAME_NOREPLACE };
    let (old, new) = (from.name.as_os_str(), to.name.as_os_str());
    renameat2(&from.directory, old, &to.directory, new, flags).map_err(|errno| {
        let hint = match errno {
            Errno::EEXIST => " (overwrite=true would replace it)",
            Errno::EINVAL if !overwrite => " (this filesystem may be unable to rename without overwriting)",
            _ => "",
        };
        Error::os(format!("rename {} to {}{hint}", from.path.display(), to.path.display()), errno)
    })
}

/// Opens a resolved path to be digested: what has an end.
pub(crate) fn open_to_digest(path: &Path) -> Result<File> {
    let file = File::from(open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?);
    let stat = fstat(&file).map_err(|errno| Error::os(format!("stat {}", path.display()), errno))?;
    match file_type(&stat) {
        FileType::File | FileType::Block => Ok(file),
        _ => Err(Error::Invalid(format!("{}: only a file or a block device has a digest", path.display()))),
    }
}
