//! The router: the actor that owns the host's link and the registry of sessions, and decides where each call goes.
//!
//! It never waits. For each call it looks up, makes a job and returns; the job asks policy, opens the audit record,
//! lets the module or the session act, closes the record and replies. The same actor serves both levels: in a system
//! daemon the host's link is upstream and the users' sessions are downstream, in a user daemon the system daemon (or, on
//! a direct channel, the host) is upstream and the user's own programs are downstream.
//!
//! Owns the host link, the session registry, the modules' addresses. Must never do I/O of its own or wait for anybody.

mod builtin;
mod caller;
mod clock;
mod handle;
mod job;
mod life;
mod modules;
mod paths;
mod ration;
mod room;
mod serve;
mod session;

pub use self::handle::{RouterHandle, RouterOptions, check_modules};
pub use self::modules::Collision;
pub use self::paths::resolve_for_policy;
pub use self::serve::{ServeHost, accept_programs, accept_sessions};

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use nix::unistd::Uid;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::job::{Job, Target};
use self::modules::{Catalogue, Modules};
use self::ration::Rations;
use self::session::SessionRef;
use crate::audit::{Audit, Event};
use crate::config::Limits;
use crate::encoding::Encoding;
use crate::identity::User;
use crate::link::{Link, Responder};
use crate::module::{CallId, Level, OwnerId};
use crate::policy::Policy;
use crate::rpc::{Call, Fault, FaultCode, Outcome, Tag, Value};

/// The actor. Talk to it through [`RouterHandle`].
pub struct Router {
    level: Level,
    user: Arc<User>,
    direct: bool,
    limits: Limits,
    policy: Arc<Policy>,
    audit: Audit,
    rations: Arc<Rations>,
    boot_id: Arc<str>,
    enabled: Vec<String>,
    catalogue: Catalogue,
    modules: Modules,
    upstream: Option<Upstream>,
    sessions: HashMap<Uid, SessionRef>,
    jobs: TaskTracker,
    next_call: u64,
    next_owner: u64,
    /// The deadlines of all calls.
    clock: clock::Clock,
    stopping: bool,
    /// Tells a user daemon's main loop that it was replaced.
    replaced: Option<oneshot::Sender<String>>,
}

/// The other end of the host's link while it is there.
#[derive(Clone)]
struct Upstream {
    link: Link,
    owner: OwnerId,
}

impl Actor for Router {
    type Context = Context<Self>;
}

/// Whose call it is, as the router sees it.
#[derive(Clone)]
pub(crate) enum Via {
    /// The other end of the upstream link.
    Upstream,
    /// A session, or a program of the user's.
    User { uid: Uid, name: Arc<str>, owner: OwnerId },
    /// A module of this daemon calls the host.
    Module,
}

/// Where a call's reply goes.
pub(crate) enum Reply {
    /// Back over the link that the call came by.
    Wire { responder: Responder, tag: Tag, encoding: Encoding },
    /// To a module, or to the multicall that it is part of.
    Inside(oneshot::Sender<Outcome>),
}

/// A call for the router, from wherever.
pub(crate) struct Request {
    pub call: Call,
    pub via: Via,
    /// The recipient that the caller named.
    pub username: Option<String>,
    pub timeout: Option<Duration>,
    pub cancel: CancellationToken,
    pub size: usize,
    pub reply: Reply,
    /// Inside system.multicall, which does not nest.
    pub nested: bool,
}

/// A user as a recipient, to name the daemon itself from below.
const SYSTEM_RECIPIENT: &str = "@system";

impl Router {
    /// Looks up, makes the job, and returns.
    fn take(&mut self, request: Request, address: Addr<Self>) {
        self.next_call += 1;
        let id = CallId(self.next_call);
        let target = self.target(&request);
        let entry = self.catalogue.get(request.call.method.as_str()).cloned();
        let job = Job {
            id,
            level: self.level,
            target,
            entry,
            user: Arc::clone(&self.user),
            policy: Arc::clone(&self.policy),
            audit: self.audit.clone(),
            rations: Arc::clone(&self.rations),
            default_timeout: self.limits.default_timeout,
            upstream_owner: self.upstream.as_ref().map(|upstream| upstream.owner),
            router: address,
            clock: self.clock.clone(),
            request,
            began: Instant::now(),
        };
        let running = self.jobs.track_future(job.run());
        actix::spawn(running);
    }

