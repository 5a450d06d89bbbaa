//! How a router's life goes: the host comes and leaves, the policy changes, the daemon stops.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::{Router, Upstream};
use crate::audit::Event;
use crate::link::Link;
use crate::module::Level;
use crate::policy::Policy;
use crate::rpc::Value;

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct HostUp(pub Link);

impl Handler<HostUp> for Router {
    type Result = ();

    fn handle(&mut self, HostUp(link): HostUp, _: &mut Context<Self>) {
        let owner = self.new_owner();
        self.upstream = Some(Upstream { link, owner });
        self.record(Event::new(if self.level == Level::System || self.direct { "host.connected" } else { "joined" }));
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct HostDown;

impl Handler<HostDown> for Router {
    type Result = ();

    fn handle(&mut self, _: HostDown, _: &mut Context<Self>) {
        let Some(upstream) = self.upstream.take() else { return };
        self.modules.owner_gone(upstream.owner);
        // While the host is away nothing wakes this daemon up.
        self.clock.rest();
        for session in self.sessions.values() {
            session.tell("session.host_left", Value::object([]));
        }
        self.record(Event::new("host.away"));
    }
}

impl Router {
    pub(super) fn record(&self, event: Event) {
        let audit = self.audit.clone();
        actix::spawn(async move { audit.event(event).await });
    }

    /// The host has left, says the system daemon: what it kept here goes, and the next host is another owner.
    pub(super) fn host_left(&mut self) {
        let owner = self.new_owner();
        if let Some(upstream) = &mut self.upstream {
            let gone = std::mem::replace(&mut upstream.owner, owner);
            self.modules.owner_gone(gone);
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Reload(pub Policy);

impl Handler<Reload> for Router {
    type Result = ();

    fn handle(&mut self, Reload(policy): Reload, _: &mut Context<Self>) {
        self.policy = Arc::new(policy);
        self.record(Event::new("policy.reloaded"));
    }
}

#[derive(Message)]
#[rtype(result = "String")]
pub(super) struct Status;

impl Handler<Status> for Router {
    type Result = String;

    fn handle(&mut self, _: Status, _: &mut Context<Self>) -> String {
        let host = if self.upstream.is_some() { "host connected" } else { "host away" };
        let mut users: Vec<_> = self.sessions.values().map(|session| &*session.user.name).collect();
        users.sort_unstable();
        match users.len() {
            0 => format!("{host}; no sessions"),
            count => format!("{host}; {count} sessions: {}", users.join(", ")),
        }
    }
}

/// Ends the router; the receiver hears when everything that ran has ended.
#[derive(Message)]
#[rtype(result = "oneshot::Receiver<()>")]
pub(super) struct Stop {
    pub limit: Duration,
}

impl Handler<Stop> for Router {
    type Result = MessageResult<Stop>;

    fn handle(&mut self, Stop { limit }: Stop, context: &mut Context<Self>) -> Self::Result {
        self.stopping = true;
        self.jobs.close();
        let (stopped, hear) = oneshot::channel();
        let (jobs, upstream) = (self.jobs.clone(), self.upstream.clone());
        let sessions: Vec<_> = self.sessions.values().cloned().collect();
        let address = context.address();
        actix::spawn(async move {
            if tokio::time::timeout(limit.mul_f32(0.6), jobs.wait()).await.is_err() {
                tracing::warn!("calls still run; ending them");
                // Cancelling is what a leaving peer does to its calls.
                if let Some(upstream) = &upstream {
                    upstream.link.cancel_all();
                }
                sessions.iter().for_each(|session| session.link.cancel_all());
                let _ = tokio::time::timeout(limit.mul_f32(0.2), jobs.wait()).await;
            }
            let _ = tokio::time::timeout(limit.mul_f32(0.2), address.send(StopModules)).await;
            let reason = "the daemon stopped";
            let flush = Duration::from_millis(300);
            let links = upstream.iter().map(|upstream| &upstream.link).chain(sessions.iter().map(|s| &s.link));
            futures_util::future::join_all(links.map(|link| link.close_after_flush(reason, flush))).await;
            let _ = stopped.send(());
        });
        MessageResult(hear)
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct StopModules;

impl Handler<StopModules> for Router {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopModules, _: &mut Context<Self>) -> Self::Result {
        Box::pin(self.modules.stop())
    }
}
