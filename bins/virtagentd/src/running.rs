//! What both daemons share: the router's start and end, signals, systemd's readiness, status and watchdog.

use std::time::Duration;

use agent_core::audit::{Audit, AuditSettings};
use agent_core::config::{AuditConfig, Config};
use agent_core::identity::{self, User};
use agent_core::module::Level;
use agent_core::policy::Policy;
use agent_core::router::{RouterHandle, RouterOptions};
use anyhow::Context;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::background;

/// SIGTERM to exit, at most.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Starts the log, as the configuration wants it.
pub fn start_audit(config: &AuditConfig) -> anyhow::Result<Audit> {
    let settings = AuditSettings {
        file: Some(config.file.clone()),
        journal: config.journal,
        count: config.count.iter().map(ToString::to_string).collect(),
        rotate_size: config.rotate_size,
        keep: config.keep,
        sync: config.sync,
    };
    Audit::start(&settings).context("audit log")
}

/// Starts the router of a level.
pub fn start_router(
    config: Config,
    level: Level,
    user: User,
    direct: bool,
    audit: Audit,
) -> anyhow::Result<(RouterHandle, oneshot::Receiver<String>, String)> {
    let boot_id = identity::boot_id().unwrap_or_else(|error| {
        tracing::warn!(%error, "no boot id");
        String::new()
    });
    let options = RouterOptions {
        level,
        user,
        direct,
        limits: config.limits,
        policy: config.policy,
        audit,
        enabled: config.modules.enabled,
        settings: config.module.into_iter().collect(),
        boot_id: boot_id.clone(),
    };
    let (router, replaced) = RouterHandle::start(options)?;
    Ok((router, replaced, boot_id))
}

/// Tells systemd (or whoever started us with `-d`); where nobody listens, nothing happens.
pub fn notify(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        // The one who started us in the background listens for the first word only.
        if !background::is_background() {
            tracing::debug!(%error, "sd_notify");
        }
    }
}

/// The signals that a daemon heeds.
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

/// What a signal asks for.
pub enum Wish {
    Stop,
    Reload,
}

impl Signals {
    pub fn new() -> anyhow::Result<Self> {
        let of = |kind| signal(kind).context("signals");
        Ok(Self {
            term: of(SignalKind::terminate())?,
            int: of(SignalKind::interrupt())?,
            hup: of(SignalKind::hangup())?,
        })
    }

    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.term.recv() => Wish::Stop,
            _ = self.int.recv() => Wish::Stop,
            _ = self.hup.recv() => Wish::Reload,
        }
    }
}

/// Answers systemd's watchdog as long as the router answers us. Ends at once where no watchdog is asked for.
pub async fn watchdog(router: RouterHandle) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(limit / 2);
    loop {
        tick.tick().await;
        let status = router.status().await;
        notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
    }
}

/// Loads the policy anew and reopens the log. What is wrong with it is said, and the old policy stays.
pub async fn reload(router: &RouterHandle, audit: &Audit, load: impl FnOnce() -> anyhow::Result<Config>) {
    if let Ok(reloading) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, reloading]);
    }
    match load() {
        Ok(config) => {
            router.reload(Policy::clone(&config.policy)).await;
            tracing::info!("policy reloaded; modules, limits and the log's settings change with a restart");
        }
        Err(error) => tracing::error!("the old policy stays: {error:#}"),
    }
    if let Err(error) = audit.reopen().await {
        tracing::error!(%error, "reopening the audit log");
    }
    notify(&[NotifyState::Ready]);
}

/// Ends everything in order, within [`STOP_LIMIT`].
///
/// Without STOPPING=1, after which systemd would forget a unit's RemainAfterExit=: a user daemon that was replaced has to
/// leave its unit "active (exited)", or virtagent-user.path starts it again and it takes the session back.
pub async fn stop(router: &RouterHandle, audit: &Audit) {
    let ending = async {
        router.stop(STOP_LIMIT.mul_f32(0.8)).await;
        audit.stop().await;
    };
    if tokio::time::timeout(STOP_LIMIT.mul_f32(0.95), ending).await.is_err() {
        tracing::warn!("not everything ended in time");
    }
}
