//! The users' socket: who connects (the kernel says), hello, takeover, leave.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use actix::prelude::*;
use nix::unistd::{Pid, Uid};
use serde::Deserialize;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};

use super::super::room::Room;
use super::super::session::{Session, SessionRef};
use super::super::{Request, Router, RouterHandle, Take, Via};
use super::Offences;
use crate::frame::BadFrame;
use crate::identity::{Peer, User, resolve_user};
use crate::link::{Incoming, Link, LinkOptions, Serve};
use crate::module::OwnerId;
use crate::rpc::{Fault, FaultCode, Outcome, Tag, Value, from_value};

/// How long a connection to the users' socket may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one user that have not said hello yet.
const STRANGERS_PER_USER: usize = 8;
/// What joining takes of a user's ration of the audit log, in bytes: some 250 times at once, then once a second.
const JOIN_COST: usize = 16 * 1024;
/// Accepts user daemons until the router stops.
pub async fn accept_sessions(listener: UnixListener, router: RouterHandle) {
    let strangers: Arc<Mutex<HashMap<Uid, usize>>> = Arc::default();
    // By user, not by connection: whoever connects anew brings no new allowance along.
    let mut offences: HashMap<Uid, Arc<Offences>> = HashMap::new();
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
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "a connection to the users' socket without credentials");
                continue;
            }
        };
        let offences = Arc::clone(offences.entry(peer.uid).or_default());
        let (router, strangers) = (router.clone(), Arc::clone(&strangers));
        actix::spawn(async move {
            if let Err(why) = serve_session(stream, peer, router, strangers, offences).await {
                tracing::warn!(why, "refused a connection to the users' socket");
            }
        });
    }
}

async fn serve_session(
    stream: UnixStream,
    peer: Peer,
    router: RouterHandle,
    strangers: Arc<Mutex<HashMap<Uid, usize>>>,
    offences: Arc<Offences>,
) -> Result<(), String> {
    let stranger = Stranger::admit(&strangers, peer.uid)?;
    let user = resolve_user(&peer.uid.to_string()).await.map_err(|fault| fault.message)?;
    let serve = Arc::new(ServeSession {
        router: router.clone(),
        user: Arc::new(user),
        pid: peer.pid.unwrap_or(Pid::from_raw(0)),
        joined: OnceLock::new(),
        said_hello: tokio::sync::Notify::new(),
        offences,
    });
    let link = Link::start(stream, LinkOptions::inner(&router.limits), serve.clone());
    let deadline = tokio::time::sleep(HELLO_TIMEOUT);
    tokio::select! {
        () = deadline => if serve.joined.get().is_none() {
            link.close("no session.hello within 10 s");
        },
        _ = link.closed() => {}
        () = serve.said_hello.notified() => {}
    }
    drop(stranger);
    let reason = link.closed().await;
    let _ = router.address.send(Leave { uid: peer.uid, link, reason: reason.to_string() }).await;
    Ok(())
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
    offences: Arc<Offences>,
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
        self.offences.record(&self.router, "reply.dropped", Some(&self.user), json!({ "tag": tag.as_str() }));
    }

    fn bad_frame(&self, bad: &BadFrame) {
        let error = bad.error.to_string();
        self.offences.record(&self.router, "frame.refused", Some(&self.user), json!({ "error": error }));
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
        // Each coming and going is recorded and told to the host: a user who does so in a loop runs out of it.
        self.rations.take(join.user.uid, JOIN_COST)?;
        let Join { user, pid, link, modules } = join;
        let address = Session { link: link.clone() }.start();
        let room = Arc::new(Room::new(self.limits.body));
        let session = SessionRef { user, pid, since: SystemTime::now(), modules, link, address, room };
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
