//! Method names, parsed once at the edge.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a method: `va.ping`, `file.open`.
///
/// 1 to 128 characters of `A-Z a-z 0-9 _ . : /`, which is what the XML-RPC specification allows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodName(Arc<str>);

/// A method name outside the specification's alphabet, empty, or too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a method name (1 to 128 of A-Z a-z 0-9 _ . : /): {0:?}")]
pub struct BadMethodName(String);

impl MethodName {
    /// The longest name, in characters.
    pub const MAX: usize = 128;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first dot: `file` of `file.open`.
    pub fn namespace(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }
}

impl FromStr for MethodName {
    type Err = BadMethodName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/');
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return Err(BadMethodName(text.chars().take(Self::MAX).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl Borrow<str> for MethodName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for MethodName {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for MethodName {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
