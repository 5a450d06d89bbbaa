//! The upstream link: the host's calls, and in a user daemon the system daemon's notices.

use std::pin::Pin;
use std::sync::Arc;

use actix::prelude::*;
use serde_json::json;

use super::super::{Request, Router, RouterHandle, Take, Via};
use super::Offences;
use crate::frame::BadFrame;
use crate::link::{Incoming, Serve};
use crate::rpc::{Fault, Tag, Value};

/// Answers the calls of the upstream link.
pub struct ServeHost {
    router: RouterHandle,
    /// Whether upstream is a system daemon, which may say that the host left or that another daemon took over.
    inner: bool,
    offences: Offences,
}

impl ServeHost {
    /// For a link to the host itself.
    pub fn host(router: &RouterHandle) -> Arc<Self> {
        Arc::new(Self { router: router.clone(), inner: false, offences: Offences::default() })
    }

    /// For a user daemon's link to the system daemon.
    pub fn system_daemon(router: &RouterHandle) -> Arc<Self> {
        Arc::new(Self { router: router.clone(), inner: true, offences: Offences::default() })
    }
}

impl Serve for ServeHost {
    fn incoming(&self, incoming: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let router = &self.router.address;
            if self.inner && incoming.call.method.namespace() == "session" {
                let told = match incoming.call.method.as_str() {
                    "session.host_left" => router.send(HostLeft).await.is_ok(),
                    "session.replaced" => router.send(Replaced(reason_of(&incoming))).await.is_ok(),
                    _ => false,
                };
                let outcome = if told { Ok(Value::Nil) } else { Err(Fault::method_not_found("no such notice")) };
                incoming.answer(outcome).await;
                return;
            }
            let _ = router.send(Take(Request::from_incoming(incoming, Via::Upstream))).await;
        })
    }

    fn stray_reply(&self, tag: &Tag) {
        self.offences.record(&self.router, "reply.dropped", None, json!({ "tag": tag.as_str() }));
    }

    fn bad_frame(&self, bad: &BadFrame) {
        self.offences.record(&self.router, "frame.refused", None, json!({ "error": bad.error.to_string() }));
    }
}

fn reason_of(incoming: &Incoming) -> String {
    let reason = incoming.call.params.first().and_then(|params| params.get("reason")).and_then(Value::as_str);
    reason.unwrap_or("another process of this user took over").to_owned()
}

#[derive(Message)]
#[rtype(result = "()")]
struct HostLeft;

impl Handler<HostLeft> for Router {
    type Result = ();

    fn handle(&mut self, _: HostLeft, _: &mut Context<Self>) {
        self.host_left();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Replaced(String);

impl Handler<Replaced> for Router {
    type Result = ();

    fn handle(&mut self, Replaced(reason): Replaced, _: &mut Context<Self>) {
        if let Some(replaced) = self.replaced.take() {
            let _ = replaced.send(reason);
        }
    }
}
