//! `file get` and `file cat`: out of the guest.
//!
//! Owns DEST.part and DEST.part.meta. DEST changes only by the rename of a file whose digest the guest confirmed.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent_core::rpc::Value;
use serde::{Deserialize, Serialize};

use super::digest::{Digest, comparable};
use super::local::Sink;
use super::progress::Progress;
use super::remote::{self, Remote, Stat};
use super::{interruptible, with_note};
use crate::client::{Client, Params};
use crate::failure::{Failure, Result};
use crate::output::note;

/// What became of a `get`.
pub struct Got {
    pub path: PathBuf,
    pub bytes: u64,
    pub resumed_at: u64,
    /// What both ends agree on; nothing where the guest gives none.
    pub digest: Option<String>,
}

/// What DEST.part is a part of.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Meta {
    vm: String,
    user: Option<String>,
    path: String,
    size: u64,
    mtime: String,
}

/// Copies `path` of the guest to `local`, a file or a directory.
pub async fn get(client: &Client, path: &str, local: &Path, quiet: bool) -> Result<Got> {
    let dest = destination(path, local)?;
    if !client.is_ours() {
        return old(client, path, dest).await;
    }
    let stat = remote::stat(client, path).await?;
    if stat.as_ref().is_some_and(|stat| stat.kind == "directory") {
        return Err(is_directory(path));
    }
    let mut part = Part::open(&dest)?;
    let meta = stat.as_ref().filter(|stat| stat.kind == "file").map(|stat| Meta {
        vm: client.target().name.clone(),
        user: client.user().map(str::to_owned),
        path: path.to_owned(),
        size: stat.size,
        mtime: stat.mtime.clone(),
    });
    let copied = interruptible(async {
        let mut begin = part.begin(meta.as_ref())?;
        let resumed_at = begin;
        loop {
            if let Some((bytes, digest)) = copy(client, path, &part, begin, quiet).await? {
                return Ok((bytes, digest, resumed_at));
            }
            if begin == 0 {
                part.restart(None)?;
                part.remove();
                return Err(Failure::guest(format!(
                    "{path}: the digests differ, so the copy was thrown away; if the file was written to meanwhile, run the command again"
                )));
            }
            note(&format!("virtagent: what {} held is not the beginning of the file: starting from scratch", part.path.display()));
            part.restart(meta.as_ref())?;
            begin = 0;
        }
    })
    .await;
    match copied {
        Ok((bytes, digest, resumed_at)) => {
            part.publish(&dest, stat.as_ref())?;
            Ok(Got { path: dest, bytes, resumed_at, digest })
        }
        Err(failure) => Err(part.left_behind(failure, meta.is_some())),
    }
}

/// Copies from `begin` on; nothing when the digests differ.
async fn copy(
    client: &Client,
    path: &str,
    part: &Part,
    begin: u64,
    quiet: bool,
) -> Result<Option<(u64, Option<String>)>> {
    let failed = |error: std::io::Error| Failure::local("write", &part.path, &error);
    let mut digest = Digest::new();
    if begin > 0 {
        let mut file = File::open(&part.path).map_err(|error| Failure::local("read", &part.path, &error))?;
        digest = tokio::task::spawn_blocking(move || digest.read(&mut file, begin).map(|()| digest))
            .await
            .map_err(|_| Failure::usage("digesting stopped"))?
            .map_err(|error| Failure::local("read", &part.path, &error))?;
    }
    let opened = Remote::open(client, Params::new().with("path", path).with("mode", "read")).await?;
    let progress = Progress::new(path, (opened.size > 0).then_some(opened.size), quiet);
    progress.begin_at(begin);
    let mut file = part.file.try_clone().map_err(failed)?;
    file.seek(SeekFrom::Start(begin)).map_err(failed)?;
    let mut sink = Sink::start(file, digest, &part.path);
    let read = opened.read_into(&mut sink, begin, &progress).await;
    // What came is worth keeping whatever happened after it.
    let passed = sink.finish().await;
    read?;
    let passed = passed?;
    progress.verifying(path);
    let theirs = opened.close(None).await?.filter(|text| begin == 0 && comparable(text));
    let ours = passed.digest.text();
    let theirs = match theirs {
        Some(theirs) => Some(theirs),
        // A resumed transfer has passed only in part, and an empty one not at all.
        None if begin > 0 || passed.bytes > 0 => remote::digest(client, path, None).await?.map(|(text, _)| text),
        None => Some(ours.clone()),
    };
    drop(progress);
    let total = begin + passed.bytes;
    match theirs {
        Some(theirs) if theirs == ours => Ok(Some((total, Some(ours)))),
        Some(_) => Ok(None),
        None => {
            note(&format!("virtagent: {path}: the guest gives no digest, so the copy is not verified"));
            Ok(Some((total, None)))
        }
    }
}

