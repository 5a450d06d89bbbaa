//! One connected user daemon, as the system daemon knows it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use nix::unistd::Pid;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::room::Room;
use crate::identity::User;
use crate::link::{CallOptions, Link, Source};
use crate::rpc::{Call, Fault, FaultCode, Value};

/// How long a session may take over something that it is told.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A session in the registry.
#[derive(Clone)]
pub(crate) struct SessionRef {
    /// Who, by the kernel's word.
    pub user: Arc<User>,
    /// The user daemon's process, by the kernel's word.
    pub pid: Pid,
    /// Since when it is connected.
    pub since: SystemTime,
    /// The modules that it says it runs.
    pub modules: Vec<String>,
    pub link: Link,
    pub address: Addr<Session>,
    /// What the host's long calls to it may hold.
    pub room: Arc<Room>,
}

impl SessionRef {
    /// Tells the user daemon something that it has to know: one that does not answer loses its session, and begins anew.
    pub(super) fn tell(&self, method: &'static str, params: Value) {
        let link = self.link.clone();
        actix::spawn(async move {
            let options = CallOptions { timeout: Some(TELL_TIMEOUT), ..CallOptions::default() };
            if let Err(fault) = link.call(method, vec![params], &options).await {
                tracing::debug!(method, %fault, "the session did not hear");
                link.close("the session does not answer the system daemon");
            }
        });
    }

    /// Another process of the same user has taken over: tells the old one why, and closes its link. Whoever waits for an
    /// answer of it gets a fault at once.
    pub(super) fn replace(&self, by: Pid) {
        let reason = format!("the session was taken over by process {by} of the same user");
        self.tell("session.replaced", Value::object([("reason", reason.as_str().into()), ("pid", by_value(by))]));
        let link = self.link.clone();
        actix::spawn(async move { link.close_after_flush(&reason, Duration::from_secs(1)).await });
    }
}

fn by_value(pid: Pid) -> Value {
    Value::Int(pid.as_raw().into())
}

/// The actor that carries the host's calls to one user daemon. It lives as long as the registry or a job knows it.
pub(crate) struct Session {
    pub(super) link: Link,
}

impl Actor for Session {
    type Context = Context<Self>;
}

/// A call for the user daemon.
#[derive(Message)]
#[rtype(result = "Delivered")]
pub(super) struct Deliver {
    pub call: Call,
    pub options: CallOptions,
    /// Fires when nobody waits for the answer any more.
    pub cancel: CancellationToken,
}

/// The session's answer, with what it holds of its link's inbound budget.
pub(super) type Delivered = Result<(Value, Option<OwnedSemaphorePermit>), Fault>;

impl Handler<Deliver> for Session {
    type Result = ResponseFuture<Delivered>;

    fn handle(&mut self, Deliver { call, options, cancel }: Deliver, _: &mut Context<Self>) -> Self::Result {
        let link = self.link.clone();
        Box::pin(async move {
            tokio::select! {
                delivered = link.forward(call, &options, Source::System, false) => delivered,
                () = cancel.cancelled() => Err(Fault::new(FaultCode::Cancelled, "the caller cancelled the call or went away")),
            }
        })
    }
}
