//! virtagent module: files, at both levels.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `lib.rs` | the descriptor and the methods |
//! | `params.rs` | their parameters and results |
//! | `path.rs`, `resolve.rs` | paths: parsed, resolved, and opened as what policy judged |
//! | `handles.rs` | who has which file open, and in what order it is used |
//! | `open_file.rs`, `replace.rs` | one open file; the new file that takes an old one's place |
//! | `tree.rs`, `remove.rs` | directory entries |
//! | `digest.rs` | digests of transfers and of files |
//!
//! Everything that blocks runs in `spawn_blocking`, so the module shares the router's thread.
#![forbid(unsafe_code)]

mod digest;
mod error;
mod handles;
mod open_file;
mod params;
mod path;
mod remove;
mod replace;
mod resolve;
mod settings;
mod tree;

use std::future::Future;
use std::path::PathBuf;

use agent_core::module::Level;
use agent_core::module::prelude::*;

use crate::digest::{Digest, digest_of};
use crate::error::Error;
use crate::handles::Handles;
use crate::open_file::{OpenFile, Opening};
use crate::params::*;
use crate::path::{GuestPath, odd_bytes};
use crate::resolve::Named;
use crate::settings::Settings;

inventory::submit! {
    Descriptor::new::<Files>("files", env!("CARGO_PKG_VERSION"), Levels::Both).shared()
}

/// Files of the guest: the system's at system level, one user's at user level.
pub struct Files {
    level: Level,
    home: PathBuf,
    settings: Settings,
    handles: Rc<Handles>,
}

const DEFAULT_READ: usize = 256 << 10;
const DEFAULT_LIST: u64 = 1000;
const MAX_LIST: u64 = 10_000;

impl Module for Files {
    fn build(env: &ModuleEnv) -> Result<Self, BuildError> {
        let settings = Settings::of(env)?;
        let first = getrandom::u32().map_err(|error| BuildError::Unavailable(format!("no random bytes: {error}")))?;
        let handles = Handles::new(settings.max_handles, first);
        Ok(Self { level: env.level, home: env.home.clone(), settings, handles })
    }

    fn methods() -> Methods<Self> {
        Methods::new()
            .add("file.open", "Opens a file and answers a handle for the caller's further calls.", Self::open)
            .paths(&["path"])
            .add("file.read", "Reads from an open file.", Self::read)
            .add("file.write", "Writes to an open file.", Self::write)
            .add("file.close", "Closes an open file; one opened with `replace` takes its place now.", Self::close)
            .add("file.stat", "Describes a file, directory or whatever is at a path.", Self::stat)
            .paths(&["path"])
            .follow_flag("follow")
            .add("file.list", "Lists a directory by name, a page at a time.", Self::list)
            .paths(&["path"])
            .add("file.mkdir", "Makes a directory.", Self::mkdir)
            .paths(&["path"])
            .add("file.remove", "Removes a file, a symlink or a directory.", Self::remove)
            .link_paths(&["path"])
            .add("file.rename", "Renames a file, a symlink or a directory within its filesystem.", Self::rename)
            .link_paths(&["from", "to"])
            .add("file.digest", "Digests a file or a part of it, without sending its content.", Self::digest)
            .paths(&["path"])
            .add("va.getfile", "Answers a whole file of at most the module's max_read bytes.", Self::get_file)
            .paths(&["path"])
            .only(Levels::System)
    }

    fn owner_gone(self: Rc<Self>, owner: OwnerId) {
        // Closing may block, and so may removing temporaries.
        let files = self.handles.forget(owner);
        if !files.is_empty() {
            tokio::task::spawn_blocking(move || drop(files));
        }
    }

    async fn stop(self: Rc<Self>) {
        let mut idle = Vec::new();
        for file in self.handles.forget_all() {
            idle.push(file.lock_owned().await);
        }
        let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
    }
}

