//! The life of one program as one loop: its input, its outputs, its end, and whatever ends it.
//!
//! Owns the order of things at the end. While the leader runs: SIGTERM to the group, the grace, SIGKILL. After it has
//! ended: what is left of its group may finish its output (`a > >(tee log)`), then gets SIGTERM, then SIGKILL; an output
//! that is open even then belongs to a process that left the group, and is not waited for.

use std::future::poll_fn;
use std::process::ExitStatus;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::libc::SIGKILL;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::ExecError;
use crate::group::{Group, Leader};
use crate::stream::{Feed, Outputs, Source};

/// Where output goes.
pub(crate) trait Sink {
    /// Whether it can take a chunk now.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Takes a chunk.
    fn take(&mut self, source: Source, bytes: &[u8], eof: bool);
    /// Nobody wants the rest.
    fn discard(&mut self);
}

/// What may end a program, and how.
pub(crate) struct Terms {
    pub timeout: Option<Instant>,
    pub grace: Duration,
    /// The caller is gone, or the daemon stops.
    pub gone: CancellationToken,
}

/// How a program ended, and why if we ended it.
pub(crate) struct Ending {
    pub status: ExitStatus,
    pub timed_out: bool,
    pub gone: bool,
}

/// What a program's group may still take, each time, after its leader ended.
const LINGER: Duration = Duration::from_millis(250);
/// A chunk costs at least this much of it, so that an endless flood ends too.
const CHUNK_COST: Duration = Duration::from_millis(2);
/// How long SIGKILL may take to work.
const KILL_TIME: Duration = Duration::from_secs(5);

enum Phase {
    Running,
    Terminated { kill: Instant },
    Killed { give_up: Instant },
    Lingering { left: Duration, next: Step },
}

#[derive(Clone, Copy)]
enum Step {
    Terminate,
    Kill,
    Leave,
}

/// Sees a program to its end.
pub(crate) async fn oversee<S: Sink>(
    mut leader: Leader,
    group: &Group,
    mut feed: Feed,
    mut outputs: Outputs,
    sink: &mut S,
    terms: &Terms,
) -> Result<Ending, ExecError> {
    let mut phase = Phase::Running;
    let (mut timed_out, mut gone) = (false, false);
    let mut ready = false;

    loop {
        let lingering = matches!(phase, Phase::Lingering { .. });
        if lingering && !outputs.any() {
            break;
        }
        let began = Instant::now();
        // Time in which the sink takes nothing is not the group's.
        let alarm = match &phase {
            Phase::Running => terms.timeout,
            Phase::Terminated { kill: at } | Phase::Killed { give_up: at } => Some(*at),
            Phase::Lingering { left, .. } => ready.then(|| began + *left),
        };
        let mut cost = Duration::ZERO;

        tokio::select! {
            () = poll_fn(|cx| feed.poll_done(cx)), if !feed.is_done() => {}
            () = poll_fn(|cx| sink.poll_ready(cx)), if !ready && outputs.any() => {
                ready = true;
                continue;
            }
            chunk = poll_fn(|cx| outputs.poll_chunk(cx)), if ready && outputs.any() => {
                sink.take(chunk.source, outputs.bytes(chunk), chunk.eof);
                ready = false;
                cost = CHUNK_COST;
            }
            () = leader.ended(), if !lingering => {
                let next = if matches!(phase, Phase::Running) { Step::Terminate } else { Step::Kill };
                phase = Phase::Lingering { left: LINGER, next };
                continue;
            }
            () = terms.gone.cancelled(), if !gone => {
                gone = true;
                sink.discard();
                if matches!(phase, Phase::Running) {
                    group.terminate();
                    phase = Phase::Terminated { kill: began + terms.grace };
                }
                continue;
            }
            () = sleep_until(alarm.unwrap_or(began)), if alarm.is_some() => match &mut phase {
                Phase::Running => {
                    timed_out = true;
                    group.terminate();
                    phase = Phase::Terminated { kill: Instant::now() + terms.grace };
                }
                Phase::Terminated { .. } => {
                    let _ = group.signal(SIGKILL);
                    phase = Phase::Killed { give_up: Instant::now() + KILL_TIME };
                }
                // Dropping the leader leaves a task that buries it, should it ever end.
                Phase::Killed { .. } => return Err(ExecError::Stuck(group.pid())),
                Phase::Lingering { left, next } => {
                    *left = LINGER;
                    match next {
                        Step::Terminate => {
                            group.terminate();
                            *next = Step::Kill;
                        }
                        Step::Kill => {
                            let _ = group.signal(SIGKILL);
                            *next = Step::Leave;
                        }
                        Step::Leave => break,
                    }
                    continue;
                }
            },
        }
        if let Phase::Lingering { left, .. } = &mut phase {
            *left = left.saturating_sub(began.elapsed().max(cost));
        }
    }

    let status = leader.finish().await?;
    for source in outputs.close() {
        tokio::select! {
            () = poll_fn(|cx| sink.poll_ready(cx)) => sink.take(source, &[], true),
            () = terms.gone.cancelled() => break,
        }
    }
    Ok(Ending { status, timed_out, gone })
}
