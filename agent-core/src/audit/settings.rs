//! What the guest's owner may choose about the audit log. Owns no file and no thread.

use std::path::PathBuf;

use super::AuditError;

/// `[audit]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// The log; nothing for none.
    pub file: Option<PathBuf>,
    /// Whether every record also goes to journald. With no file the journal is the log, and a record that it does not
    /// take refuses its call.
    pub journal: bool,
    /// Methods (globs: `va.ping`, `exec.output`) that are counted rather than written.
    pub count: Vec<String>,
    /// The log is rotated before it grows over this, in bytes; zero for never.
    pub rotate_size: u64,
    /// How many rotated files are kept.
    pub keep: u32,
    /// Whether a record is on the disk, not only in the kernel's memory, before its call runs.
    pub sync: bool,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            file: Some("/var/log/virtagent/audit.jsonl".into()),
            journal: true,
            count: vec!["va.ping".to_owned()],
            rotate_size: 64 << 20,
            keep: 8,
            sync: false,
        }
    }
}

impl AuditSettings {
    /// A log that rotates more often than this would spend its time on rotating.
    pub const ROTATE_MIN: u64 = 64 << 10;

    /// Checks what no type can.
    ///
    /// # Errors
    /// [`AuditError::Settings`] with the name, the value and what would do.
    pub fn check(&self) -> Result<(), AuditError> {
        for glob in &self.count {
            if let Err(error) = fast_glob::validate(glob) {
                return Err(AuditError::Settings(format!("audit.count: {glob:?} is not a glob: {error:?}")));
            }
        }
        if self.rotate_size != 0 && self.rotate_size < Self::ROTATE_MIN {
            return Err(AuditError::Settings(format!(
                "audit.rotate_size: {} is too small; {} bytes at least, or 0 for no rotation",
                self.rotate_size,
                Self::ROTATE_MIN
            )));
        }
        match &self.file {
            Some(file) if !file.is_absolute() || file.file_name().is_none() => {
                Err(AuditError::Settings(format!("audit.file: {} is not an absolute file name", file.display())))
            }
            _ => Ok(()),
        }
    }
}
