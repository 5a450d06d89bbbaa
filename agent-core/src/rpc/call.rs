//! A call, its tag and its outcome.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{Fault, MethodName, Value};

/// A method with its parameters.
///
/// Parameters are positional, or one struct that names them; [`crate::module::Methods`] binds both to a method's own
/// parameter type. JSON-RPC's object parameters decode to one struct.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What to run.
    pub method: MethodName,
    /// With what.
    pub params: Vec<Value>,
}

/// What came of a call.
pub type Outcome = Result<Value, Fault>;

/// The caller's name for one call on one link; the reply carries it back.
///
/// 1 to 63 printable ASCII characters. Ours always have [`Tag::OURS`] characters: a 2011 peer echoes a tag over its
/// previous one without an end, so a shorter one after a longer one would come back wrong.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Tag(Arc<str>);

/// A tag that is empty, too long, or not printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a tag (1 to 63 printable ASCII characters)")]
pub struct BadTag;

impl Tag {
    /// The longest tag, in characters (a 2011 peer's buffer holds 64 with its end).
    pub const MAX: usize = 63;
    /// The length of every tag we make.
    pub const OURS: usize = 16;

    /// The `number`th tag of the conversation called `nonce`: eight hexadecimal digits of each.
    pub fn numbered(nonce: u32, number: u32) -> Self {
        Self(format!("{nonce:08x}{number:08x}").into())
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = BadTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
        if text.is_empty() || text.len() > Self::MAX || !printable {
            return Err(BadTag);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
