//! `file put`: into the guest.
//!
//! Without `--resume` the guest writes beside the destination and renames when the digest matches. With it the bytes go
//! to DEST.virtagent-part, which stays when the transfer ends early.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agent_core::rpc::Value;
use nix::errno::Errno;

use super::digest::Digest;
use super::local::Source;
use super::progress::Progress;
use super::remote::{self, Remote};
use super::{interruptible, with_note};
use crate::client::{Client, Params};
use crate::failure::{Failure, Result};
use crate::output::note;

/// What to copy, and how.
pub struct Put<'a> {
    pub local: &'a Path,
    pub remote: &'a str,
    /// Permission bits of a new file.
    pub mode: Option<u32>,
    pub resume: bool,
    pub quiet: bool,
}

/// What became of it.
pub struct Done {
    pub path: String,
    pub bytes: u64,
    pub resumed_at: u64,
    pub digest: String,
}

/// Copies a local file, or standard input for `-`, to the guest.
pub async fn put(client: &Client, put: &Put<'_>) -> Result<Done> {
    if !client.is_ours() {
        return Err(Failure::guest("the guest's agent is of 2011 and takes no files: install virtagent in the guest"));
    }
    let input = Input::open(put)?;
    let dest = destination(client, put).await?;
    match put.resume {
        true => resumable(client, put, input, dest).await,
        false => at_once(client, put, input, dest).await,
    }
}

enum Input {
    File { file: File, size: u64, mode: u32 },
    Stream,
}

impl Input {
    fn open(put: &Put<'_>) -> Result<Self> {
        if put.local.as_os_str() == "-" {
            return match put.resume {
                true => Err(Failure::usage("--resume needs a file: standard input can't be read again")),
                false => Ok(Self::Stream),
            };
        }
        let failed = |error: std::io::Error| Failure::local("read", put.local, &error);
        let file = File::open(put.local).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            let shown = put.local.display();
            return Err(Failure::usage(format!(
                "{shown} is a directory, and put copies one file; for a tree: tar c -C {shown} . | virtagent exec -- tar x -C {}",
                put.remote
            )));
        }
        let mode = metadata.permissions().mode() & 0o777;
        Ok(Self::File { file, size: if metadata.is_file() { metadata.len() } else { 0 }, mode })
    }

    fn size(&self) -> Option<u64> {
        match self {
            Self::File { size, .. } if *size > 0 => Some(*size),
            _ => None,
        }
    }

    /// The permission bits that a new file gets, where anybody said so.
    fn mode(&self, put: &Put<'_>) -> Option<Value> {
        let own = match self {
            Self::File { mode, .. } => Some(*mode),
            Self::Stream => None,
        };
        put.mode.or(own).map(|mode| Value::Int(mode.into()))
    }

    fn start(self, digest: Digest, name: &Path) -> Source {
        match self {
            Self::File { file, .. } => Source::start(file, digest, name),
            Self::Stream => Source::start(std::io::stdin(), digest, Path::new("standard input")),
        }
    }
}

/// A directory of the guest takes the source's name.
async fn destination(client: &Client, put: &Put<'_>) -> Result<String> {
    let path = put.remote;
    let directory = path.ends_with('/') || matches!(path, "." | "..") || {
        remote::stat(client, path).await?.is_some_and(|stat| stat.kind == "directory")
    };
    if !directory {
        return Ok(path.to_owned());
    }
    let name = put.local.file_name().and_then(|name| name.to_str()).filter(|name| *name != "-");
    let name =
        name.ok_or_else(|| Failure::usage(format!("{path} is a directory of the guest: say which file there")))?;
    Ok(format!("{}/{name}", if path == "/" { "" } else { path.trim_end_matches('/') }))
}

async fn at_once(client: &Client, put: &Put<'_>, input: Input, dest: String) -> Result<Done> {
    let params =
        Params::new().with("path", dest.as_str()).with("mode", "replace").maybe("permissions", input.mode(put));
    let opened = Remote::open(client, params).await?;
    let progress = Progress::new(&dest, input.size(), put.quiet);
    let mut source = input.start(Digest::new(), put.local);
    let written = interruptible(async {
        opened.write_from(&mut source, 0, &progress).await?;
        let passed = source.finish().await?;
        progress.verifying(&dest);
        let digest = passed.digest.text();
        // The guest compares before it renames.
        opened.close(Some(digest.clone())).await?;
        Ok((passed.bytes, digest))
    })
    .await;
    drop(progress);
    match written {
        Ok((bytes, digest)) => Ok(Done { path: dest, bytes, resumed_at: 0, digest }),
        Err(failure) => {
            opened.discard().await;
            let hint = match put.local.as_os_str() == "-" {
                true => "the guest's file is as it was",
                false => "the guest's file is as it was (with --resume a part is kept, to go on with)",
            };
            Err(match failure {
                failure @ (Failure::Interrupted(_) | Failure::NoConnection(_) | Failure::TimedOut(_)) => {
                    with_note(failure, hint)
                }
                other => other,
            })
        }
    }
}

