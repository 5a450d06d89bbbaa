//! From links to the router: the host's link, the users' sockets, and a user daemon's control socket.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use nix::unistd::{Pid, Uid};
use serde::Deserialize;
use tokio::net::{UnixListener, UnixStream};

use super::job::Reply;
use super::session::{Session, SessionRef};
use super::{Request, Router, RouterHandle, Take, Via};
use crate::audit::Event;
use crate::frame::BadFrame;
use crate::identity::{Peer, User, resolve_user};
use crate::link::{Incoming, Link, LinkOptions, Serve};
use crate::module::OwnerId;
use crate::rpc::{Fault, FaultCode, Outcome, Tag, Value, from_value};

/// How long a connection to the users' socket may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one user that have not said hello yet.
const STRANGERS_PER_USER: usize = 8;
/// Connections of a user's programs to the control socket.
const PROGRAMS: usize = 64;

impl Request {
    fn from_incoming(incoming: Incoming, via: Via) -> Self {
        let Incoming { call, username, timeout, encoding, tag, size, responder, cancel } = incoming;
        Self { call, via, username, timeout, cancel, size, reply: Reply::Wire { responder, tag, encoding }, nested: false }
    }
}

/// Answers the calls of the upstream link.
pub struct ServeHost {
    router: RouterHandle,
    /// Whether upstream is a system daemon, which may say that the host left or that another daemon took over.
    inner: bool,
}

impl ServeHost {
    /// For a link to the host itself.
    pub fn host(router: &RouterHandle) -> Arc<Self> {
        Arc::new(Self { router: router.clone(), inner: false })
    }

    /// For a user daemon's link to the system daemon.
    pub fn system_daemon(router: &RouterHandle) -> Arc<Self> {
        Arc::new(Self { router: router.clone(), inner: true })
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
        note(&self.router, Event::new("reply.dropped").with(serde_json::json!({ "tag": tag.as_str(), "from": "host" })));
    }

    fn bad_frame(&self, bad: &BadFrame) {
        let error = bad.error.to_string();
        note(&self.router, Event::new("frame.refused").with(serde_json::json!({ "error": error, "from": "host" })));
    }
}

fn reason_of(incoming: &Incoming) -> String {
    let reason = incoming.call.params.first().and_then(|params| params.get("reason")).and_then(Value::as_str);
    reason.unwrap_or("another process of this user took over").to_owned()
}

