//! The parameters and results of every method, in positional order. Their documentation is the schemas'.

use agent_core::rpc::Blob;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::digest::Algorithm;
use crate::path::GuestPath;

/// What a handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OpenMode {
    /// Reads a file that exists.
    Read,
    /// Writes into a file that exists, which keeps what is not written over.
    Write,
    /// Writes at the end of a file, made if it is not there.
    Append,
    /// Writes a file that must not exist yet.
    Create,
    /// Writes a new file that takes the path's place when the handle is closed, in one step.
    Replace,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    /// The file.
    pub path: GuestPath,
    /// What to do with it.
    pub mode: OpenMode,
    /// Permission bits of a file that this makes (384 is 0600), exactly but for `append` (less the umask); without them
    /// 0644 less the umask. A file that `replace` takes the place of passes its own on.
    pub permissions: Option<u32>,
    /// `sha256:HEX` or `xxh3-128:HEX` of the whole transfer, checked at close before `replace` shows the new file.
    pub digest: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Opened {
    /// Names the open file to the other methods, for this caller only.
    pub handle: i64,
    /// The file that was opened, without symlinks.
    pub path: String,
    /// The same as bytes when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<Blob>,
    /// Its size in bytes.
    pub size: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    /// From `file.open`.
    pub handle: i64,
    /// Where to read; without it where the last read ended.
    pub offset: Option<u64>,
    /// The most bytes to answer; without it 262144. The module's `max_read` bounds it.
    pub length: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReadResult {
    /// The bytes; of a FIFO or a device what was there, perhaps none.
    pub data: Blob,
    /// Whether the end was reached.
    pub eof: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    /// From `file.open`.
    pub handle: i64,
    /// Where to write; without it where the last write ended.
    pub offset: Option<u64>,
    /// The bytes.
    pub data: Blob,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Written {
    /// How many bytes were written: all, but for a FIFO or a device that took no more.
    pub written: u64,
    /// Where the next write goes.
    pub position: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    /// From `file.open`.
    pub handle: i64,
    /// As in `file.open`, for who knows it only now.
    pub digest: Option<String>,
    /// Throws away what `replace` has written; the old file stays.
    pub discard: Option<bool>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Closed {
    /// Bytes read through the handle.
    pub read: u64,
    /// Bytes written through it.
    pub written: u64,
    /// The digest of these bytes, if they passed in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stat {
    /// What to describe.
    pub path: GuestPath,
    /// Whether a symlink stands for what it leads to; without it true.
    pub follow: Option<bool>,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    Block,
    /// A character device.
    Char,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Metadata {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When its content changed, in seconds since 1970.
    pub mtime: f64,
    /// Where a symlink leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatResult {
    #[serde(flatten)]
    pub metadata: Metadata,
    /// The owner's name, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The group's name, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct List {
    /// The directory.
    pub path: GuestPath,
    /// How many entries to pass over; without it none.
    pub offset: Option<u64>,
    /// The most entries to answer; without it 1000, at most 10000.
    pub limit: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Listing {
    /// The entries, sorted by name; `.` and `..` are left out.
    pub entries: Vec<ListEntry>,
    /// How many entries the directory has.
    pub total: u64,
    /// Whether there are entries after these.
    pub more: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ListEntry {
    /// The name.
    pub name: String,
    /// The same as bytes when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_bytes: Option<Blob>,
    #[serde(flatten)]
    pub metadata: Metadata,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mkdir {
    /// The new directory.
    pub path: GuestPath,
    /// Makes missing parents too, and accepts a directory that is there; without it false.
    pub parents: Option<bool>,
    /// Its permission bits (448 is 0700), exactly; without them 0755 less the umask, as parents always get.
    pub mode: Option<u32>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    /// What to remove; a symlink is removed itself, and an empty directory too.
    pub path: GuestPath,
    /// Removes a directory with everything in it, but nothing on another filesystem; without it false.
    pub recursive: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    /// What to rename; a symlink is renamed itself.
    pub from: GuestPath,
    /// Its new path on the same filesystem.
    pub to: GuestPath,
    /// Whether it may take the place of what is at `to`; without it false.
    pub overwrite: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DigestParams {
    /// The file, or block device.
    pub path: GuestPath,
    /// How to digest; without it xxh3-128.
    pub algorithm: Option<Algorithm>,
    /// Where to begin; without it at the beginning.
    pub offset: Option<u64>,
    /// The most bytes to digest; without it all.
    pub length: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DigestResult {
    /// `xxh3-128:HEX` or `sha256:HEX`.
    pub digest: String,
    /// How many bytes were digested.
    pub size: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GetFile {
    /// The file.
    pub path: GuestPath,
}

/// Nothing to tell.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {}
