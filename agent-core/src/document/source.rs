//! One file of the configuration: its text, the lines in it, and whether its owner and mode can be trusted.
//!
//! Must never read what someone else could have written: a daemon that obeys a file anyone may write obeys anyone.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc::O_NONBLOCK;
use nix::unistd::Uid;

use super::ConfigError;

/// The largest file of the configuration: 1 MiB.
pub(crate) const FILE_MAX: u64 = 1 << 20;

/// A text and what to call it in messages.
pub(crate) struct Source {
    pub(crate) label: Arc<str>,
    pub(crate) text: String,
    line_starts: Vec<usize>,
}

impl Source {
    pub(crate) fn new(label: &str, text: impl Into<String>) -> Result<Self, ConfigError> {
        let text = text.into();
        if text.len() as u64 > FILE_MAX {
            return Err(too_large(label));
        }
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Ok(Self { label: label.into(), text, line_starts })
    }

    /// The line, from 1, that holds a byte offset.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    pub(crate) fn error(&self, span: Option<Range<usize>>, message: impl Into<String>) -> ConfigError {
        let line = span.map(|span| self.line(span.start));
        ConfigError { file: self.label.to_string(), line, message: message.into() }
    }

    /// The text of a span on one line, cut to 60 characters.
    pub(crate) fn excerpt(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let mut excerpt: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some((cut, _)) = excerpt.char_indices().nth(60) {
            excerpt.truncate(cut);
            excerpt.push_str("...");
        }
        excerpt
    }
}

fn too_large(label: &str) -> ConfigError {
    ConfigError::file(label, format!("the file is larger than {FILE_MAX} bytes (1 MiB), the most that is read"))
}

/// Who may own and write a file of the configuration.
#[derive(Clone, Copy)]
pub(crate) struct Trust {
    reader: Uid,
    /// Mode bits that nobody may have set.
    refused: u32,
}

impl Trust {
    /// The owner's configuration. Root obeys only what root alone may write; another user also what is its own.
    pub(crate) fn configuration(reader: Uid) -> Self {
        Self { reader, refused: if reader.is_root() { 0o022 } else { 0o002 } }
    }

    /// A user's own file, which a private group may write as is the custom where the umask is 002.
    pub(crate) fn users_own(reader: Uid) -> Self {
        Self { reader, refused: 0o002 }
    }

    /// Refuses what someone else could have written.
    pub(crate) fn check(self, path: &Path, owner: Uid, mode: u32) -> Result<(), ConfigError> {
        let label = path.display().to_string();
        if !owner.is_root() && owner != self.reader {
            let wanted = if self.reader.is_root() { "root".to_owned() } else { format!("root or uid {}", self.reader) };
            let message = format!("owned by uid {owner}, must be {wanted}'s: chown {} {label}", self.reader);
            return Err(ConfigError::file(label, message));
        }
        if mode & self.refused != 0 {
            let (who, bits) = if self.refused == 0o022 { ("its group or others", "go-w") } else { ("others", "o-w") };
            let message = format!("mode {:04o} lets {who} write it: chmod {bits} {label}", mode & 0o7777);
            return Err(ConfigError::file(label, message));
        }
        Ok(())
    }

    fn check_metadata(self, path: &Path, metadata: &Metadata) -> Result<(), ConfigError> {
        self.check(path, Uid::from_raw(metadata.uid()), metadata.mode())
    }
}

/// Reads a file; nothing when there is none.
///
/// Owner and mode are those of the opened file, so that nobody can swap it between the check and the reading.
pub(crate) fn read(path: &Path, trust: Trust) -> Result<Option<Source>, ConfigError> {
    let label = path.display().to_string();
    let unreadable = |error: std::io::Error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => format!(" (user daemons read it too: chmod a+r {label})"),
            _ => String::new(),
        };
        ConfigError::file(&label, format!("can't be read: {error}{hint}"))
    };
    // Without O_NONBLOCK a FIFO of that name would hold the daemon's start.
    let file = match OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path) {
        Ok(file) => file,
        // A symlink to nothing is a file that its owner meant to be there: going on without it could allow too much.
        Err(error) if is_absent(&error) && path.symlink_metadata().is_err() => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ConfigError::file(&label, "is no regular file"));
    }
    trust.check_metadata(path, &metadata)?;
    let bytes = read_bounded(file, &label, unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count();
        ConfigError { file: label.clone(), line: Some(line), message: "not UTF-8, which TOML has to be".to_owned() }
    })?;
    Source::new(&label, text).map(Some)
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn read_bounded(
    file: File,
    label: &str,
    unreadable: impl Fn(std::io::Error) -> ConfigError,
) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(too_large(label));
    }
    Ok(bytes)
}

/// The drop-ins of a folder in name order; none when there is no such folder. Hidden files and other endings, which
/// package managers and editors leave behind, are passed over.
pub(crate) fn drop_ins(folder: &Path, trust: Trust) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable =
        |error: std::io::Error| ConfigError::file(folder.display().to_string(), format!("can't be listed: {error}"));
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) && folder.symlink_metadata().is_err() => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    trust.check_metadata(folder, &std::fs::metadata(folder).map_err(unreadable)?)?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
