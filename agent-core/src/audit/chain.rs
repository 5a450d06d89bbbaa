//! The hash chain: what joins one line of the log to the next. Owns hashing and the names of the log's files; no I/O
//! but the listing of rotated files.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// The longest line that is read back. Ours stay under 32 KiB; see [`super::summarise`].
pub(super) const LINE_MAX: usize = 1 << 20;

/// The SHA-256 of one raw line, without its newline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LineHash([u8; 32]);

impl LineHash {
    /// What the first record of a log names as the one before.
    pub const NONE: Self = Self([0; 32]);

    /// The hash of a line.
    pub fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 lower-case hexadecimal digits")]
pub struct BadHash;

impl FromStr for LineHash {
    type Err = BadHash;

    fn from_str(text: &str) -> Result<Self, BadHash> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Ok(b - b'0'),
            b'a'..=b'f' => Ok(b - b'a' + 10),
            _ => Err(BadHash),
        };
        if text.len() != 64 {
            return Err(BadHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(hash))
    }
}

/// A place in the chain: the last record's number and its line's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub seq: u64,
    pub hash: LineHash,
}

impl Link {
    /// Before the first record.
    pub const START: Self = Self { seq: 0, hash: LineHash::NONE };
}

/// The file of the lock and of the last link: `audit.jsonl.lock`.
pub(super) fn lock_path(log: &Path) -> PathBuf {
    with_suffix(log, ".lock")
}

/// The `number`th rotated file: `audit.jsonl.1` is the youngest.
pub(super) fn rotated_path(log: &Path, number: u32) -> PathBuf {
    with_suffix(log, &format!(".{number}"))
}

pub(super) fn with_suffix(log: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(log);
    name.push(suffix);
    name.into()
}

/// The directory that the log lies in.
pub(super) fn directory(log: &Path) -> &Path {
    match log.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The numbers of the rotated files that are there, oldest (highest) first.
pub(super) fn rotated_numbers(log: &Path) -> io::Result<Vec<u32>> {
    let Some(name) = log.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory(log))? {
        let file_name = entry?.file_name();
        let number = file_name.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        let canonical = |digits: &&str| !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
        numbers.extend(number.filter(canonical).and_then(|digits| digits.parse::<u32>().ok()));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let hash = LineHash::of(b"{}");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        assert_eq!(hash.to_string(), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
        assert_eq!("AA".repeat(32).parse::<LineHash>(), Err(BadHash));
    }

    #[test]
    fn rotated_files_are_listed_oldest_first_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.jsonl", "a.jsonl.1", "a.jsonl.10", "a.jsonl.2", "a.jsonl.lock", "a.jsonl.02", "a.jsonl.3.gz"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(rotated_numbers(&dir.path().join("a.jsonl")).unwrap(), [10, 2, 1]);
    }
}
