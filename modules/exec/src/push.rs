//! Output as calls to the host: `exec.output`, at most a window of them unanswered.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use agent_core::module::HostCaller;
use agent_core::rpc::{MethodName, Outcome, Value};
use bytes::Bytes;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::oversee::Sink;
use crate::stream::Source;

/// How many chunks may be under way; the host's reply makes room for one more.
const WINDOW: usize = 4;

/// Pushes one program's output.
pub(crate) struct Push {
    host: Arc<dyn HostCaller>,
    method: MethodName,
    handle: i64,
    seq: i64,
    under_way: JoinSet<Outcome>,
    /// The host refused a chunk, or nobody is there.
    refused: bool,
    discarded: usize,
}

impl Push {
    pub(crate) fn new(host: Arc<dyn HostCaller>, method: MethodName, handle: i64) -> Self {
        Self { host, method, handle, seq: 0, under_way: JoinSet::new(), refused: false, discarded: 0 }
    }

    /// Waits until the host answered every chunk, unless it is gone.
    pub(crate) async fn flush(&mut self, gone: &CancellationToken) {
        let mut gone = pin!(gone.cancelled());
        while !self.refused {
            tokio::select! {
                answer = self.under_way.join_next() => match answer {
                    Some(answer) => self.answered(answer),
                    None => break,
                },
                () = &mut gone => self.discard(),
            }
        }
        if self.discarded > 0 {
            let (handle, bytes) = (self.handle, self.discarded);
            tracing::info!(handle, bytes, "output that the host did not take was discarded");
        }
    }

    fn answered(&mut self, answer: Result<Outcome, JoinError>) {
        let refusal = match answer {
            Ok(Ok(_)) => return,
            Ok(Err(fault)) => fault.to_string(),
            Err(error) => error.to_string(),
        };
        if !self.refused {
            tracing::info!(handle = self.handle, %refusal, "the host takes no more output; it is discarded from here on");
        }
        self.discard();
    }
}

impl Sink for Push {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let full = self.under_way.len() >= WINDOW;
            match self.under_way.poll_join_next(cx) {
                Poll::Ready(Some(answer)) => self.answered(answer),
                Poll::Pending if full => return Poll::Pending,
                Poll::Pending | Poll::Ready(None) => return Poll::Ready(()),
            }
        }
    }

    fn take(&mut self, source: Source, bytes: &[u8], eof: bool) {
        if self.refused {
            self.discarded += bytes.len();
            return;
        }
        let params = Value::object([
            ("handle", self.handle.into()),
            ("stream", source.name().into()),
            ("seq", self.seq.into()),
            ("data", Bytes::copy_from_slice(bytes).into()),
            ("eof", eof.into()),
        ]);
        self.seq += 1;
        self.under_way.spawn(self.host.call_host(self.method.clone(), vec![params]));
    }

    fn discard(&mut self) {
        self.refused = true;
        // What is under way is given up with its set: its answers don't matter any more.
        self.under_way = JoinSet::new();
    }
}