/// Writes a file of the guest to a local stream that can't be resumed.
pub async fn cat(client: &Client, path: &str, out: impl Write + Send + 'static, quiet: bool) -> Result<u64> {
    let name = Path::new("standard output");
    let mut sink = Sink::start(out, Digest::new(), name);
    if !client.is_ours() {
        let bytes = old_bytes(client, path).await?;
        sink.send(bytes).await?;
        return sink.finish().await.map(|passed| passed.bytes);
    }
    interruptible(async {
        let opened = Remote::open(client, Params::new().with("path", path).with("mode", "read")).await?;
        let progress = Progress::new(path, (opened.size > 0).then_some(opened.size), quiet);
        opened.read_into(&mut sink, 0, &progress).await?;
        let passed = sink.finish().await?;
        let theirs = opened.close(None).await?;
        if theirs.is_some_and(|theirs| comparable(&theirs) && theirs != passed.digest.text()) {
            return Err(Failure::guest(format!("{path}: the digests differ: do not use what was written")));
        }
        Ok(passed.bytes)
    })
    .await
}

/// An agent of 2011 gives a file whole, in one call.
async fn old(client: &Client, path: &str, dest: PathBuf) -> Result<Got> {
    let bytes = old_bytes(client, path).await?;
    let mut part = Part::open(&dest)?;
    part.restart(None)?;
    (&part.file).write_all(&bytes).map_err(|error| Failure::local("write", &part.path, &error))?;
    part.publish(&dest, None)?;
    note("virtagent: the guest's agent is of 2011 and gives no digest, so the copy is not verified");
    Ok(Got { path: dest, bytes: bytes.len() as u64, resumed_at: 0, digest: None })
}

async fn old_bytes(client: &Client, path: &str) -> Result<bytes::Bytes> {
    match client.call_with("va.getfile", vec![path.into()]).await? {
        Value::Bytes(bytes) => Ok(bytes),
        other => Err(Failure::guest(format!("va.getfile: the guest answered {} and not bytes", other.type_name()))),
    }
}

fn is_directory(path: &str) -> Failure {
    Failure::usage(format!(
        "{path} is a directory, and get copies one file; for a tree: virtagent exec -- tar c -C {path} . | tar x"
    ))
}

/// A directory takes the source's name; a symbolic link is followed, so that it stays one.
fn destination(path: &str, local: &Path) -> Result<PathBuf> {
    let mut dest = local.to_owned();
    if local.is_dir() || local.as_os_str().to_string_lossy().ends_with('/') {
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if matches!(name, "" | "." | "..") {
            return Err(is_directory(path));
        }
        dest.push(name);
    }
    let dest = fs::canonicalize(&dest).unwrap_or(dest);
    match fs::metadata(&dest) {
        Ok(found) if found.is_dir() => Err(Failure::usage(format!("{} is a directory", dest.display()))),
        Ok(found) if !found.is_file() => Err(Failure::usage(format!(
            "{} is no ordinary file: `virtagent file cat {path} > {0}` writes to it",
            dest.display()
        ))),
        _ => Ok(dest),
    }
}

/// DEST.part with its lock.
struct Part {
    file: File,
    path: PathBuf,
    meta: PathBuf,
}

impl Part {
    fn open(dest: &Path) -> Result<Self> {
        let with = |suffix: &str| {
            let mut name = dest.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (path, meta) = (with(".part"), with(".part.meta"));
        // The content may be meant for few eyes: nobody else reads it before it has its permissions.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(|error| Failure::local("write", &path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path, meta }),
            Err(TryLockError::WouldBlock) => {
                Err(Failure::usage(format!("another virtagent is writing {}: let it finish", path.display())))
            }
            Err(TryLockError::Error(error)) => Err(Failure::local("lock", &path, &error)),
        }
    }

