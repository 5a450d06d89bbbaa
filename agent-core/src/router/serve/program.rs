//! A user daemon's control socket: the user's own programs call the host.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;

use super::super::{Request, RouterHandle, Take, Via};
use crate::identity::Peer;
use crate::link::{Incoming, Link, LinkOptions, Serve};
use crate::module::OwnerId;

/// Connections of a user's programs to the control socket.
const PROGRAMS: usize = 64;

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
