//! One open file: reading, writing and closing it. Everything here blocks.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};

use crate::digest::{Algorithm, Digest, Transfer, digest_of};
use crate::error::{Error, Result};
use crate::params::OpenMode;
use crate::replace::Replacement;
use crate::resolve;

/// How to open a file.
pub(crate) struct Opening {
    pub(crate) path: PathBuf,
    pub(crate) mode: OpenMode,
    pub(crate) permissions: Option<u32>,
    /// What the transfer must come to.
    pub(crate) expected: Option<Digest>,
    /// How it is digested when nothing is expected.
    pub(crate) algorithm: Option<Algorithm>,
}

/// A file that a handle stands for.
pub(crate) struct OpenFile {
    file: File,
    path: PathBuf,
    mode: OpenMode,
    /// Regular files and block devices have offsets; FIFOs, terminals and the like have what comes next.
    has_offsets: bool,
    size: u64,
    position: u64,
    read: u64,
    written: u64,
    transfer: Transfer,
    expected: Option<Digest>,
    replacement: Option<Replacement>,
}

/// What a handle's use came to.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) read: u64,
    pub(crate) written: u64,
    pub(crate) digest: Option<Digest>,
}

impl OpenFile {
    pub(crate) fn open(opening: Opening) -> Result<Self> {
        let Opening { path, mode, permissions, expected, algorithm } = opening;
        let (file, replacement) = match mode {
            OpenMode::Replace => {
                let (replacement, file) = Replacement::begin(path.clone(), permissions)?;
                (file, Some(replacement))
            }
            _ => (open_in_place(&path, mode, permissions)?, None),
        };
        let metadata = file.metadata().map_err(|error| failed("stat", &path, error))?;
        if metadata.is_dir() {
            return Err(Error::os(format!("open {}: use file.list", path.display()), Errno::EISDIR));
        }
        let has_offsets = metadata.is_file() || metadata.file_type().is_block_device();
        let transfer = Transfer::new(expected.as_ref().map(|digest| digest.algorithm).or(algorithm));
        let size = metadata.len();
        let (position, read, written) = (if mode == OpenMode::Append { size } else { 0 }, 0, 0);
        Ok(Self { file, path, mode, has_offsets, size, position, read, written, transfer, expected, replacement })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The size at opening.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads up to `length` bytes, and tells whether the end was reached.
    pub(crate) fn read(&mut self, offset: Option<u64>, length: usize) -> Result<(Vec<u8>, bool)> {
        if self.mode != OpenMode::Read {
            return Err(Error::Invalid(format!("{}: this handle is open for writing", self.path.display())));
        }
        let result = if self.has_offsets { self.read_at(offset, length) } else { self.read_next(offset, length) };
        let (data, eof) = result.map_err(|error| failed("read", &self.path, error))?;
        self.transfer.passed(self.position, &data);
        self.position += data.len() as u64;
        self.read += data.len() as u64;
        Ok((data, eof))
    }

    fn read_at(&mut self, offset: Option<u64>, length: usize) -> io::Result<(Vec<u8>, bool)> {
        if let Some(offset) = offset.filter(|offset| *offset != self.position) {
            self.position = self.file.seek(SeekFrom::Start(offset))?;
        }
        let size = self.file.metadata()?.len();
        let mut data = Vec::new();
        let filled = match size {
            // A file of /proc has size 0 and content nevertheless.
            0 => (&self.file).take(length as u64).read_to_end(&mut data).map(drop),
            _ => {
                let rest = usize::try_from(size.saturating_sub(self.position)).unwrap_or(length).min(length);
                data = vec![0; rest];
                fill(&self.file, &mut data)
            }
        };
        if let Err(error) = filled {
            self.file.seek(SeekFrom::Start(self.position))?;
            return Err(error);
        }
        let eof = data.len() < length || (size > 0 && self.position + data.len() as u64 >= size);
        Ok((data, eof))
    }

    fn read_next(&mut self, offset: Option<u64>, length: usize) -> io::Result<(Vec<u8>, bool)> {
        refuse_offset(offset, "a FIFO or character device has no offsets")?;
        let mut data = vec![0; length];
        loop {
            match self.file.read(&mut data) {
                Ok(came) => {
                    data.truncate(came);
                    return Ok((data, came == 0 && length > 0));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((Vec::new(), false)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of `data` (a FIFO or device: what it takes) and answers how much, and where the next goes.
    pub(crate) fn write(&mut self, offset: Option<u64>, data: &[u8]) -> Result<(u64, u64)> {
        if self.mode == OpenMode::Read {
            return Err(Error::Invalid(format!("{}: this handle is open for reading", self.path.display())));
        }
        let result = if self.has_offsets && self.mode != OpenMode::Append {
            self.position = offset.unwrap_or(self.position);
            self.file.write_all_at(data, self.position).map(|()| data.len())
        } else {
            self.write_next(offset, data)
        };
        let written = result.map_err(|error| {
            self.transfer.broken();
            failed("write", &self.path, error)
        })?;
        self.transfer.passed(self.position, &data[..written]);
        self.position += written as u64;
        self.written += written as u64;
        Ok((written as u64, self.position))
    }

    fn write_next(&mut self, offset: Option<u64>, data: &[u8]) -> io::Result<usize> {
        refuse_offset(offset, "what is appended, or written to a FIFO or character device, has no offset")?;
        let mut written = 0;
        while written < data.len() {
            match self.file.write(&data[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Ends the file's use: checks the digest, and puts what `replace` wrote into its place or throws it away.
    pub(crate) fn close(&mut self, expected: Option<Digest>, discard: bool) -> Result<Totals> {
        let replacement = self.replacement.take();
        if !discard {
            for expected in self.expected.take().into_iter().chain(expected) {
                self.check(&expected, replacement.is_some())?;
            }
            if let Some(mut replacement) = replacement {
                replacement.commit(&self.file)?;
            }
        }
        Ok(Totals { read: self.read, written: self.written, digest: self.transfer.finish() })
    }

    /// Compares what passed, or for a replacement what is in it now, with what the caller expects.
    fn check(&mut self, expected: &Digest, replacement: bool) -> Result<()> {
        let path = self.path.display();
        let size = self.file.metadata().map_err(|error| failed("stat", &self.path, error))?.len();
        let passed_whole = self.transfer.covers(size, expected.algorithm);
        let actual = if replacement && !passed_whole {
            digest_of(&self.file, expected.algorithm, 0, None, || false)?.0
        } else {
            self.transfer.peek().filter(|digest| digest.algorithm == expected.algorithm).ok_or_else(|| {
                Error::Invalid(format!(
                    "{path}: nothing to compare with {expected}, for the bytes passed out of order or another \
                     algorithm was named at open; ask file.digest"
                ))
            })?
        };
        if actual == *expected {
            return Ok(());
        }
        let outcome = if replacement { "the old file stays" } else { "what passed is not what was meant" };
        Err(Error::Mismatch(format!("{path}: the digest is {actual}, not {expected}: {outcome}")))
    }
}

fn open_in_place(path: &Path, mode: OpenMode, permissions: Option<u32>) -> Result<File> {
    let making = OFlag::O_WRONLY | OFlag::O_CREAT;
    let flags = match mode {
        OpenMode::Read => OFlag::O_RDONLY,
        OpenMode::Write => OFlag::O_WRONLY,
        OpenMode::Append => making | OFlag::O_APPEND,
        OpenMode::Create | OpenMode::Replace => making | OFlag::O_EXCL,
    };
    let bits = permissions.unwrap_or(0o644);
    let mode_bits = if flags.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(bits) } else { Mode::empty() };
    let fd = resolve::open(path, flags | OFlag::O_NONBLOCK, mode_bits)?;
    if mode == OpenMode::Create && permissions.is_some() {
        fchmod(&fd, mode_bits).map_err(|errno| Error::os(format!("set the mode of {}", path.display()), errno))?;
    }
    Ok(File::from(fd))
}

/// Fills the buffer with what comes next, as long as there is more, in as few reads as the file takes: `read_to_end` feels
/// its way with small ones.
fn fill(mut file: &File, data: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    while filled < data.len() {
        match file.read(&mut data[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    data.truncate(filled);
    Ok(())
}

fn refuse_offset(offset: Option<u64>, why: &str) -> io::Result<()> {
    match offset {
        Some(_) => Err(io::Error::new(ErrorKind::InvalidInput, why)),
        None => Ok(()),
    }
}

fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput if error.raw_os_error().is_none() => {
            Error::Invalid(format!("{}: {error}", path.display()))
        }
        _ => Error::io(format!("{verb} {}", path.display()), error),
    }
}
