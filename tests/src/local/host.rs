//! The host's end of the channel as a link, and the double that answers the guest's calls.

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_core::config::Limits;
use agent_core::encoding;
use agent_core::link::{CallOptions, Capabilities, Incoming, Link, LinkOptions, Serve};
use agent_core::rpc::{Fault, FaultCode, Outcome, Value};
use anyhow::{Context, Result, anyhow};
use serde_json::Value as Json;
use tokio::net::UnixStream;

use super::LIMIT;
use crate::wait;

/// A value of the wire from JSON.
pub fn value(json: &Json) -> Value {
    encoding::from_json(&json.to_string()).expect("JSON is a value")
}

/// A value of the wire as JSON; bytes as `{"$base64": "..."}`.
pub fn json(value: &Value) -> Json {
    serde_json::from_str(&encoding::to_json(value).expect("a value is JSON")).expect("JSON")
}

/// A call of the guest, as the host double took it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub method: String,
    pub username: Option<String>,
    pub params: Json,
}

type Answer = dyn Fn(&Heard) -> Option<Outcome> + Send + Sync;

/// Stands in for a host that serves: records what the guest calls and answers by the test's own word. Without a word from
/// it (`None`) a call stays unanswered for as long as the link lives. `va.hello` is always answered.
#[derive(Clone)]
pub struct HostDouble {
    answer: Arc<Answer>,
    heard: Arc<Mutex<Vec<Heard>>>,
    unanswered: Arc<Mutex<Vec<Incoming>>>,
}

impl HostDouble {
    /// A host with these answers.
    pub fn new(answer: impl Fn(&Heard) -> Option<Outcome> + Send + Sync + 'static) -> Self {
        Self { answer: Arc::new(answer), heard: Arc::default(), unanswered: Arc::default() }
    }

    /// A host that serves `va.ping`, and nothing else.
    pub fn that_pongs() -> Self {
        Self::new(|heard| match heard.method.as_str() {
            "va.ping" => Some(Ok("pong".into())),
            "host.event" => Some(Ok(Value::Nil)),
            method => Some(Err(Fault::new(FaultCode::MethodNotFound, format!("no such method: {method}")))),
        })
    }

    /// The calls so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("not poisoned").clone()
    }

    /// Waits for a call of which that is true.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn wait_heard(&self, what: &str, wanted: impl Fn(&Heard) -> bool) -> Result<Heard> {
        let heard = wait::until(LIMIT, &format!("the host to hear {what}"), || {
            Ok(self.heard().into_iter().find(|heard| wanted(heard)))
        });
        heard.with_context(|| format!("it heard {:?}", self.heard()))
    }

    /// Waits for an event of that topic about that user.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn wait_event(&self, topic: &str, username: &str) -> Result<Heard> {
        self.wait_heard(&format!("{topic} of {username}"), |heard| {
            let params = if heard.params.is_array() { &heard.params[0] } else { &heard.params };
            heard.method == "host.event" && params["topic"] == topic && params["data"]["username"] == username
        })
    }
}

impl Serve for HostDouble {
    fn incoming(&self, call: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if call.call.method.as_str() == "va.hello" {
                call.answer(Ok(Value::Nil)).await;
                return;
            }
            let heard = Heard {
                method: call.call.method.to_string(),
                username: call.username.clone(),
                params: json(&Value::Array(call.call.params.clone())),
            };
            let outcome = (self.answer)(&heard);
            self.heard.lock().expect("not poisoned").push(heard);
            match outcome {
                // In a task of its own: the reader must go on.
                Some(outcome) => drop(tokio::spawn(async move { call.answer(outcome).await })),
                None => self.unanswered.lock().expect("not poisoned").push(call),
            }
        })
    }
}

/// The host's end. The link closes when this value goes.
pub struct Host {
    link: Link,
    /// What answers the guest's calls.
    pub double: HostDouble,
    /// What the guest said it is.
    pub capabilities: Capabilities,
}

impl Host {
    /// Connects to a channel and greets the guest.
    ///
    /// # Errors
    /// When nothing listens or answers.
    pub async fn connect(path: &Path, double: HostDouble) -> Result<Host> {
        let stream = UnixStream::connect(path).await.with_context(|| format!("connecting to {}", path.display()))?;
        Self::over(stream, double).await
    }

    /// Greets the guest over any stream.
    ///
    /// # Errors
    /// When nothing answers.
    pub async fn over<S>(stream: S, double: HostDouble) -> Result<Host>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + 'static,
    {
        let link = Link::start(stream, LinkOptions::outer(&Limits::default()), Arc::new(double.clone()));
        let capabilities = link.greet(LIMIT).await.map_err(|fault| anyhow!("greeting the guest: {fault}"))?;
        Ok(Host { link, double, capabilities })
    }

    /// The link itself.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Calls a method of the system level; the parameters are an object by name, an array by position, or null for none.
    ///
    /// # Errors
    /// The guest's fault.
    pub async fn call(&self, method: &str, params: Json) -> Result<Json, Fault> {
        self.call_with(method, params, CallOptions::default()).await
    }

    /// Calls a method of that user's daemon.
    ///
    /// # Errors
    /// The guest's fault.
    pub async fn call_as(&self, user: &str, method: &str, params: Json) -> Result<Json, Fault> {
        self.call_with(method, params, CallOptions { username: Some(user.to_owned()), ..CallOptions::default() }).await
    }

    /// Calls a method in any way. No call takes longer than a test may.
    ///
    /// # Errors
    /// The guest's fault.
    pub async fn call_with(&self, method: &str, params: Json, options: CallOptions) -> Result<Json, Fault> {
        let params = match &params {
            Json::Null => Vec::new(),
            Json::Array(items) => items.iter().map(value).collect(),
            named => vec![value(named)],
        };
        match tokio::time::timeout(LIMIT, self.link.call(method, params, &options)).await {
            Ok(outcome) => outcome.map(|value| json(&value)),
            Err(_) => panic!("{method} was not answered within {} s", LIMIT.as_secs()),
        }
    }

    /// Starts a call without waiting for its end.
    pub fn start(
        &self,
        user: Option<&str>,
        method: &str,
        params: Json,
    ) -> tokio::task::JoinHandle<Result<Json, Fault>> {
        let options = CallOptions { username: user.map(str::to_owned), ..CallOptions::default() };
        self.start_with(method, params, options)
    }

    /// Starts a call in any way.
    pub fn start_with(
        &self,
        method: &str,
        params: Json,
        options: CallOptions,
    ) -> tokio::task::JoinHandle<Result<Json, Fault>> {
        let (link, method) = (self.link.clone(), method.to_owned());
        tokio::spawn(async move {
            let params = if params.is_null() { Vec::new() } else { vec![value(&params)] };
            link.call(&method, params, &options).await.map(|value| json(&value))
        })
    }

    /// Waits for a started call, as long as a test may.
    ///
    /// # Errors
    /// The guest's fault.
    pub async fn finish(call: tokio::task::JoinHandle<Result<Json, Fault>>, limit: Duration) -> Result<Json, Fault> {
        match tokio::time::timeout(limit, call).await {
            Ok(outcome) => outcome.expect("the call's task ends"),
            Err(_) => panic!("a call was not answered within {} s", limit.as_secs_f32()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.link.close("the test is over");
    }
}
