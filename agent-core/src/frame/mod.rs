//! The frame of January 2011: sentinel, HTTP head, body.
//!
//! ```text
//! FF  POST /RPC2 HTTP/1.1 CR LF            or  HTTP/1.1 200 OK CR LF
//!     Content-Type: text/xml CR LF
//!     Content-Length: N CR LF
//!     X-Virtagent-Client-Tag: T CR LF
//!     (further heads) CR LF
//!     CR LF
//!     N bytes
//! ```
//!
//! Owns the bytes between the wire and a body. Must never look into a body, do I/O, or let one bad frame cost another:
//! whatever is malformed is reported once and skipped up to the next sentinel.

mod decode;
mod encode;

pub use self::decode::{BadFrame, FrameDecoder, FrameError, Item};
pub use self::encode::FrameEncoder;

use bytes::Bytes;

use crate::encoding::Encoding;
use crate::rpc::Tag;

/// The byte that begins every frame; UTF-8 text never contains it.
pub const SENTINEL: u8 = 0xff;

/// Whether a frame asks or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `POST /RPC2 HTTP/1.1`
    Call,
    /// `HTTP/1.1 200 OK`, also for a fault.
    Reply,
}

/// The heads that came after the three of 2011. A 2011 peer passes over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// `X-Virtagent-Username`: the recipient of a host's call, or the user whose daemon calls the host.
    pub username: Option<String>,
    /// `X-Virtagent-Timeout-Ms`: the call's deadline from its arrival; 0 for none.
    pub timeout_ms: Option<u64>,
    /// `X-Virtagent-Version`: the sender is one of ours, of this version.
    pub version: Option<String>,
    /// `X-Virtagent-Boot-Id`: the guest's boot, in its hello.
    pub boot_id: Option<String>,
    /// `X-Virtagent-Nonce`: fresh for each conversation, in its hello.
    pub nonce: Option<String>,
}

/// One call or reply, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Call or reply.
    pub kind: Kind,
    /// Which call.
    pub tag: Tag,
    /// How the body is written.
    pub encoding: Encoding,
    /// The newer heads.
    pub heads: Heads,
    /// At least one byte.
    pub body: Bytes,
}

/// The names of the heads, in the case that a 2011 reader needs.
mod name {
    pub const TYPE: &str = "Content-Type";
    pub const LENGTH: &str = "Content-Length";
    pub const TAG: &str = "X-Virtagent-Client-Tag";
    pub const USERNAME: &str = "X-Virtagent-Username";
    pub const TIMEOUT: &str = "X-Virtagent-Timeout-Ms";
    pub const VERSION: &str = "X-Virtagent-Version";
    pub const BOOT_ID: &str = "X-Virtagent-Boot-Id";
    pub const NONCE: &str = "X-Virtagent-Nonce";
}
