//! The router: the actor that owns the host's link and the registry of sessions, and decides where each call goes.
//!
//! It never waits. For each call it looks up, makes a [`job`] and returns; the job asks policy, opens the audit record,
//! lets the module or the session act, closes the record and replies. The same actor serves both levels: in a system
//! daemon the host's link is upstream and the users' sessions are downstream, in a user daemon the system daemon (or, on
//! a direct channel, the host) is upstream and the user's own programs are downstream.
//!
//! Owns the host link, the session registry, the modules' addresses. Must never do I/O of its own or wait for anybody.

mod builtin;
mod caller;
mod job;
mod modules;
mod paths;
mod serve;
mod session;

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

use self::job::{Job, Reply, Target};
use self::modules::{Catalogue, Modules};
use self::session::SessionRef;
use crate::audit::{Audit, Event};
use crate::config::Limits;
use crate::identity::User;
use crate::link::Link;
use crate::module::{CallId, Descriptor, HostCaller, Level, ModuleEnv, OwnerId};
use crate::policy::Policy;
use crate::rpc::{Call, Fault, FaultCode, Outcome, Value};

/// What a router is made with.
pub struct RouterOptions {
    /// Whether this is a system daemon's router or a user daemon's.
    pub level: Level,
    /// Whom the daemon runs as.
    pub user: User,
    /// Whether upstream is the host itself: a system daemon, or a user daemon on a direct channel.
    pub direct: bool,
    /// The bounds.
    pub limits: Limits,
    /// The owner's policy; in a user daemon the user's own.
    pub policy: Policy,
    /// The log.
    pub audit: Audit,
    /// The enabled modules' names.
    pub enabled: Vec<String>,
    /// Each module's settings.
    pub settings: HashMap<String, toml::Table>,
    /// The guest's boot.
    pub boot_id: String,
}

/// A handle on a running router.
#[derive(Clone)]
pub struct RouterHandle {
    pub(crate) address: Addr<Router>,
    /// The user that the daemon runs as.
    pub user: Arc<User>,
    pub(crate) limits: Limits,
    stop: CancellationToken,
}

/// The actor. Talk to it through [`RouterHandle`].
pub struct Router {
    level: Level,
    user: Arc<User>,
    direct: bool,
    limits: Limits,
    policy: Arc<Policy>,
    audit: Audit,
    boot_id: Arc<str>,
    enabled: Vec<String>,
    catalogue: Catalogue,
    modules: Modules,
    upstream: Option<Upstream>,
    sessions: HashMap<Uid, SessionRef>,
    jobs: TaskTracker,
    next_call: u64,
    next_owner: u64,
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

impl RouterHandle {
    /// Starts a router with its modules on the current arbiter. The receiver hears when a newer user daemon took over.
    ///
    /// # Errors
    /// Two modules that offer the same method.
    pub fn start(options: RouterOptions) -> Result<(Self, oneshot::Receiver<String>), Collision> {
        let catalogue = Catalogue::collect()?;
        let (replaced, hear_replaced) = oneshot::channel();
        let user = Arc::new(options.user);
        let limits = options.limits.clone();
        let stop = CancellationToken::new();
        let handle_user = Arc::clone(&user);
        let address = Router::create(move |context| {
            // Everything that is allowed in flight fits, so that only a flood beyond the limits waits.
            context.set_mailbox_capacity(options.limits.calls_host);
            let host: Arc<dyn HostCaller> = caller::from_module(context.address());
            let env = |descriptor: &'static Descriptor| ModuleEnv {
                level: options.level,
                uid: user.uid,
                home: user.home.clone(),
                host: Arc::clone(&host),
                settings: options.settings.get(descriptor.name).cloned().unwrap_or_default(),
            };
            let modules = Modules::start(&options.enabled, &options.limits, env);
            Router {
                level: options.level,
                user,
                direct: options.direct,
                limits: options.limits,
                policy: Arc::new(options.policy),
                audit: options.audit,
                boot_id: options.boot_id.into(),
                enabled: options.enabled,
                catalogue,
                modules,
                upstream: None,
                sessions: HashMap::new(),
                jobs: TaskTracker::new(),
                next_call: 0,
                next_owner: 0,
                stopping: false,
                replaced: Some(replaced),
            }
        });
        Ok((Self { address, user: handle_user, limits, stop }, hear_replaced))
    }