impl Files {
    fn named(&self, cx: &CallContext, parameter: &str, path: &GuestPath) -> Result<Named, Fault> {
        Ok(Named::new(cx, parameter, path.absolute(self.level, &self.home)?))
    }

    async fn open(self: Rc<Self>, cx: CallContext, params: Open) -> Result<Opened, Fault> {
        let slot = self.handles.slot(cx.owner)?;
        let expected = parse_digest(params.digest)?;
        let path = self.named(&cx, "path", &params.path)?;
        let permissions = permission_bits(params.permissions)?;
        let algorithm = self.settings.digest.algorithm();
        let mode = params.mode;
        let file = blocking(move || {
            OpenFile::open(Opening { path: path.followed()?, mode, permissions, expected, algorithm })
        })
        .await?;
        let path = file.path().to_string_lossy().into_owned();
        let (path_bytes, size) = (odd_bytes(file.path().as_os_str()), file.size());
        match self.handles.insert(slot, file) {
            Ok(handle) => Ok(Opened { handle, path, path_bytes, size }),
            Err(file) => {
                tokio::task::spawn_blocking(move || drop(file));
                Err(Error::Cancelled.into())
            }
        }
    }

    // The methods on handles queue when they are called, not when they are first polled: the order is the caller's.

    fn read(self: Rc<Self>, cx: CallContext, params: Read) -> impl Future<Output = Result<ReadResult, Fault>> {
        let turn = self.handles.turn(params.handle, cx.owner);
        let most = self.settings.max_read;
        async move {
            let length = match params.length {
                None => DEFAULT_READ.min(most),
                Some(length) => usize::try_from(length).ok().filter(|length| *length <= most).ok_or_else(|| {
                    Fault::limit(format!("length {length} is more than module.files.max_read, {most} bytes"))
                })?,
            };
            let mut file = turn?.come().await;
            // In one's turn, so that nobody holds the budget while waiting behind one who waits for it.
            cx.reserve(length).await;
            let (data, eof) = blocking(move || file.read(params.offset, length)).await?;
            Ok(ReadResult { data: data.into(), eof })
        }
    }

    fn write(self: Rc<Self>, cx: CallContext, params: Write) -> impl Future<Output = Result<Written, Fault>> {
        let turn = self.handles.turn(params.handle, cx.owner);
        async move {
            let mut file = turn?.come().await;
            let (written, position) = blocking(move || file.write(params.offset, &params.data.0)).await?;
            Ok(Written { written, position })
        }
    }

    fn close(self: Rc<Self>, cx: CallContext, params: Close) -> impl Future<Output = Result<Closed, Fault>> {
        // What can't be parsed leaves the handle open.
        let turn = parse_digest(params.digest)
            .and_then(|expected| Ok((self.handles.last_turn(params.handle, cx.owner)?, expected)));
        async move {
            let (turn, expected) = turn?;
            let mut file = turn.come().await;
            let discard = params.discard.unwrap_or(false);
            let totals = blocking(move || {
                let totals = file.close(expected, discard);
                drop(file);
                totals
            })
            .await?;
            let digest = totals.digest.map(|digest| digest.to_string());
            Ok(Closed { read: totals.read, written: totals.written, digest })
        }
    }

    async fn stat(self: Rc<Self>, cx: CallContext, params: Stat) -> Result<StatResult, Fault> {
        let path = self.named(&cx, "path", &params.path)?;
        match params.follow.unwrap_or(true) {
            true => blocking(move || tree::stat(&path.followed()?, false)).await,
            false => blocking(move || tree::stat(&path.entry()?, true)).await,
        }
    }

