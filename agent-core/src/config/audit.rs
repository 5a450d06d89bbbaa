//! `[audit]`: where the record of every call goes, and what it costs.

use std::path::PathBuf;

use crate::document::ConfigError;
use crate::document::reader::Section;
use crate::policy::NameGlob;

/// How the audit log is kept. `config/virtagentd.toml` documents each setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The log, JSON Lines, an absolute path.
    pub file: PathBuf,
    /// Whether records go to journald too.
    pub journal: bool,
    /// Methods whose calls are counted rather than written one by one.
    pub count: Vec<NameGlob>,
    /// The log is rotated before it grows over this, in bytes; zero for never.
    pub rotate_size: u64,
    /// How many rotated logs are kept.
    pub keep: u32,
    /// Whether each record is on the disk (`fdatasync`) before its call runs.
    pub sync: bool,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            file: "/var/log/virtagent/audit.jsonl".into(),
            journal: true,
            count: ["va.ping", "exec.output"].into_iter().filter_map(|glob| NameGlob::method(glob).ok()).collect(),
            rotate_size: 64 << 20,
            keep: 8,
            sync: false,
        }
    }
}

impl AuditConfig {
    pub(super) const KEYS: [&str; 6] = ["file", "journal", "count", "rotate_size", "keep", "sync"];

    /// Takes what an `[audit]` table sets; each setting that it does not name stays.
    pub(super) fn apply(&mut self, section: &Section) -> Result<(), ConfigError> {
        if let Some(item) = section.get("file") {
            const ALLOWED: &str = "an absolute path, such as \"/var/log/virtagent/audit.jsonl\"";
            let path = PathBuf::from(item.string(ALLOWED)?);
            if !path.is_absolute() || path.file_name().is_none() || path.as_os_str().as_encoded_bytes().contains(&0) {
                return Err(item.refuse(ALLOWED));
            }
            self.file = path;
        }
        if let Some(item) = section.get("journal") {
            self.journal = item.boolean()?;
        }
        if let Some(item) = section.get("count") {
            const ALLOWED: &str = "a list of method globs, such as [\"va.ping\", \"exec.output\"]";
            let globs = item.array(ALLOWED)?;
            self.count = globs
                .iter()
                .map(|item| NameGlob::method(item.string(ALLOWED)?).map_err(|error| item.refuse(error)))
                .collect::<Result<_, _>>()?;
        }
        if let Some(item) = section.get("rotate_size") {
            self.rotate_size = match item.as_integer() {
                Some(0) => 0,
                _ => item.size(64 << 10..=64 << 30)?,
            };
        }
        if let Some(item) = section.get("keep") {
            self.keep = u32::try_from(item.number(1..=1000)?).unwrap_or(1000);
        }
        if let Some(item) = section.get("sync") {
            self.sync = item.boolean()?;
        }
        Ok(())
    }
}