    /// Where to begin: behind what is there of the same file, or at 0.
    fn begin(&mut self, meta: Option<&Meta>) -> Result<u64> {
        let length = self.file.metadata().map_err(|error| Failure::local("read", &self.path, &error))?.len();
        if length > 0 {
            let known: Option<Meta> = fs::read(&self.meta).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            if meta.is_some_and(|meta| known.as_ref() == Some(meta) && length <= meta.size) {
                return Ok(length);
            }
            note(&format!(
                "virtagent: {} is of another file, or of another version of it: starting from scratch",
                self.path.display()
            ));
        }
        self.restart(meta)?;
        Ok(0)
    }

    fn restart(&mut self, meta: Option<&Meta>) -> Result<()> {
        self.file.set_len(0).map_err(|error| Failure::local("write", &self.path, &error))?;
        self.file.seek(SeekFrom::Start(0)).map_err(|error| Failure::local("write", &self.path, &error))?;
        let failed = |error: std::io::Error| Failure::local("write", &self.meta, &error);
        match meta {
            Some(meta) => {
                let text = serde_json::to_vec(meta).map_err(|error| failed(error.into()))?;
                fs::write(&self.meta, text).map_err(failed)
            }
            None => match fs::remove_file(&self.meta) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            },
        }
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.meta);
    }

    /// Puts the part into its place, with the permissions of what was there, else the guest's masked by ours.
    fn publish(&self, dest: &Path, stat: Option<&Stat>) -> Result<()> {
        let failed = |error: std::io::Error| Failure::local("write", dest, &error);
        let mode = match fs::metadata(dest) {
            Ok(old) => old.permissions().mode() & 0o7777,
            Err(_) => stat.map_or(0o666, |stat| stat.mode & 0o777) & !umask(),
        };
        self.file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, dest).map_err(failed)?;
        let _ = fs::remove_file(&self.meta);
        Ok(())
    }

    /// What the user should know about what is left, if anything.
    fn left_behind(&self, failure: Failure, resumable: bool) -> Failure {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        if length == 0 || !resumable {
            self.remove();
            return failure;
        }
        let size = crate::output::human_size(length.cast_signed());
        let kept = format!("{size} are kept in {}: run the same command again to go on", self.path.display());
        with_note(failure, &kept)
    }
}

fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    mask.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(size: u64) -> Meta {
        Meta { vm: "web1".into(), user: None, path: "/x".into(), size, mtime: "1.5".into() }
    }

    #[test]
    fn a_part_of_the_same_file_is_gone_on_with_and_any_other_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("x");
        let mut part = Part::open(&dest).unwrap();
        assert_eq!(part.begin(Some(&meta(10))).unwrap(), 0);
        part.file.write_all(b"1234").unwrap();
        drop(part);
        assert_eq!(Part::open(&dest).unwrap().begin(Some(&meta(10))).unwrap(), 4);
        assert_eq!(Part::open(&dest).unwrap().begin(Some(&meta(11))).unwrap(), 0);
        assert_eq!(fs::metadata(dir.path().join("x.part")).unwrap().len(), 0);
    }

    #[test]
    fn two_copies_to_one_file_do_not_mix() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("x");
        let _first = Part::open(&dest).unwrap();
        let Err(failure) = Part::open(&dest) else { panic!("opened twice") };
        assert!(failure.to_string().starts_with("another virtagent is writing "), "{failure}");
    }

    #[test]
    fn a_directory_takes_the_files_name() {
        let dir = tempfile::tempdir().unwrap();
        let dest = destination("/etc/hosts", dir.path()).unwrap();
        assert_eq!(dest.file_name().unwrap(), "hosts");
        assert!(destination("/", dir.path()).is_err());
        assert!(destination("/etc/..", dir.path()).is_err());
        assert!(destination("/etc/hosts", Path::new("/dev/null")).is_err());
    }

    #[test]
    fn a_file_that_was_there_keeps_its_permissions() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().join("x");
        fs::write(&dest, "old").unwrap();
        fs::set_permissions(&dest, Permissions::from_mode(0o640)).unwrap();
        let mut part = Part::open(&dest).unwrap();
        part.begin(None).unwrap();
        part.file.write_all(b"new").unwrap();
        part.publish(&dest, None).unwrap();
        assert_eq!(fs::read(&dest).unwrap(), b"new");
        assert_eq!(fs::metadata(&dest).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