fn note(router: &RouterHandle, event: Event) {
    // A flood of strange frames fills the router's mailbox at most; what does not fit is in the debug log only.
    if router.address.try_send(Note(event)).is_err() {
        tracing::debug!("too many events to record");
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Note(Event);

impl Handler<Note> for Router {
    type Result = ();

    fn handle(&mut self, Note(event): Note, _: &mut Context<Self>) {
        self.record(event);
    }
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

/// Accepts user daemons until the router stops.
pub async fn accept_sessions(listener: UnixListener, router: RouterHandle) {
    let strangers: Arc<Mutex<HashMap<Uid, usize>>> = Arc::default();
    let stopping = router.stopping();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: give others time to close theirs.
                    tracing::error!(%error, "accepting a user daemon");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopping.cancelled() => return,
        };
        let (router, strangers) = (router.clone(), Arc::clone(&strangers));
        actix::spawn(async move {
            if let Err(why) = serve_session(stream, router, strangers).await {
                tracing::warn!(why, "refused a connection to the users' socket");
            }
        });
    }
}

async fn serve_session(
    stream: UnixStream,
    router: RouterHandle,
    strangers: Arc<Mutex<HashMap<Uid, usize>>>,
) -> Result<(), String> {
    let peer = Peer::of(&stream).map_err(|error| format!("no peer credentials: {error}"))?;
    let _stranger = Stranger::admit(&strangers, peer.uid)?;
    let user = resolve_user(&peer.uid.to_string()).await.map_err(|fault| fault.message)?;
    let serve = Arc::new(ServeSession {
        router: router.clone(),
        user: Arc::new(user),
        pid: peer.pid.unwrap_or(Pid::from_raw(0)),
        joined: OnceLock::new(),
        said_hello: tokio::sync::Notify::new(),
    });
    let link = Link::start(stream, LinkOptions::inner(&router.limits), serve.clone());
    let deadline = tokio::time::sleep(HELLO_TIMEOUT);
    tokio::select! {
        () = deadline => if serve.joined.get().is_none() {
            link.close("no session.hello within 10 s");
        },
        _ = link.closed() => {}
        () = wait_joined(&serve) => {}
    }
    drop(_stranger);
    let reason = link.closed().await;
    let _ = router.address.send(Leave { uid: peer.uid, link, reason: reason.to_string() }).await;
    Ok(())
}

async fn wait_joined(serve: &ServeSession) {
    serve.said_hello.notified().await;
}

/// Counts a user's connections that have not said hello.
struct Stranger {
    table: Arc<Mutex<HashMap<Uid, usize>>>,
    uid: Uid,
}

impl Stranger {
    fn admit(table: &Arc<Mutex<HashMap<Uid, usize>>>, uid: Uid) -> Result<Self, String> {
        let mut counts = table.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        if *count >= STRANGERS_PER_USER {
            return Err(format!("uid {uid} has {STRANGERS_PER_USER} connections that have not said hello"));
        }
        *count += 1;
        drop(counts);
        Ok(Self { table: Arc::clone(table), uid })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut counts = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// Answers the calls of one connection to the users' socket.
struct ServeSession {
    router: RouterHandle,
    user: Arc<User>,
    pid: Pid,
    /// What the session owns, once it has said hello.
    joined: OnceLock<OwnerId>,
    said_hello: tokio::sync::Notify,
}

/// What a user daemon says of itself when it connects.
#[derive(Deserialize)]
struct Hello {
    #[serde(default)]
    modules: Vec<String>,
}

impl Serve for ServeSession {
    fn incoming(&self, incoming: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            match (self.joined.get(), incoming.call.method.as_str()) {
                (None, "session.hello") => {
                    let outcome = self.join(&incoming).await;
                    incoming.answer(outcome).await;
                }
                (Some(owner), method) if method != "session.hello" => {
                    let via = Via::User { uid: self.user.uid, name: Arc::clone(&self.user.name), owner: *owner };
                    let _ = self.router.address.send(Take(Request::from_incoming(incoming, via))).await;
                }
                _ => {
                    let fault = Fault::new(FaultCode::InvalidRequest, "a session begins with one session.hello");
                    incoming.answer(Err(fault)).await;
                }
            }
        })
    }

    fn stray_reply(&self, tag: &Tag) {
        let event = Event::new("reply.dropped").of_user(Arc::clone(&self.user.name), self.user.uid);
        note(&self.router, event.with(serde_json::json!({ "tag": tag.as_str() })));
    }

    fn bad_frame(&self, bad: &BadFrame) {
        let event = Event::new("frame.refused").of_user(Arc::clone(&self.user.name), self.user.uid);
        note(&self.router, event.with(serde_json::json!({ "error": bad.error.to_string() })));
    }
}

impl ServeSession {
    async fn join(&self, incoming: &Incoming) -> Outcome {
        let params = incoming.call.params.first().cloned().unwrap_or_else(|| Value::object([]));
        let hello: Hello = from_value(params)?;
        let join = Join {
            user: Arc::clone(&self.user),
            pid: self.pid,
            link: incoming.link().clone(),
            modules: hello.modules.into_iter().take(256).map(|name| name.chars().take(64).collect()).collect(),
        };
        let stopped = |_| Fault::unavailable("the daemon is stopping");
        let owner = self.router.address.send(join).await.map_err(stopped)??;
        let _ = self.joined.set(owner);
        self.said_hello.notify_one();
        Ok(Value::object([("username", (&*self.user.name).into())]))
    }
}

/// A user daemon has said hello.
#[derive(Message)]
#[rtype(result = "Result<OwnerId, Fault>")]
struct Join {
    user: Arc<User>,
    pid: Pid,
    link: Link,
    modules: Vec<String>,
}

impl Handler<Join> for Router {
    type Result = Result<OwnerId, Fault>;

    fn handle(&mut self, join: Join, context: &mut Context<Self>) -> Self::Result {
        if self.stopping {
            return Err(Fault::unavailable("the daemon is stopping"));
        }
        let Join { user, pid, link, modules } = join;
        let address = Session { link: link.clone() }.start();
        let session = SessionRef { user, pid, since: SystemTime::now(), modules, link, address };
        let topic = match self.sessions.insert(session.user.uid, session.clone()) {
            Some(old) => {
                old.replace(pid);
                "session.replaced"
            }
            None => "session.connected",
        };
        tracing::info!(user = %session.user.name, %pid, topic, "a user daemon joined");
        self.announce(topic, &session, context.address());
        Ok(self.new_owner())
    }
}

/// A connection to the users' socket has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct Leave {
    uid: Uid,
    link: Link,
    reason: String,
}

impl Handler<Leave> for Router {
    type Result = ();

    fn handle(&mut self, Leave { uid, link, reason }: Leave, context: &mut Context<Self>) {
        // One that was replaced has no entry any more, and one that never said hello never had.
        if !self.sessions.get(&uid).is_some_and(|session| session.link.is(&link)) {
            return;
        }
        if let Some(session) = self.sessions.remove(&uid) {
            tracing::info!(user = %session.user.name, reason, "a user daemon left");
            self.announce("session.disconnected", &session, context.address());
        }
    }
}

/// Accepts the user's own programs on a user daemon's control socket until the router stops: their calls go to the host.
pub async fn accept_programs(listener: UnixListener, router: RouterHandle) {
    let room = Arc::new(tokio::sync::Semaphore::new(PROGRAMS));
    let stopping = router.stopping();
    loop {
        let accepting = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (stream, place) = tokio::select! {
            (accepted, place) = accepting => match accepted {
                Ok((stream, _)) => (stream, place),
                Err(error) => {
                    tracing::error!(%error, "accepting a program");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopping.cancelled() => return,
        };
        let allowed = Peer::of(&stream).is_ok_and(|peer| peer.uid == router.user.uid || peer.uid.is_root());
        if !allowed {
            tracing::warn!("refused a program of another user on the control socket");
            continue;
        }
        let router = router.clone();
        let stopping = stopping.clone();
        actix::spawn(async move {
            let limits = router.limits.clone();
            let link = Link::start(stream, LinkOptions::inner(&limits), Arc::new(ServeProgram { router }));
            tokio::select! {
                _ = link.closed() => {}
                () = stopping.cancelled() => link.close("the daemon stopped"),
            }
            drop(place);
        });
    }
}

/// Answers the calls of one of the user's programs.
struct ServeProgram {
    router: RouterHandle,
}

impl Serve for ServeProgram {
    fn incoming(&self, incoming: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // A program keeps nothing here between calls, so it owns nothing.
            let user = &self.router.user;
            let via = Via::User { uid: user.uid, name: Arc::clone(&user.name), owner: OwnerId(0) };
            let _ = self.router.address.send(Take(Request::from_incoming(incoming, via))).await;
        })
    }
}
