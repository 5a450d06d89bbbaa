//! Paths as callers write them, parsed once at the edge. Does no I/O.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use agent_core::module::Level;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::error::{Error, Result};

/// A path as a parameter: text, or bytes for a name that is not UTF-8. Neither empty nor longer than
/// [`GuestPath::MAX`], and without NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPath(PathBuf);

/// What [`GuestPath`] could not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// No path at all.
    #[error("a path can't be empty")]
    Empty,
    /// The kernel would stop there.
    #[error("a path can't contain NUL")]
    Nul,
    /// Longer than the kernel takes.
    #[error("a path can't be longer than {} bytes", GuestPath::MAX)]
    TooLong,
}

impl GuestPath {
    /// The longest path, in bytes: `PATH_MAX` of limits.h counts the final NUL.
    pub const MAX: usize = 4095;

    /// A path from its bytes.
    ///
    /// # Errors
    /// What the kernel could not take.
    pub fn new(bytes: Vec<u8>) -> std::result::Result<Self, BadPath> {
        match bytes.as_slice() {
            [] => Err(BadPath::Empty),
            long if long.len() > Self::MAX => Err(BadPath::TooLong),
            with_nul if with_nul.contains(&0) => Err(BadPath::Nul),
            _ => Ok(Self(OsString::from_vec(bytes).into())),
        }
    }

    /// The absolute path that is meant: at user level `~/` and relative paths start at home, at system level there is
    /// no home to start from.
    pub(crate) fn absolute(&self, level: Level, home: &Path) -> Result<PathBuf> {
        if self.0.is_absolute() {
            return Ok(self.0.clone());
        }
        if level == Level::System {
            let path = self.0.display();
            return Err(Error::Invalid(format!("{path}: at system level a path begins with /")));
        }
        Ok(home.join(self.0.strip_prefix("~").unwrap_or(&self.0)))
    }
}

impl<'de> Deserialize<'de> for GuestPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct PathVisitor;

        impl Visitor<'_> for PathVisitor {
            type Value = GuestPath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, as a string or as base64 (bytes)")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> std::result::Result<GuestPath, E> {
                GuestPath::new(bytes.to_vec()).map_err(E::custom)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<GuestPath, E> {
                self.visit_bytes(text.as_bytes())
            }
        }

        deserializer.deserialize_byte_buf(PathVisitor)
    }
}

impl schemars::JsonSchema for GuestPath {
    fn schema_name() -> Cow<'static, str> {
        "GuestPath".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": Self::MAX })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// The bytes of a name that is not UTF-8, to send beside its lossy text.
pub(crate) fn odd_bytes(name: &std::ffi::OsStr) -> Option<agent_core::rpc::Blob> {
    name.to_str().is_none().then(|| name.as_bytes().to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> GuestPath {
        GuestPath::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_path_is_neither_empty_nor_too_long_nor_cut_by_nul() {
        assert_eq!(GuestPath::new(Vec::new()), Err(BadPath::Empty));
        assert_eq!(GuestPath::new(vec![b'a'; 4096]), Err(BadPath::TooLong));
        assert_eq!(GuestPath::new(b"/etc/passwd\0.txt".to_vec()), Err(BadPath::Nul));
        assert!(GuestPath::new(vec![b'a'; 4095]).is_ok());
        assert!(GuestPath::new(b"/tmp/\xff".to_vec()).is_ok());
    }

    #[test]
    fn at_user_level_a_relative_path_and_a_tilde_mean_the_home() {
        let home = Path::new("/home/alice");
        let at_home = |text| path(text).absolute(Level::User, home).unwrap();
        assert_eq!(at_home("notes.txt"), Path::new("/home/alice/notes.txt"));
        assert_eq!(at_home("~/notes.txt"), Path::new("/home/alice/notes.txt"));
        assert_eq!(at_home("~"), Path::new("/home/alice"));
        assert_eq!(at_home("~bob"), Path::new("/home/alice/~bob"));
        assert_eq!(at_home("/etc/motd"), Path::new("/etc/motd"));
    }

    #[test]
    fn at_system_level_only_an_absolute_path_is_taken() {
        let home = Path::new("/root");
        assert!(path("~/x").absolute(Level::System, home).is_err());
        assert!(path("x").absolute(Level::System, home).is_err());
        assert!(path("/x").absolute(Level::System, home).is_ok());
    }
}
