//! `exec.run`: a program to its end, its output collected up to a limit.

use std::task::{Context, Poll};

use agent_core::rpc::Blob;
use tokio::time::Instant;

use crate::command::Wanted;
use crate::environment::Base;
use crate::error::ExecError;
use crate::group::Leader;
use crate::launch::{Ends, Launched, Wiring, launch};
use crate::live::Live;
use crate::oversee::{Sink, Terms, oversee};
use crate::owners::Slot;
use crate::params::{RunParams, RunResult};
use crate::settings::Settings;
use crate::signals;
use crate::stream::{Feed, Outputs, Source, end};

/// Runs a program. Dropping the future ends its whole group.
pub(crate) async fn run(
    settings: &Settings,
    base: &Base,
    slot: Slot,
    live: Live,
    mut params: RunParams,
) -> Result<RunResult, ExecError> {
    let limit = params.output_limit.unwrap_or(settings.default_output());
    if limit > settings.max_output {
        return Err(ExecError::OutputLimit { asked: limit, most: settings.max_output });
    }
    let command = Wanted::of_run(&mut params).command(base, None)?;
    let input = params.stdin.take().unwrap_or_default().0;

    let began = Instant::now();
    let Launched { group, pidfd, ends } = launch(command, Wiring::Pipes { stdin: !input.is_empty() }).await?;
    let grace = settings.kill_grace();
    let leader = Leader::new(group.clone(), pidfd, grace, live, Some(slot.permit))?;
    let (stdin, stdout, stderr) = match ends {
        Ends::Pipes { stdin, stdout, stderr } => (stdin.map(end).transpose()?, end(stdout)?, end(stderr)?),
        Ends::Terminal(_) => return Err(ExecError::Lost),
    };

    let outputs = Outputs::new(vec![(Source::Stdout, stdout), (Source::Stderr, stderr)]);
    // A timeout so long that no clock can hold it is none.
    let timeout = params.timeout_ms.and_then(|ms| began.checked_add(std::time::Duration::from_millis(ms)));
    let terms = Terms { timeout, grace, gone: slot.gone };
    let mut captured = Captured { limit, stdout: Vec::new(), stderr: Vec::new(), truncated: false };
    let ending = oversee(leader, &group, Feed::new(stdin, input), outputs, &mut captured, &terms).await?;
    if ending.gone {
        return Err(ExecError::OwnerGone);
    }
    let how = signals::ending(ending.status);
    Ok(RunResult {
        exit_code: how.exit_code,
        signal: how.signal,
        stdout: Blob::from(captured.stdout),
        stderr: Blob::from(captured.stderr),
        truncated: captured.truncated,
        timed_out: ending.timed_out,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        pid: group.pid(),
    })
}

/// Keeps the first `limit` bytes of each output.
struct Captured {
    limit: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    truncated: bool,
}

impl Sink for Captured {
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn take(&mut self, source: Source, bytes: &[u8], _: bool) {
        let kept = if source == Source::Stderr { &mut self.stderr } else { &mut self.stdout };
        let fits = bytes.len().min(self.limit - kept.len());
        kept.extend_from_slice(&bytes[..fits]);
        self.truncated |= fits < bytes.len();
    }

    fn discard(&mut self) {
        self.limit = 0;
        self.stdout.clear();
        self.stderr.clear();
    }
}