    /// The other end of the host's link has come.
    pub async fn host_up(&self, link: Link) {
        let _ = self.address.send(HostUp(link)).await;
    }

    /// It has left: what it owned goes with it.
    pub async fn host_down(&self) {
        let _ = self.address.send(HostDown).await;
    }

    /// Takes another policy from now on.
    pub async fn reload(&self, policy: Policy) {
        let _ = self.address.send(Reload(policy)).await;
    }

    /// One line for `systemctl status`.
    pub async fn status(&self) -> String {
        self.address.send(Status).await.unwrap_or_else(|_| "stopping".to_owned())
    }

    /// Takes no more calls, gives those that run until `limit`, then ends them, the modules and the sessions.
    pub async fn stop(&self, limit: Duration) {
        self.stop.cancel();
        if let Ok(stopping) = self.address.send(Stop { limit }).await {
            let _ = stopping.await;
        }
    }

    /// Fires when [`RouterHandle::stop`] begins: accept nothing more.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }
}

/// Whether every enabled name is a module that was compiled in.
///
/// # Errors
/// A message that names the module and those that there are.
pub fn check_modules(enabled: &[String]) -> Result<(), String> {
    let all = Descriptor::all();
    match enabled.iter().find(|name| !all.iter().any(|descriptor| descriptor.name == *name)) {
        None => Ok(()),
        Some(missing) => {
            let names: Vec<_> = all.iter().map(|descriptor| descriptor.name).collect();
            Err(format!(
                "modules.enabled: {missing:?} is not compiled into this daemon; there are {}",
                names.join(", ")
            ))
        }
    }
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
            default_timeout: self.limits.default_timeout,
            upstream_owner: self.upstream.as_ref().map(|upstream| upstream.owner),
            router: address,
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
                Some(user) if self.level == Level::System => self.session_target(user, &request.call),
                Some(user) if self.direct && !self.user.is_named(user) => Err(Fault::new(
                    FaultCode::NoSession,
                    format!("this channel leads to {}'s daemon only; {user:?} is not connected to it", self.user.name),
                )),
                _ => Ok(Target::Here),
            },
            Via::User { .. } if request.username.as_deref() == Some(SYSTEM_RECIPIENT) && self.level == Level::System => {
                match request.call.method.as_str() {
                    "va.ping" | "va.capabilities" => Ok(Target::Here),
                    method => Err(Fault::new(
                        FaultCode::Denied,
                        format!("{method}: a user may call va.ping and va.capabilities of the system level, no more"),
                    )),
                }
            }
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

#[derive(Message)]
#[rtype(result = "()")]
struct HostUp(Link);

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
struct HostDown;

impl Handler<HostDown> for Router {
    type Result = ();

    fn handle(&mut self, _: HostDown, _: &mut Context<Self>) {
        let Some(upstream) = self.upstream.take() else { return };
        self.modules.owner_gone(upstream.owner);
        for session in self.sessions.values() {
            session.tell("session.host_left", Value::object([]));
        }
        self.record(Event::new("host.away"));
    }
}

impl Router {
    fn record(&self, event: Event) {
        let audit = self.audit.clone();
        actix::spawn(async move { audit.event(event).await });
    }

    /// The host has left, says the system daemon: what it kept here goes, and the next host is another owner.
    fn host_left(&mut self) {
        let owner = self.new_owner();
        if let Some(upstream) = &mut self.upstream {
            let gone = std::mem::replace(&mut upstream.owner, owner);
            self.modules.owner_gone(gone);
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Reload(Policy);

impl Handler<Reload> for Router {
    type Result = ();

    fn handle(&mut self, Reload(policy): Reload, _: &mut Context<Self>) {
        self.policy = Arc::new(policy);
        self.record(Event::new("policy.reloaded"));
    }
}

#[derive(Message)]
#[rtype(result = "String")]
struct Status;

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
struct Stop {
    limit: Duration,
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
