//! Calls of this daemon's own to the host: a module's, and the router's events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Reply, Request, Router, Take, Via};
use crate::module::HostCaller;
use crate::rpc::{Call, Fault, MethodName, Outcome, Value};

/// Calls the host through the router, for a module.
pub(super) fn from_module(router: Addr<Router>) -> Arc<FromModule> {
    Arc::new(FromModule { router })
}

pub(super) struct FromModule {
    router: Addr<Router>,
}

impl FromModule {
    /// The same for the router's own use, with a deadline.
    pub(super) async fn call_host(&self, method: &str, params: Value, timeout: Duration) -> Outcome {
        let method = method.parse().map_err(|error| Fault::internal(format!("{error}")))?;
        call(self.router.clone(), method, vec![params], Some(timeout)).await
    }
}

impl HostCaller for FromModule {
    fn call_host(&self, method: MethodName, params: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        // No deadline of ours: the module's credit is the host's reply, however slow it reads.
        Box::pin(call(self.router.clone(), method, params, Some(Duration::ZERO)))
    }
}

async fn call(router: Addr<Router>, method: MethodName, params: Vec<Value>, timeout: Option<Duration>) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    let cancel = CancellationToken::new();
    let request = Request {
        call: Call { method, params },
        via: Via::Module,
        username: None,
        timeout,
        cancel: cancel.clone(),
        size: 0,
        reply: Reply::Inside(reply),
        nested: false,
    };
    // Dropped with this future: whoever gives up ends the call.
    let _guard: DropGuard = cancel.drop_guard();
    let gone = |_| Fault::unavailable("the router has stopped");
    router.send(Take(request)).await.map_err(gone)?;
    outcome.await.map_err(|_| Fault::unavailable("the router has stopped"))?
}