async fn resumable(client: &Client, put: &Put<'_>, input: Input, dest: String) -> Result<Done> {
    let part = format!("{dest}.virtagent-part");
    let done = interruptible(write_part(client, put, input, &part)).await;
    let (bytes, resumed_at, digest) = match done {
        Ok(done) => done,
        Err(failure @ (Failure::Interrupted(_) | Failure::NoConnection(_) | Failure::TimedOut(_))) => {
            let kept = format!("what the guest has is kept in {part}: run the same command again to go on");
            return Err(with_note(failure, &kept));
        }
        Err(failure) => return Err(failure),
    };
    let params = Params::new().with("from", part.as_str()).with("to", dest.as_str()).with("overwrite", true);
    client.call("file.rename", params.done()).await?;
    Ok(Done { path: dest, bytes, resumed_at, digest })
}

async fn write_part(client: &Client, put: &Put<'_>, input: Input, part: &str) -> Result<(u64, u64, String)> {
    let mut begin = 0;
    let mut digest = Digest::new();
    let mode = input.mode(put);
    let size = input.size();
    let mut input = input;
    if let Some(there) = remote::stat(client, part).await? {
        let same = match &input {
            Input::File { file, size, .. } if there.kind == "file" && there.size <= *size => {
                beginning(client, part, there.size, file, put.local).await?
            }
            _ => None,
        };
        match same {
            Some(held) => (begin, digest) = (there.size, held),
            None => {
                note(&format!(
                    "virtagent: {part} is not the beginning of {}: starting from scratch",
                    put.local.display()
                ));
                let params = Params::new().with("path", part).done();
                client.call("file.remove", params).await?;
            }
        }
    }
    if let Input::File { file, .. } = &mut input {
        let failed = |error: std::io::Error| Failure::local("read", put.local, &error);
        file.seek(SeekFrom::Start(begin)).map_err(failed)?;
    }
    let params = Params::new().with("path", part);
    let fresh = params_of_new(part, mode);
    let opened = match begin {
        0 => match Remote::open(client, fresh).await {
            // Nothing was written to it yet.
            Err(failure) if failure.errno() == Some(Errno::EEXIST) => {
                Remote::open(client, params.with("mode", "write")).await?
            }
            other => other?,
        },
        _ => Remote::open(client, params.with("mode", "write")).await?,
    };
    let progress = Progress::new(part, size, put.quiet);
    progress.begin_at(begin);
    let mut source = input.start(digest, put.local);
    opened.write_from(&mut source, begin, &progress).await?;
    let passed = source.finish().await?;
    progress.verifying(part);
    opened.close(None).await?;
    let ours = passed.digest.text();
    let total = begin + passed.bytes;
    match remote::digest(client, part, None).await? {
        Some((theirs, length)) if theirs == ours && length == total => Ok((total, begin, ours)),
        Some(_) => Err(Failure::guest(format!(
            "{part}: the digests differ; if {} did not change meanwhile, remove the part (virtagent file rm {part}) and begin anew",
            put.local.display()
        ))),
        None => {
            Err(Failure::guest("--resume needs file.digest, which the guest's policy refuses; leave --resume away"))
        }
    }
}

fn params_of_new(part: &str, mode: Option<Value>) -> Params {
    Params::new().with("path", part).with("mode", "create").maybe("permissions", mode)
}

/// The digest of the first `length` bytes of the local file, if the guest's part is just these.
async fn beginning(client: &Client, part: &str, length: u64, file: &File, local: &Path) -> Result<Option<Digest>> {
    let Some((theirs, digested)) = remote::digest(client, part, Some(length)).await? else { return Ok(None) };
    let local: PathBuf = local.to_owned();
    let mut copy = file.try_clone().map_err(|error| Failure::local("read", &local, &error))?;
    let ours = tokio::task::spawn_blocking(move || {
        let mut digest = Digest::new();
        copy.seek(SeekFrom::Start(0))?;
        digest.read(&mut copy, length).map(|()| digest)
    });
    let ours = ours.await.map_err(|_| Failure::usage("digesting stopped"))?;
    let ours = ours.map_err(|error| Failure::local("read", &local, &error))?;
    Ok((digested == length && ours.text() == theirs).then_some(ours))
}
