//! One running daemon: readiness by its own word, its log, its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::LIMIT;
use crate::{process, wait};

/// Tells one start from another in the same folder.
static STARTS: AtomicU32 = AtomicU32::new(0);

/// A running daemon; it is killed when this value goes.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it says `READY=1`, as it would to systemd.
    ///
    /// # Errors
    /// When it ends first, or is not ready in time, with what it said.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Result<Daemon> {
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("ready-{number}"));
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        command.env("NOTIFY_SOCKET", &path);
        let mut daemon = Self::spawn(name, dir, command)?;
        let mut message = [0; 4096];
        let ready = wait::until(LIMIT, &format!("{name} to be ready"), || {
            while let Ok(length) = socket.recv(&mut message) {
                if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                    return Ok(Some(()));
                }
            }
            match daemon.child.try_wait()? {
                Some(status) => bail!("{name} ended ({status}): {}", daemon.log()),
                None => Ok(None),
            }
        });
        ready.map(|()| daemon)
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn spawn(name: &str, dir: &Path, mut command: Command) -> Result<Daemon> {
        let number = STARTS.fetch_add(1, Ordering::Relaxed);
        let log = dir.join(format!("{name}-{number}.log"));
        let file = fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("can't start {}", process::shown(&command)))?;
        Ok(Daemon { name: name.to_owned(), child, log })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has said that.
    ///
    /// # Errors
    /// When it has not in time, or ended.
    pub fn said(&mut self, text: &str) -> Result<()> {
        self.said_times(text, 1)
    }

    /// Waits until it has said that so many times.
    ///
    /// # Errors
    /// When it has not in time, or ended.
    pub fn said_times(&mut self, text: &str, times: usize) -> Result<()> {
        wait::until(LIMIT, &format!("{} to say {text:?}", self.name), || {
            if self.log().matches(text).count() >= times {
                return Ok(Some(()));
            }
            match self.child.try_wait()? {
                Some(status) => bail!("{} ended ({status}): {}", self.name, self.log()),
                None => Ok(None),
            }
        })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it runs on.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait::until(limit, &format!("the end of {}", self.name), || Ok(self.child.try_wait()?))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// One line of `/proc/PID/status`, without its name.
    ///
    /// # Errors
    /// When it has ended.
    pub fn status(&self, name: &str) -> Result<String> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|rest| rest.trim().to_owned()).with_context(|| format!("no {name} in /proc/PID/status"))
    }

    /// The memory it has in RAM, in MiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rss_mib(&self) -> Result<u64> {
        let text = self.status("VmRSS")?;
        let kib: u64 = text.split_whitespace().next().context("no number")?.parse()?;
        Ok(kib / 1024)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Shown only for a test that fails.
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        eprintln!("--- {} (process {}) said\n{tail}", self.name, self.pid());
    }
}
