//! One program's process group, from its start until its number is given back to the kernel.
//!
//! A group is named by its leader's process number. The number can't be given to another process while the leader is
//! unburied, so every signal is sent before that, under the same lock.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{SIGCONT, SIGHUP, SIGKILL, SIGTERM};
use nix::unistd::Pid;
use tempfile::TempPath;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::ExecError;
use crate::live::Live;
use crate::{child, pool};

/// A group whose leader is our child. Dropping it unburied kills it.
pub(crate) struct Group {
    leader: Pid,
    terminal: bool,
    buried: Mutex<bool>,
    script: Mutex<Option<TempPath>>,
}

impl Group {
    pub(crate) fn new(leader: Pid, terminal: bool, script: Option<TempPath>) -> Self {
        Self { leader, terminal, buried: Mutex::new(false), script: Mutex::new(script) }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.leader.as_raw()
    }

    /// Sends a signal to the whole group.
    pub(crate) fn signal(&self, number: i32) -> Result<(), Errno> {
        let buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        if *buried { Err(Errno::ESRCH) } else { child::signal_group(self.leader, number) }
    }

    /// Asks the whole group to end, also what is stopped.
    pub(crate) fn terminate(&self) {
        if self.terminal {
            let _ = self.signal(SIGHUP);
        }
        let _ = self.signal(SIGTERM);
        let _ = self.signal(SIGCONT);
    }

    /// Kills whatever is left of the group and buries its leader, which has ended.
    fn bury(&self) -> Result<ExitStatus, ExecError> {
        let mut buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        if *buried {
            return Err(ExecError::Lost);
        }
        let _ = child::signal_group(self.leader, SIGKILL);
        let status = child::bury(self.leader, false);
        *buried = true;
        drop(buried);
        self.remove_script();
        status.ok().flatten().ok_or(ExecError::Lost)
    }

    /// Kills the group outright and leaves its burial to another thread: there is no event loop any more to wait in.
    fn abandon(&self) {
        let mut buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *buried, true) {
            let leader = self.leader;
            let _ = child::signal_group(leader, SIGKILL);
            let _ = pool::submit(move |_| {
                let _ = child::bury(leader, true);
            });
            drop(buried);
            self.remove_script();
        }
    }

    fn remove_script(&self) {
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(script) = script {
            let _ = pool::submit(move |_| drop(script));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The duty to see a group to its end. Dropping it early ends the group: SIGTERM, the grace, SIGKILL.
pub(crate) struct Leader(Option<Duty>);

struct Duty {
    group: Arc<Group>,
    watch: Watch,
    grace: Duration,
    _live: Live,
    _slot: Option<OwnedSemaphorePermit>,
}

/// How we learn of the leader's end.
enum Watch {
    Pidfd(AsyncFd<OwnedFd>),
    /// Kernels before Linux 5.3.
    Sigchld(Signal),
}

impl Leader {
    /// Takes a group into care. `live` and `slot` are held until it is buried.
    pub(crate) fn new(
        group: Arc<Group>,
        pidfd: Option<OwnedFd>,
        grace: Duration,
        live: Live,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Result<Self, ExecError> {
        let watch = match pidfd {
            Some(fd) => child::watch(fd, Interest::READABLE).map(Watch::Pidfd),
            None => signal(SignalKind::child()).map(Watch::Sigchld),
        };
        let watch = watch.map_err(|error| ExecError::io("watch the program", &error))?;
        Ok(Self(Some(Duty { group, watch, grace, _live: live, _slot: slot })))
    }

    /// Waits until the leader has ended; it stays unburied. May be dropped and called again.
    pub(crate) async fn ended(&mut self) {
        match &mut self.0 {
            Some(duty) => duty.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Kills what is left of the group (on a terminal: of the session) after its leader has ended, and buries it.
    pub(crate) async fn finish(mut self) -> Result<ExitStatus, ExecError> {
        match self.0.take() {
            Some(duty) => duty.finish().await,
            None => Err(ExecError::Lost),
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Without a runtime, or with one that is ending and drops the task, the duty's own end kills the group outright.
        if let (Some(mut duty), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            duty.group.terminate();
            runtime.spawn(async move {
                if tokio::time::timeout(duty.grace, duty.ended()).await.is_err() {
                    let _ = duty.group.signal(SIGKILL);
                    duty.ended().await;
                }
                let _ = duty.finish().await;
            });
        }
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        self.group.abandon();
    }
}

impl Duty {
    async fn ended(&mut self) {
        loop {
            match &mut self.watch {
                Watch::Pidfd(fd) => match fd.readable().await {
                    Ok(_) if child::has_ended(self.group.leader) => return,
                    Ok(mut guard) => guard.clear_ready(),
                    // The runtime is shutting down.
                    Err(_) => std::future::pending().await,
                },
                Watch::Sigchld(_) if child::has_ended(self.group.leader) => return,
                Watch::Sigchld(signal) => drop(signal.recv().await),
            }
        }
    }

    async fn finish(self) -> Result<ExitStatus, ExecError> {
        if self.group.terminal {
            let session = self.group.leader;
            let (done, swept) = oneshot::channel();
            let submitted = pool::submit(move |_| {
                kill_session(session);
                let _ = done.send(());
            });
            if submitted.is_ok() {
                let _ = swept.await;
            }
        }
        self.group.bury()
    }
}

/// Kills every process of a session whose leader is unburied: a shell on a terminal puts each job in a group of its own.
fn kill_session(session: Pid) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number != session.as_raw()) {
        let belongs = || session_of(number) == Some(session.as_raw());
        if belongs() {
            child::kill_checked(Pid::from_raw(number), belongs);
        }
    }
}

/// The session of a process: the fourth field after the name's closing parenthesis (proc_pid_stat(5)).
fn session_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Wanted;
    use crate::environment::Base;
    use crate::launch::{Wiring, launch};
    use crate::live::Census;
    use crate::params::StartParams;

    async fn started(base: &Base, words: &[&str]) -> Arc<Group> {
        let argv = words.iter().map(|word| (*word).to_owned()).collect();
        let mut params = StartParams { argv: Some(argv), ..StartParams::default() };
        let command = Wanted::of_start(&mut params).command(base, None).unwrap();
        launch(command, Wiring::Pipes { stdin: false }).await.unwrap().group
    }

    #[tokio::test]
    async fn where_the_kernel_has_no_pidfds_the_end_is_seen_by_sigchld() {
        let (base, census) = (Base::for_tests(), Census::new());
        let mut leaders = Vec::new();
        for code in 0..20 {
            let group = started(&base, &["sh", "-c", &format!("sleep 0.0{code}; exit {code}")]).await;
            leaders.push((code, Leader::new(group, None, Duration::from_secs(1), census.enter(), None).unwrap()));
        }
        for (code, mut leader) in leaders {
            leader.ended().await;
            assert_eq!(leader.finish().await.unwrap().code(), Some(code));
        }
    }

    #[tokio::test]
    async fn a_signal_after_the_burial_reaches_nobody() {
        let (base, census) = (Base::for_tests(), Census::new());
        let group = started(&base, &["true"]).await;
        let mut leader = Leader::new(Arc::clone(&group), None, Duration::ZERO, census.enter(), None).unwrap();
        leader.ended().await;
        assert_eq!(group.signal(SIGTERM), Ok(()), "an unburied leader keeps its number");
        leader.finish().await.unwrap();
        assert_eq!(group.signal(SIGTERM), Err(Errno::ESRCH));
    }
}
