//! The connection to one guest as the commands use it: a link, what the guest can do, as whom to act, how long to wait.
//!
//! Owns the way from the command line's options to a call's. All use of the link's calling side is here.

use std::sync::Arc;
use std::time::Duration;

use agent_core::config::Limits;
use agent_core::encoding::Encoding;
use agent_core::link::{CallOptions, Capabilities, CloseReason, Link, LinkOptions};
use agent_core::rpc::{Fault, FaultCode, Struct, Value};

use crate::cli::{Global, WireEncoding};
use crate::connect::{self, Target};
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::output::{note, plain};

/// How long an answer may take when `--timeout` does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the guest may take to say what it is.
const GREETING: Duration = Duration::from_secs(5);
/// A deadline that never comes.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A connected guest. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    link: Link,
    capabilities: Arc<Capabilities>,
    target: Arc<Target>,
    options: CallOptions,
    user: Option<String>,
    /// Whether `--timeout` was given.
    limited: bool,
}

impl Client {
    /// Finds the VM, connects, and asks what the guest is; `desk` answers the guest meanwhile.
    pub async fn connect(global: &Global, desk: Desk) -> Result<Self> {
        let target = connect::locate(global)?;
        Self::connect_to(target, global, desk).await
    }

    /// The same with a VM that is known.
    pub async fn connect_to(target: Target, global: &Global, desk: Desk) -> Result<Self> {
        let stream = connect::open(&target).await?;
        if global.verbose {
            note(&format!("virtagent: connected to {}", target.address));
        }
        let limits = Limits { body: Limits::BODY_MAX, ..Limits::default() };
        let link = Link::start(stream, LinkOptions::outer(&limits), Arc::new(desk));
        let greeting = match global.timeout {
            None => GREETING,
            Some(Duration::ZERO) => FOR_EVER,
            Some(timeout) => timeout,
        };
        let capabilities = link.greet(greeting).await.map_err(|fault| no_greeting(&target, fault))?;
        if global.verbose {
            let agent = capabilities.all.get("agent").and_then(|agent| agent.get("version"));
            let version = agent.or_else(|| capabilities.all.get("version")).map(plain).unwrap_or_default();
            let kind = if capabilities.ours { "virtagentd" } else { "an agent of 2011: one call at a time, in XML" };
            note(&format!("virtagent: the guest is {kind}, version {version}"));
        }
        let encoding = global.encoding.map(|encoding| match encoding {
            WireEncoding::Cbor => Encoding::Cbor,
            WireEncoding::Json => Encoding::Json,
            WireEncoding::Xml => Encoding::Xml,
        });
        let timeout = Some(global.timeout.unwrap_or(DEFAULT_TIMEOUT));
        let options = CallOptions { username: global.user.clone(), timeout, encoding };
        let (capabilities, target) = (Arc::new(capabilities), Arc::new(target));
        let limited = global.timeout.is_some();
        Ok(Self { link, capabilities, target, options, user: global.user.clone(), limited })
    }

    /// Whether the guest is one of ours, which takes many calls at a time.
    pub fn is_ours(&self) -> bool {
        self.capabilities.ours
    }

    /// What the guest said of itself.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The VM.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// As whom calls run: a user, or nothing at system level.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The same connection at another level.
    #[must_use]
    pub fn acting_as(&self, user: Option<&str>) -> Self {
        let mut other = self.clone();
        other.user = user.map(str::to_owned);
        other.options.username = other.user.clone();
        other
    }

