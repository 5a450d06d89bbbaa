//! Nothing stays behind: the processes and the directory of a demo go when it ends, by itself, by an error or by a signal.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use virtagent_tests::wait;

/// What a signal's arrival has to clear away.
static LEFT: Mutex<Left> = Mutex::new(Left { groups: Vec::new(), dirs: Vec::new() });

struct Left {
    groups: Vec<i32>,
    dirs: Vec<PathBuf>,
}

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on SIGINT, SIGTERM and SIGHUP clear away and end this process.
///
/// By handlers, not by blocking them: started programs inherit what is blocked, and could then not be ended.
pub fn on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut int, mut term, mut hup) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    std::thread::spawn(move || {
        let signal = runtime.block_on(async {
            tokio::select! {
                _ = int.recv() => Signal::SIGINT,
                _ = term.recv() => Signal::SIGTERM,
                _ = hup.recv() => Signal::SIGHUP,
            }
        });
        // Held to the end, so that nothing new is started meanwhile.
        let left = left();
        for group in &left.groups {
            let _ = killpg(Pid::from_raw(*group), Signal::SIGTERM);
        }
        std::thread::sleep(Duration::from_millis(500));
        for group in &left.groups {
            let _ = killpg(Pid::from_raw(*group), Signal::SIGKILL);
        }
        for dir in &left.dirs {
            let _ = std::fs::remove_dir_all(dir);
        }
        eprintln!("\n{signal}: cleaned up");
        std::process::exit(128 + signal as i32);
    });
    Ok(())
}

/// A directory that goes at the end.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new one that everybody may enter, for daemons of several users.
    pub fn new() -> Result<Scratch> {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::Builder::new().prefix("virtagent-demo-").tempdir()?.keep();
        left().dirs.push(dir.clone());
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))?;
        Ok(Scratch(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        left().dirs.retain(|dir| *dir != self.0);
    }
}

/// A program in a process group of its own, ended at the end of this value.
pub struct Running {
    child: Child,
    what: String,
}

impl Running {
    pub fn start(command: &mut Command, what: &str) -> Result<Running> {
        use std::os::unix::process::CommandExt;
        let mut left = left();
        let child = command.process_group(0).spawn().with_context(|| format!("can't start {what}"))?;
        left.groups.push(child.id().cast_signed());
        Ok(Running { child, what: what.to_owned() })
    }

    /// A process that already runs in a session of its own, and its directory, for signals to clear away.
    pub fn remember(group: u32, dir: &Path) {
        let mut left = left();
        left.groups.push(group.cast_signed());
        left.dirs.push(dir.to_owned());
    }

    /// Waits for something that this program is to do; fails early when it ends.
    pub fn wait<T>(&mut self, limit: Duration, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        wait::until(limit, what, || {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("{} ended ({status}) before {what}", self.what);
            }
            ask()
        })
    }

    /// Ends it as an administrator would, and harder after 6 s; virtagentd promises 5.
    pub fn end(&mut self) {
        let group = self.child.id().cast_signed();
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
            let ended = wait::until(Duration::from_secs(6), "its end", || Ok(self.child.try_wait()?));
            if ended.is_err() {
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                let _ = self.child.wait();
            }
        }
        left().groups.retain(|known| *known != group);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
