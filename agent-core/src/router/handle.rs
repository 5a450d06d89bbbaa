//! The router as its daemon holds it: options, start, and the messages of its life.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
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
use crate::config::{Config, Limits};
use crate::identity::User;
use crate::link::Link;
use crate::module::{BuildError, Descriptor, HostCaller, Level, ModuleEnv};

use crate::policy::Policy;
use crate::rpc::{Fault, MethodName, Outcome, Value};

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
                rations: Arc::default(),
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

/// Whether every module that the configuration names was compiled in, and takes its settings.
///
/// Each enabled module of the level is built once for that and let go, so call it where a runtime is.
///
/// # Errors
/// A message that says where the setting stands, what is wrong with it, and what there is.
pub fn check_modules(config: &Config, level: Level, user: &User) -> Result<(), String> {
    let all = Descriptor::all();
    let there_are = || all.iter().map(|descriptor| descriptor.name).collect::<Vec<_>>().join(", ");
    let compiled_in = |name: &String| all.iter().any(|descriptor| descriptor.name == name);
    if let Some(missing) = config.modules.enabled.iter().find(|name| !compiled_in(name)) {
        return Err(format!(
            "modules.enabled: {missing:?} is not compiled into this daemon; there are {}",
            there_are()
        ));
    }
    let place = |name: &str| config.module_at.get(name).map(|at| format!("{at}: ")).unwrap_or_default();
    if let Some(missing) = config.module.keys().find(|name| !compiled_in(name)) {
        let at = place(missing);
        return Err(format!("{at}[module.{missing}]: no such module is compiled in; there are {}", there_are()));
    }
    let enabled = |descriptor: &&&Descriptor| config.modules.enabled.iter().any(|name| name == descriptor.name);
    for descriptor in all.iter().filter(enabled).filter(|descriptor| descriptor.levels.contains(level)) {
        let env = ModuleEnv {
            level,
            uid: user.uid,
            home: user.home.clone(),
            host: Arc::new(NoHost),
            settings: config.module_settings(descriptor.name),
        };
        // What a module misses on this machine is no defect of the configuration, and neither is a panic: its actor says
        // both to whoever calls it, and the other modules run.
        let built = std::panic::catch_unwind(AssertUnwindSafe(|| (descriptor.build)(&env).map(drop)));
        if let Ok(Err(error @ BuildError::Settings(_))) = built {
            let name = descriptor.name;
            return Err(format!("{}[module.{name}]: {error}", place(name)));
        }
    }
    Ok(())
}

/// The host of a module that is built only to see whether it can be.
struct NoHost;

impl HostCaller for NoHost {
    fn call_host(&self, _: MethodName, _: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(std::future::ready(Err(Fault::unavailable("the host is not connected"))))
    }
}
