//! The log's file: opened so that nobody else's file is ever written, locked, appended to whole or not at all,
//! rotated. Owns the descriptors and the last link on disk; knows nothing of records.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;

use super::chain::{self, Link};
use super::error::{AuditError, errno_of};
use super::tail::{self, Tail};

pub(super) struct LogFile {
    pub path: Arc<Path>,
    file: File,
    /// Up to here every line is whole and in the chain.
    length: u64,
    /// The file ends in the midst of a line, and what is written next begins with a newline.
    torn: bool,
    sync: bool,
    lock: Flock<File>,
}

/// What the file system says of the log since the last write.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// Somebody else wrote to it or cut it; the lengths that were expected and found.
    Length(u64, u64),
    /// It was deleted.
    Deleted,
}

impl LogFile {
    /// Opens or creates the log and takes its lock; reads where its chain ends.
    pub fn open(path: &Path, sync: bool) -> Result<(Self, Tail, Option<Link>), AuditError> {
        let directory = chain::directory(path);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|error| AuditError::file(directory, "make the directory", &error))?;
        let lock = lock(path)?;
        let head = tail::read_head(&lock);
        let (file, length) = open_checked(path)?;
        let tail = tail::read(path, &file, length)?;
        let torn = tail.torn;
        Ok((Self { path: path.into(), file, length, torn, sync, lock }, tail, head))
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Looks at the file that is about to be written.
    pub fn look(&mut self) -> io::Result<Change> {
        let metadata = self.file.metadata()?;
        if metadata.nlink() == 0 {
            return Ok(Change::Deleted);
        }
        let (expected, found) = (self.length, metadata.len());
        if found == expected {
            return Ok(Change::None);
        }
        self.length = found;
        let mut last = [b'\n'];
        if found > 0 {
            self.file.read_exact_at(&mut last, found - 1)?;
        }
        self.torn = last != *b"\n";
        Ok(Change::Length(expected, found))
    }

    /// Appends the lines, all of them or none, usually with one write(2).
    pub fn append(&mut self, lines: &mut Vec<u8>) -> Result<(), Errno> {
        if self.torn {
            lines.insert(0, b'\n');
        }
        let written = self.file.write_all(lines).and_then(|()| if self.sync { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.length += lines.len() as u64;
                self.torn = false;
                Ok(())
            }
            Err(error) => {
                // Should this fail too, the next look() finds the length and the torn line.
                if let Err(error) = self.file.set_len(self.length) {
                    tracing::warn!("audit log {}: cutting a half-written record: {error}", self.path.display());
                }
                Err(errno_of(&error))
            }
        }
    }

    /// Notes the last link beside the log, so that lines missing from the end are found. Best effort: the log itself
    /// is the record.
    pub fn write_head(&self, link: Link) {
        if let Err(error) = self.lock.write_all_at(&tail::head_line(link), 0) {
            tracing::debug!("audit log {}: noting the last record: {error}", self.path.display());
        }
    }