    async fn list(self: Rc<Self>, cx: CallContext, params: List) -> Result<Listing, Fault> {
        let path = self.named(&cx, "path", &params.path)?;
        let limit = params.limit.unwrap_or(DEFAULT_LIST);
        if !(1..=MAX_LIST).contains(&limit) {
            return Err(Fault::limit(format!("limit {limit}: want 1 to {MAX_LIST} entries at a time")));
        }
        let offset = usize::try_from(params.offset.unwrap_or(0)).unwrap_or(usize::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let stop = cx.cancel.child_token();
        let _dropped = stop.clone().drop_guard();
        blocking(move || tree::list(&path.followed()?, offset, limit, || stop.is_cancelled())).await
    }

    async fn mkdir(self: Rc<Self>, cx: CallContext, params: Mkdir) -> Result<Done, Fault> {
        let path = self.named(&cx, "path", &params.path)?;
        let mode = permission_bits(params.mode)?;
        match params.parents.unwrap_or(false) {
            true => blocking(move || tree::make_directories(&path.path_to_make()?, mode)).await?,
            false => blocking(move || tree::make_directory(path.path_to_make()?, mode)).await?,
        }
        Ok(Done {})
    }

    async fn remove(self: Rc<Self>, cx: CallContext, params: Remove) -> Result<Done, Fault> {
        let path = self.named(&cx, "path", &params.path)?;
        let recursive = params.recursive.unwrap_or(false);
        let stop = cx.cancel.child_token();
        let _dropped = stop.clone().drop_guard();
        blocking(move || remove::remove(path.entry()?, recursive, || stop.is_cancelled())).await?;
        Ok(Done {})
    }

    async fn rename(self: Rc<Self>, cx: CallContext, params: Rename) -> Result<Done, Fault> {
        let (from, to) = (self.named(&cx, "from", &params.from)?, self.named(&cx, "to", &params.to)?);
        let overwrite = params.overwrite.unwrap_or(false);
        blocking(move || tree::rename(from.entry()?, to.entry()?, overwrite)).await?;
        Ok(Done {})
    }

    async fn digest(self: Rc<Self>, cx: CallContext, params: DigestParams) -> Result<DigestResult, Fault> {
        let path = self.named(&cx, "path", &params.path)?;
        let algorithm = params.algorithm.unwrap_or_default();
        let (offset, length) = (params.offset.unwrap_or(0), params.length);
        let stop = cx.cancel.child_token();
        let _dropped = stop.clone().drop_guard();
        let (digest, size) = blocking(move || {
            let path = path.followed()?;
            let file = tree::open_to_digest(&path)?;
            digest_of(&file, algorithm, offset, length, || stop.is_cancelled())
        })
        .await?;
        Ok(DigestResult { digest: digest.to_string(), size })
    }

    async fn get_file(self: Rc<Self>, cx: CallContext, params: GetFile) -> Result<Blob, Fault> {
        let path = self.named(&cx, "path", &params.path)?;
        let most = self.settings.max_read;
        cx.reserve(most).await;
        let data = blocking(move || {
            let path = path.followed()?;
            let (mode, permissions, expected, algorithm) = (OpenMode::Read, None, None, None);
            let mut file = OpenFile::open(Opening { path, mode, permissions, expected, algorithm })?;
            let (data, _) = file.read(None, most + 1)?;
            if data.len() > most {
                let path = file.path().display();
                return Err(Error::Limit(format!("{path} has more than {most} bytes: use file.open and file.read")));
            }
            Ok(data)
        })
        .await?;
        Ok(data.into())
    }
}

/// Runs what blocks where it harms nobody. It ends by itself if the call is dropped meanwhile.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> error::Result<T> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Fault::internal(format!("the file operation ended early: {error}"))),
    }
}

fn parse_digest(text: Option<String>) -> Result<Option<Digest>, Fault> {
    Ok(text.map(|text| text.parse()).transpose()?)
}

fn permission_bits(bits: Option<u32>) -> Result<Option<u32>, Fault> {
    match bits {
        Some(bits) if bits > 0o7777 => {
            Err(Fault::invalid_params(format!("permissions {bits}: want 0 to 4095, which is 07777")))
        }
        bits => Ok(bits),
    }
}