    fn target(&self, request: &Request) -> Result<Target, Fault> {
        if self.stopping {
            return Err(Fault::unavailable("the daemon is stopping"));
        }
        match &request.via {
            Via::Upstream => match &request.username {
                // Taken apart here, whoever it is for: each of its calls goes its own way, judged and recorded.
                Some(_) if self.level == Level::System && request.call.method == "system.multicall" => Ok(Target::Here),
                Some(user) if self.level == Level::System => self.session_target(user, &request.call),
                Some(user) if self.direct && !self.user.is_named(user) => Err(Fault::new(
                    FaultCode::NoSession,
                    format!("this channel leads to {}'s daemon only; {user:?} is not connected to it", self.user.name),
                )),
                _ => Ok(Target::Here),
            },
            Via::User { .. }
                if request.username.as_deref() == Some(SYSTEM_RECIPIENT) && self.level == Level::System =>
            {
                match request.call.method.as_str() {
                    "va.ping" | "va.capabilities" => Ok(Target::Here),
                    method => Err(Fault::new(
                        FaultCode::Denied,
                        format!("{method}: a user may call va.ping and va.capabilities of the system level, no more"),
                    )),
                }
            }
            // It names a call on the caller's own link; ending that ends the host's part of it.
            Via::User { .. } if request.call.method == "va.cancel" => Ok(Target::Here),
            Via::User { .. } | Via::Module => match &self.upstream {
                Some(upstream) => Ok(Target::Upstream(upstream.link.clone())),
                None => Err(Fault::unavailable("the host is not connected")),
            },
        }
    }

    fn session_target(&self, spec: &str, call: &Call) -> Result<Target, Fault> {
        if call.method.namespace() == "session" {
            let method = &call.method;
            return Err(Fault::method_not_found(format!("{method} is not offered at user level")));
        }
        match self.sessions.values().find(|session| session.user.is_named(spec)) {
            Some(session) => Ok(Target::Session(session.clone())),
            None => Ok(Target::Resolve(spec.to_owned())),
        }
    }

    fn new_owner(&mut self) -> OwnerId {
        self.next_owner += 1;
        OwnerId(self.next_owner)
    }

    /// Tells the host, if one of ours is there.
    fn announce(&self, topic: &'static str, session: &SessionRef, address: Addr<Self>) {
        let user = &session.user;
        let event = Event::new(topic).of_user(Arc::clone(&user.name), user.uid);
        let audit = self.audit.clone();
        let data = Value::object([
            ("username", (&*user.name).into()),
            ("uid", Value::Int(user.uid.as_raw().into())),
            ("pid", Value::Int(session.pid.as_raw().into())),
        ]);
        let listens = self.upstream.as_ref().is_some_and(|upstream| upstream.link.is_ours());
        actix::spawn(async move {
            audit.event(event).await;
            if !listens {
                return;
            }
            let params = Value::object([("topic", topic.into()), ("data", data)]);
            let told = caller::from_module(address).call_host("host.event", params, EVENT_TIMEOUT).await;
            if let Err(fault) = told {
                tracing::debug!(topic, %fault, "the host did not take the event");
            }
        });
    }
}

/// How long the host may take over an event before it is forgotten.
const EVENT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Take(pub Request);

impl Handler<Take> for Router {
    type Result = ();

    fn handle(&mut self, Take(request): Take, context: &mut Context<Self>) {
        self.take(request, context.address());
    }
}

/// What a job needs of the router's state on its way.
#[derive(Message)]
#[rtype(result = "Option<SessionRef>")]
pub(crate) struct FindSession(pub Uid);

impl Handler<FindSession> for Router {
    type Result = Option<SessionRef>;

    fn handle(&mut self, FindSession(uid): FindSession, _: &mut Context<Self>) -> Self::Result {
        self.sessions.get(&uid).cloned()
    }
}

/// A module call that a job makes once the record is open.
#[derive(Message)]
#[rtype(result = "Result<oneshot::Receiver<Outcome>, Fault>")]
pub(crate) struct Invoke {
    pub entry: modules::Entry,
    pub context: crate::module::CallContext,
    pub params: Vec<Value>,
}

impl Handler<Invoke> for Router {
    type Result = Result<oneshot::Receiver<Outcome>, Fault>;

    fn handle(&mut self, Invoke { entry, context, params }: Invoke, _: &mut Context<Self>) -> Self::Result {
        let module = entry.module.name;
        if !self.modules.runs(module) && !self.enabled.iter().any(|name| name == module) {
            let method = entry.spec.name;
            return Err(Fault::method_not_found(format!(
                "{method} belongs to module {module}, which is not in modules.enabled of this daemon's configuration"
            )));
        }
        self.modules.call(&entry, context, params)
    }
}
