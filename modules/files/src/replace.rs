//! The new file that takes an old one's place at close.
//!
//! Owns the temporary beside the path, and removes it unless it took the place. Must never leave it to be seen under the
//! path before it is whole, checked and on the disk.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, unlinkat};

use crate::error::{Error, Result};
use crate::resolve::{Entry, in_the_way, open, open_at};

/// `NAME_MAX` of limits.h.
const NAME_MAX: usize = 255;

/// A temporary that will be a file.
#[derive(Debug)]
pub(crate) struct Replacement {
    entry: Entry,
    temporary: OsString,
    /// Whether the directory could be opened to be synced; one that may be written but not read can't.
    syncable: Option<OwnedFd>,
    permissions: Option<u32>,
    in_place: bool,
}

impl Replacement {
    /// Makes the temporary, readable by its owner only. Blocks.
    pub(crate) fn begin(path: PathBuf, permissions: Option<u32>) -> Result<(Self, File)> {
        let entry = Entry::open(path)?;
        let parent = entry.path.parent().unwrap_or(&entry.path);
        let syncable = open(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).ok();
        existing(&entry)?;
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        for _ in 0..16 {
            let temporary = temporary_name(&entry)?;
            match open_at(&entry.directory, &temporary, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
                Ok(fd) => {
                    let replacement = Self { entry, temporary, syncable, permissions, in_place: false };
                    return Ok((replacement, File::from(fd)));
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(in_the_way("make a temporary beside", &entry.path, errno)),
            }
        }
        Err(entry.error("make a temporary beside", Errno::EEXIST))
    }

    /// Gives the temporary the old file's owner and mode, puts it on the disk and into the path's place. Blocks.
    pub(crate) fn commit(&mut self, file: &File) -> Result<()> {
        let failed = |what: &str, errno| self.entry.error(what, errno);
        let mine = fstat(file).map_err(|errno| failed("look at the temporary of", errno))?;
        let mode = match existing(&self.entry)? {
            Some(old) => {
                if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid) {
                    let (owner, group) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
                    fchown(file, Some(owner), Some(group)).map_err(|errno| failed("keep the owner of", errno))?;
                }
                old.st_mode & 0o7777
            }
            None => self.permissions.unwrap_or_else(|| 0o644 & !umask()),
        };
        fchmod(file, Mode::from_bits_truncate(mode)).map_err(|errno| failed("set the mode of", errno))?;
        fsync(file).map_err(|errno| failed("write to the disk", errno))?;
        let (directory, name) = (&self.entry.directory, self.entry.name.as_os_str());
        renameat(directory, self.temporary.as_os_str(), directory, name).map_err(|errno| failed("replace", errno))?;
        self.in_place = true;
        match &self.syncable {
            Some(directory) => fsync(directory).map_err(|errno| self.entry.error("sync the directory of", errno)),
            None => Ok(()),
        }
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.in_place {
            return;
        }
        let removed = unlinkat(&self.entry.directory, self.temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
        if let Err(errno) = removed
            && errno != Errno::ENOENT
        {
            let (path, temporary) = (self.entry.path.display(), self.temporary.display());
            tracing::warn!("the temporary {temporary} beside {path} stays: {errno}");
        }
    }
}

/// What is to be replaced, if it is there; only a regular file can be.
fn existing(entry: &Entry) -> Result<Option<FileStat>> {
    match fstatat(&entry.directory, entry.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG => Ok(Some(stat)),
        Ok(_) => Err(Error::Invalid(format!("{}: only a regular file can be replaced", entry.path.display()))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(entry.error("look at", errno)),
    }
}

/// `.NAME.virtagent-XXXXXX`, a long NAME cut so that it fits.
fn temporary_name(entry: &Entry) -> Result<OsString> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    const MARK: &[u8] = b".virtagent-";
    let mut random = [0; 6];
    getrandom::fill(&mut random)
        .map_err(|error| Error::Io { what: "get random bytes".into(), error: std::io::Error::other(error) })?;
    let name = entry.name.as_bytes();
    let kept = name.len().min(NAME_MAX - 1 - MARK.len() - random.len());
    let mut temporary = vec![b'.'];
    temporary.extend_from_slice(&name[..kept]);
    temporary.extend_from_slice(MARK);
    temporary.extend(random.iter().map(|byte| ALPHABET[usize::from(byte & 31)]));
    Ok(OsString::from_vec(temporary))
}

/// This process's umask, without the moment in which asking umask(2) sets another: proc(5), Linux 4.7.
pub(crate) fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}