    /// The same connection whose calls may take this long; zero for no limit.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        let mut other = self.clone();
        other.options.timeout = Some(timeout);
        other
    }

    /// The same connection for work whose time depends on a file's size: without a limit, unless `--timeout` set one.
    #[must_use]
    pub fn patient(&self) -> Self {
        if self.limited { self.clone() } else { self.within(Duration::ZERO) }
    }

    /// The same connection with `@active` or a UID turned into a name, so that several calls reach one session and what
    /// that session sends can be told from anybody else's.
    ///
    /// # Errors
    /// When that user has no session, or sessions can't be listed.
    pub async fn pinned(&self) -> Result<Self> {
        let Some(user) = self.user() else { return Ok(self.clone()) };
        let uid: Option<i64> = user.parse().ok();
        if user != "@active" && uid.is_none() {
            return Ok(self.clone());
        }
        let listed = self.acting_as(None).call("session.list", Struct::new()).await?;
        let sessions = listed.get("sessions").and_then(Value::as_array).unwrap_or_default();
        let wanted = |session: &&Value| match uid {
            Some(uid) => session.get("uid").and_then(Value::as_int) == Some(uid),
            None => session.get("active").and_then(Value::as_bool) == Some(true),
        };
        let name = sessions.iter().find(wanted).and_then(|session| session.get("username")).and_then(Value::as_str);
        match name {
            Some(name) => Ok(self.acting_as(Some(name))),
            None => {
                let message = format!("no user daemon of {user} is connected");
                Err(Failure::fault("", Fault::new(FaultCode::NoSession, message)))
            }
        }
    }

    /// Calls a method with named parameters.
    pub async fn call(&self, method: &str, params: Struct) -> Result<Value> {
        let params = if params.is_empty() { Vec::new() } else { vec![Value::Struct(params)] };
        self.call_with(method, params).await
    }

    /// Calls a method with the parameters as they are.
    pub async fn call_with(&self, method: &str, params: Vec<Value>) -> Result<Value> {
        match self.link.call(method, params, &self.options).await {
            Ok(value) => Ok(value),
            Err(fault) => Err(self.failure(method, fault).await),
        }
    }

    async fn failure(&self, method: &str, fault: Fault) -> Failure {
        if fault.is(FaultCode::SessionClosed)
            && let Ok(reason) = tokio::time::timeout(Duration::ZERO, self.link.closed()).await
        {
            return Failure::NoConnection(format!(
                "{}: the link ended before {method} was answered: {reason}",
                self.target.name
            ));
        }
        let what = match self.user() {
            Some(user) => format!("{method} as {user}"),
            None => method.to_owned(),
        };
        Failure::fault(what, fault)
    }

    /// Resolves when the link has ended, with why.
    pub async fn closed(&self) -> CloseReason {
        self.link.closed().await
    }

    /// Ends the link when what is queued has been written.
    pub async fn close(&self) {
        self.link.close_after_flush("done", Duration::from_secs(1)).await;
    }
}

fn no_greeting(target: &Target, fault: Fault) -> Failure {
    match fault.kind() {
        Some(FaultCode::TimedOut) => Failure::NoConnection(connect::busy(&target.address)),
        Some(FaultCode::SessionClosed) => Failure::NoConnection(format!(
            "{} was closed at once: another program may hold the channel, or the VM is stopping ({})",
            target.address, fault.message
        )),
        _ => Failure::fault(format!("va.capabilities on {}", target.address), fault),
    }
}

/// Named parameters, written down in one expression.
#[derive(Default)]
pub struct Params(Struct);

impl Params {
    pub fn new() -> Self {
        Self::default()
    }

    /// With this parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// With this parameter if there is a value for it.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With this parameter if it is true; false is what every method takes for granted.
    #[must_use]
    pub fn flag(self, name: &str, truth: bool) -> Self {
        if truth { self.with(name, true) } else { self }
    }

    /// The parameters.
    pub fn done(self) -> Struct {
        self.0
    }
}

impl From<Struct> for Params {
    fn from(members: Struct) -> Self {
        Self(members)
    }
}

/// A member that the method's result must have.
pub fn int(value: &Value, method: &str, name: &str) -> Result<i64> {
    value.get(name).and_then(Value::as_int).ok_or_else(|| missing(method, name))
}

/// What to say of a result without the member it must have.
pub fn missing(method: &str, name: &str) -> Failure {
    Failure::guest(format!("{method}: the guest's result has no {name} as it should; is its agent of another version?"))
}
