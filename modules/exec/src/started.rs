//! `exec.start` and what follows it: input, signals, size, the wait. Output goes its own way, see [`crate::push`].

use std::future::poll_fn;
use std::sync::Arc;

use agent_core::module::HostCaller;
use agent_core::rpc::MethodName;
use bytes::Bytes;
use nix::errno::Errno;
use std::os::fd::AsFd;
use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;

use crate::child;
use crate::command::Wanted;
use crate::environment::Base;
use crate::error::ExecError;
use crate::group::{Group, Leader};
use crate::launch::{Ends, Launched, Wiring, launch};
use crate::live::Live;
use crate::oversee::{Terms, oversee};
use crate::owners::Slot;
use crate::params::{StartParams, WaitResult};
use crate::push::Push;
use crate::settings::Settings;
use crate::signals;
use crate::stream::{End, Feed, Outputs, Source, end, poll_write_all};

/// How a program ended, or why nobody knows.
type Finished = Result<WaitResult, Arc<ExecError>>;

/// A program that was started and not yet waited for.
pub(crate) struct Started {
    group: Arc<Group>,
    /// Whoever holds the lock writes; the others wait in the order of their calls.
    input: Mutex<Option<End>>,
    terminal: Option<End>,
    finished: watch::Receiver<Option<Finished>>,
    pub gone: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

/// Where output is pushed.
pub(crate) struct Receiver {
    pub host: Arc<dyn HostCaller>,
    pub method: MethodName,
    pub handle: i64,
}

/// The most that one `exec.stdin` may bring, in bytes.
const STDIN_LIMIT: usize = 1 << 20;
/// The terminal's end-of-file character, Ctrl-D.
const END_OF_FILE: &[u8] = &[4];

/// Starts a program and a task that sees it to its end.
pub(crate) async fn start(
    settings: &Settings,
    base: &Base,
    slot: Slot,
    live: Live,
    mut params: StartParams,
    receiver: Receiver,
) -> Result<Started, ExecError> {
    let terminal = params.pty.take();
    let command = Wanted::of_start(&mut params).command(base, terminal.as_ref())?;
    let wiring = match terminal {
        Some(terminal) => Wiring::Terminal(terminal),
        None => Wiring::Pipes { stdin: params.stdin.unwrap_or(false) },
    };
    let Launched { group, pidfd, ends } = launch(command, wiring).await?;
    let grace = settings.kill_grace();
    let leader = Leader::new(group.clone(), pidfd, grace, live, None)?;
    let (input, terminal, outputs) = match ends {
        Ends::Pipes { stdin, stdout, stderr } => {
            let outputs = vec![(Source::Stdout, end(stdout)?), (Source::Stderr, end(stderr)?)];
            (stdin.map(end).transpose()?, None, outputs)
        }
        Ends::Terminal(terminal) => {
            let terminal = end(terminal)?;
            (Some(terminal.clone()), Some(terminal.clone()), vec![(Source::Terminal, terminal)])
        }
    };

    let (finish, finished) = watch::channel(None);
    let terms = Terms { timeout: None, grace, gone: slot.gone.clone() };
    let seen = Arc::clone(&group);
    tokio::spawn(async move {
        let mut push = Push::new(receiver.host, receiver.method, receiver.handle);
        let ending = oversee(leader, &seen, Feed::nothing(), Outputs::new(outputs), &mut push, &terms).await;
        push.flush(&terms.gone).await;
        finish.send_replace(Some(ending.map(|ending| signals::ending(ending.status)).map_err(Arc::new)));
    });
    Ok(Started { group, input: Mutex::new(input), terminal, finished, gone: slot.gone, _permit: slot.permit })
}

impl Started {
    pub(crate) fn pid(&self) -> i32 {
        self.group.pid()
    }

    /// Writes to the program's input and waits until it took all (for a terminal: until the terminal did).
    pub(crate) async fn write(&self, data: Bytes) -> Result<(), ExecError> {
        if data.len() > STDIN_LIMIT {
            return Err(ExecError::StdinLimit { came: data.len(), most: STDIN_LIMIT });
        }
        let writing = async {
            let mut input = self.input.lock().await;
            let end = input.as_ref().ok_or(ExecError::StdinClosed)?;
            let mut rest = data;
            let written = poll_fn(|cx| poll_write_all(end, &mut rest, cx)).await;
            written.map_err(|_| {
                *input = None;
                ExecError::StdinClosed
            })
        };
        tokio::select! {
            biased;
            _ = self.outcome() => Err(ExecError::Ended),
            written = writing => written,
        }
    }

    /// Ends the program's input, after what others are still writing.
    pub(crate) async fn close_input(&self) -> Result<(), ExecError> {
        if self.terminal.is_some() {
            return self.write(Bytes::from_static(END_OF_FILE)).await;
        }
        let closing = async { drop(self.input.lock().await.take()) };
        tokio::select! {
            () = closing => Ok(()),
            _ = self.outcome() => Ok(()),
        }
    }

    /// Signals the program's own group.
    pub(crate) fn signal(&self, number: i32) -> Result<(), ExecError> {
        self.group.signal(number).map_err(|errno| match errno {
            Errno::ESRCH => ExecError::Ended,
            errno => ExecError::os(format!("send {} to process {}", signals::name(number), self.pid()), errno),
        })
    }

    /// Sets the size of the program's terminal; the kernel tells it by SIGWINCH.
    pub(crate) fn resize(&self, rows: u16, cols: u16) -> Result<(), ExecError> {
        let no_terminal = || ExecError::Params("the program has no terminal: start it with pty".to_owned());
        let terminal = self.terminal.as_ref().ok_or_else(no_terminal)?;
        child::set_window_size(terminal.get_ref().as_fd(), rows, cols).map_err(|errno| ExecError::os("resize", errno))
    }

    /// How it ended, once it has ended and its output was answered.
    pub(crate) async fn outcome(&self) -> Finished {
        let mut finished = self.finished.clone();
        match finished.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(finished)) => finished.clone(),
            _ => Err(Arc::new(ExecError::Lost)),
        }
    }
}
