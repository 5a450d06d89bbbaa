//! The router as its daemon holds it: options, start, and the messages of its life.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::life::{HostDown, HostUp, Reload, Status, Stop};
use super::modules::{Catalogue, Modules};
use super::{Collision, Router, caller};
use crate::audit::Audit;
use crate::config::Limits;
use crate::identity::User;
use crate::link::Link;
use crate::module::{Descriptor, HostCaller, Level, ModuleEnv};
use crate::policy::Policy;

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
                clock: Default::default(),
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
