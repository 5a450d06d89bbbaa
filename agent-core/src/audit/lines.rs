//! The log's lines, oldest file first. Owns the reading; judges nothing.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::AuditError;
use super::chain::{self, LINE_MAX};

/// One file of a log, read line by line. A line that is still being written is read on when more of it is there.
pub(super) struct Lines {
    pub path: PathBuf,
    /// The number of the line that was read last, from 1.
    pub number: u64,
    identity: (u64, u64),
    reader: BufReader<File>,
    partial: Vec<u8>,
}

/// What the file holds next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A line, without its newline.
    Line(Vec<u8>),
    /// The end; so many bytes stand after the last newline.
    End(usize),
    /// A line longer than [`LINE_MAX`].
    TooLong,
}

impl Lines {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { path, number: 0, identity, reader: BufReader::with_capacity(64 << 10, file), partial: Vec::new() })
    }

    pub fn next(&mut self) -> Result<Next, AuditError> {
        use io::Read;
        let room = (LINE_MAX + 1).saturating_sub(self.partial.len()) as u64;
        let read = (&mut self.reader).take(room).read_until(b'\n', &mut self.partial);
        read.map_err(|error| AuditError::file(&self.path, "read", &error))?;
        if self.partial.last() == Some(&b'\n') {
            self.partial.pop();
            self.number += 1;
            return Ok(Next::Line(std::mem::take(&mut self.partial)));
        }
        Ok(if self.partial.len() > LINE_MAX { Next::TooLong } else { Next::End(self.partial.len()) })
    }

    /// Whether this file still has the log's name.
    pub fn is_current(&self, log: &Path) -> bool {
        std::fs::metadata(log).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity)
    }

    pub fn is_same_file(&self, other: &Self) -> bool {
        self.identity == other.identity
    }
}

/// Opens the rotated files, oldest first, and the log itself.
pub(super) fn open_all(log: &Path) -> Result<Vec<Lines>, AuditError> {
    let failed = |error: io::Error| AuditError::file(log, "open", &error);
    // A rotation between two opens would show one file twice or not at all: look again.
    for attempt in 0..200 {
        if attempt > 0 {
            #[allow(clippy::disallowed_methods, reason = "blocking code; a rotation takes a few milliseconds")]
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let numbers = chain::rotated_numbers(log).map_err(failed)?;
        let mut files = Vec::with_capacity(numbers.len() + 1);
        for &number in &numbers {
            match Lines::open(chain::rotated_path(log, number)) {
                Ok(lines) => files.push(lines),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let current = Lines::open(log.to_owned()).map_err(failed)?;
        // The next file is there from a rotation's first step to its last; after a crash it is left over.
        let rotating = attempt < 100 && chain::with_suffix(log, ".new").exists();
        let settled = !rotating
            && files.len() == numbers.len()
            && chain::rotated_numbers(log).map_err(failed)? == numbers
            && files.iter().all(|file| file.is_current(&file.path))
            && current.is_current(log);
        files.push(current);
        if settled {
            return Ok(files);
        }
    }
    Err(failed(io::Error::from_raw_os_error(nix::errno::Errno::EAGAIN as i32)))
}
