//! The TOML that the daemon reads: the packaged defaults, the owner's file and its drop-ins.
//!
//! Owns which files count, in which order, and who may have written them. Must never go on with a defect in one: a
//! setting that is not understood is refused with file, line, name, value and what is allowed.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `mod` | the configuration and where it is read from |
//! | `layers` | several files made one |
//! | `limits`, `audit` | `[limits]` and `[audit]` |
//!
//! What a single file is, `document` knows.

mod audit;
mod layers;
mod limits;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};

pub use self::audit::AuditConfig;
pub use self::limits::Limits;
pub use crate::document::ConfigError;

use self::layers::Layers;
use crate::document::source::{self, Source, Trust};
use crate::policy::{self, Policy};

/// Where the owner's configuration is unless the command line says otherwise.
pub const DEFAULT_FILE: &str = "/etc/virtagent/virtagentd.toml";

/// The packaged configuration, which applies where there is no [`DEFAULT_FILE`].
pub const PACKAGED: &str = include_str!("../../../config/virtagentd.toml");

/// What messages call [`PACKAGED`].
pub const PACKAGED_LABEL: &str = "packaged defaults";

/// A user's own policy, below their home.
pub const USER_POLICY: &str = ".config/virtagent/policy.toml";

/// What the daemon was told in TOML.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[modules]`.
    pub modules: Modules,
    /// `[limits]`.
    pub limits: Limits,
    /// `[policy]`, the drop-ins' rules before the main file's; at user level narrowed by the user's own.
    pub policy: Policy,
    /// `[audit]`.
    pub audit: AuditConfig,
    /// `[module.NAME]` of each module, merged key by key.
    pub module: BTreeMap<String, toml::Table>,
    /// Where each `[module.NAME]` stands (`file:line`, the last one), for messages about it.
    pub module_at: BTreeMap<String, String>,
    /// The files that were read, in the order of reading; [`PACKAGED_LABEL`] stands for the packaged defaults.
    pub sources: Vec<String>,
}

/// `[modules]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modules {
    /// The modules to start, by name.
    pub enabled: Vec<String>,
}

impl Default for Modules {
    fn default() -> Self {
        Self { enabled: ["files", "exec", "power", "info"].map(str::to_owned).into() }
    }
}

impl Config {
    /// The system daemon's configuration: `file`, which then must exist, or [`DEFAULT_FILE`], or the packaged defaults
    /// where that is absent; then the drop-ins `conf.d/*.toml` beside it in name order.
    ///
    /// A drop-in's settings win over those read before, and its rules are judged before the main file's: of several
    /// drop-ins, the first in name order comes first.
    ///
    /// # Errors
    /// The first defect. A file that someone else could have written is one: as root, what root does not own, or what
    /// its group or others may write.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_as(file, Path::new(DEFAULT_FILE), geteuid())
    }

    /// A user daemon's configuration: the same files, read as that user, the policy narrowed by [`USER_POLICY`] below
    /// `home` where that exists, and the audit log below `home` (`.local/state/virtagent/audit.jsonl`).
    ///
    /// # Errors
    /// As [`Config::load`]; also the user's policy has a defect, is neither the user's nor root's, or may be written by
    /// others. A user's policy that can't be read is an error, since what it denies must stay denied.
    pub fn load_user(file: Option<&Path>, home: &Path) -> Result<Self, ConfigError> {
        Self::load_user_as(file, Path::new(DEFAULT_FILE), home, geteuid())
    }

    /// The packaged defaults alone.
    ///
    /// # Errors
    /// None, which the tests hold.
    pub fn packaged() -> Result<Self, ConfigError> {
        parse_str(PACKAGED_LABEL, PACKAGED)
    }

    /// `[module.NAME]`, empty when there is none.
    pub fn module_settings(&self, name: &str) -> toml::Table {
        self.module.get(name).cloned().unwrap_or_default()
    }

    fn load_as(file: Option<&Path>, default: &Path, reader: Uid) -> Result<Self, ConfigError> {
        let trust = Trust::configuration(reader);
        let path = file.unwrap_or(default);
        let main = match (source::read(path, trust)?, file) {
            (Some(source), _) => source,
            (None, None) => Source::new(PACKAGED_LABEL, PACKAGED)?,
            (None, Some(path)) => {
                let message = "there is no such file: create it, or leave --config out for the packaged defaults";
                return Err(ConfigError::file(path.display().to_string(), message));
            }
        };
        let mut layers = Layers::default();
        layers.add_main(&main)?;
        let folder = path.parent().unwrap_or(Path::new("")).join("conf.d");
        for path in source::drop_ins(&folder, trust)? {
            // One that vanished since the listing was removed while we read: it does not count.
            if let Some(source) = source::read(&path, trust)? {
                layers.add_drop_in(&source)?;
            }
        }
        layers.finish()
    }

    fn load_user_as(file: Option<&Path>, default: &Path, home: &Path, reader: Uid) -> Result<Self, ConfigError> {
        let mut config = Self::load_as(file, default, reader)?;
        config.audit.file = home.join(".local/state/virtagent/audit.jsonl");
        if let Some(source) = source::read(&user_policy(home), Trust::users_own(reader))? {
            config.policy = config.policy.narrow(policy::users_own(&source)?);
            config.sources.push(source.label.to_string());
        }
        Ok(config)
    }
}

fn user_policy(home: &Path) -> PathBuf {
    home.join(USER_POLICY)
}

/// One whole configuration from a text; the label stands for the file. Never panics, whatever the text.
///
/// # Errors
/// The first defect, with its line.
pub fn parse_str(label: &str, text: &str) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    layers.add_main(&Source::new(label, text)?)?;
    layers.finish()
}