    /// Renames the log to `.1` (and `.1` to `.2`, and so on; what is beyond `keep` goes) and begins a new one. Answers
    /// how many rotated files there are now.
    pub fn rotate(&mut self, keep: u32) -> Result<u32, AuditError> {
        let path = Arc::clone(&self.path);
        let failed = |doing| {
            let path = Arc::clone(&path);
            move |error: io::Error| AuditError::file(&path, doing, &error)
        };
        // The new file first: with no room for one the old one goes on.
        let fresh = chain::with_suffix(&path, ".new");
        ignore_missing(std::fs::remove_file(&fresh)).map_err(failed("remove a left-over .new"))?;
        let file = options().create_new(true).open(&fresh).map_err(failed("create the next file"))?;
        let numbers = chain::rotated_numbers(&path).map_err(failed("list the rotated files"))?;
        let mut kept = 0;
        for number in numbers {
            let old = chain::rotated_path(&path, number);
            let moved = if number >= keep {
                std::fs::remove_file(&old)
            } else {
                kept += 1;
                std::fs::rename(&old, chain::rotated_path(&path, number + 1))
            };
            ignore_missing(moved).map_err(failed("move a rotated file"))?;
        }
        if keep > 0 {
            kept += 1;
            ignore_missing(std::fs::rename(&path, chain::rotated_path(&path, 1))).map_err(failed("rotate"))?;
        }
        std::fs::rename(&fresh, &path).map_err(failed("put the next file in place"))?;
        if self.sync {
            let directory = chain::directory(&path);
            File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("sync the directory"))?;
        }
        (self.file, self.length, self.torn) = (file, 0, false);
        Ok(kept)
    }

    /// Opens the log anew if its name means another file by now (logrotate, a deleted log). Answers whether it did.
    pub fn reopen(&mut self) -> Result<bool, AuditError> {
        let ours = self.file.metadata().map_err(|error| AuditError::file(&self.path, "look at it", &error))?;
        match std::fs::symlink_metadata(&self.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(false),
            _ => {}
        }
        let (file, length) = open_checked(&self.path)?;
        let tail = tail::read(&self.path, &file, length)?;
        (self.file, self.length, self.torn) = (file, length, tail.torn);
        Ok(true)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Without O_NONBLOCK somebody's FIFO would hold the daemon; a regular file does not care.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    options.read(true).append(true).mode(0o600).custom_flags(flags.bits());
    options
}

fn open_checked(path: &Path) -> Result<(File, u64), AuditError> {
    let file = options().create(true).open(path).map_err(|error| match error.raw_os_error() {
        Some(number) if number == Errno::ELOOP as i32 => unsafe_file(path, "is a symbolic link; name the file itself"),
        _ => AuditError::file(path, "open", &error),
    })?;
    let metadata = file.metadata().map_err(|error| AuditError::file(path, "look at it", &error))?;
    if !metadata.is_file() {
        return Err(unsafe_file(path, "is not a regular file; move it away or set another audit.file"));
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(unsafe_file(path, &format!("belongs to UID {}, not to us ({})", metadata.uid(), geteuid())));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(unsafe_file(path, &format!("others may write to it (mode {mode:04o}); chmod it to 0600")));
    }
    Ok((file, metadata.len()))
}

fn unsafe_file(path: &Path, reason: &str) -> AuditError {
    AuditError::Unsafe { file: path.to_owned(), reason: reason.to_owned() }
}

fn lock(path: &Path) -> Result<Flock<File>, AuditError> {
    let lock_path: PathBuf = chain::lock_path(path);
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags.bits())
        .open(&lock_path)
        .map_err(|error| AuditError::file(&lock_path, "open the lock", &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => AuditError::Locked { file: path.to_owned() },
        errno => AuditError::File { file: lock_path, doing: "lock", errno },
    })
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_symlink_a_fifo_a_directory_and_a_file_that_others_write_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        symlink("/etc/passwd", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        std::fs::write(path("open"), "").unwrap();
        std::fs::set_permissions(path("open"), PermissionsExt::from_mode(0o620)).unwrap();
        for (name, reason) in [
            ("link", "is a symbolic link"),
            ("fifo", "is not a regular file"),
            ("directory", "Is a directory (EISDIR)"),
            ("open", "others may write to it (mode 0620)"),
        ] {
            let error = LogFile::open(&path(name), false).err().unwrap().to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }

    #[test]
    fn a_new_log_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/audit.jsonl");
        let _log = LogFile::open(&path, false).unwrap();
        for name in ["audit.jsonl", "audit.jsonl.lock"] {
            let mode = std::fs::metadata(path.with_file_name(name)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_device_that_is_full_refuses_with_its_errno() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, ..) = LogFile::open(&dir.path().join("log"), false).unwrap();
        log.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        assert_eq!(log.append(&mut b"{}\n".to_vec()), Err(Errno::ENOSPC));
        assert_eq!(log.length(), 0);
    }
}
