//! One user daemon a user: a lock on the pid file. The kernel drops it with the process, so a stale file never blocks.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};

/// The lock, held as long as this lives.
pub struct PidLock(#[allow(dead_code)] File);

impl PidLock {
    /// Takes the lock and writes our pid.
    ///
    /// # Errors
    /// Another process holds it: which, and what to do.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("{}: can't be made; give another --pid-file", folder.display()))?;
        }
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut file = open.with_context(|| format!("pid file {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let pid = pid.trim();
                bail!("a user daemon of this user runs already: process {pid} holds {}", path.display());
            }
            Err(TryLockError::Error(error)) => return Err(error).context(format!("locking {}", path.display())),
        }
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self(file))
    }
}
