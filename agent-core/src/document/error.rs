//! What is wrong with a configuration, and where. Must never be made without saying what is allowed instead.

use std::fmt;

/// One defect of the configuration: file, line, the setting's name and value, and what is allowed.
///
/// Its text is one line: `/etc/virtagent/virtagentd.toml:12: limits.body = "32MiB": a size of ...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or what stands for one (`packaged defaults`).
    pub file: String,
    /// The line in it, from 1; nothing when the file as a whole is meant.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub message: String,
}

impl ConfigError {
    /// A defect of the file as a whole.
    pub fn file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: None, message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl std::error::Error for ConfigError {}
