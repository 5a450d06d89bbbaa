//! One user's daemon: joined to the system daemon, or on a channel of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_core::audit::Audit;
use agent_core::config::{Config, Limits};
use agent_core::identity::{User, lookup_user};
use agent_core::link::transport::{BACK_OFF_FIRST, Channel, ChannelKind, listen};
use agent_core::link::{CallOptions, Link, LinkOptions};
use agent_core::module::{Descriptor, Level};
use agent_core::router::{RouterHandle, ServeHost, accept_programs};
use agent_core::rpc::Value;
use anyhow::{Context, anyhow, ensure};
use nix::unistd::geteuid;

use crate::cli::Cli;
use crate::lock::PidLock;
use crate::running::{self, Signals, Wish};
use crate::system::{self, notify_ready};
use crate::{Ended, load};

const SYSTEM_SOCKET: &str = "/run/virtagent/user.sock";
/// A session that lasted this long was no failure: the next attempt is made at once.
const STABLE: Duration = Duration::from_secs(10);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Who we are.
pub fn own() -> anyhow::Result<User> {
    lookup_user(&geteuid().to_string()).map_err(|fault| anyhow!(fault.message))
}

/// Runs until a signal ends it or another daemon of this user takes over.
pub async fn run(cli: &Cli, config: Config) -> anyhow::Result<Ended> {
    let kind = cli.channel.map_or(ChannelKind::UnixConnect, ChannelKind::from);
    // Joined to the system daemon it is one of the router's sessions; on any other channel the host itself is behind it.
    let direct = kind != ChannelKind::UnixConnect;
    let user = own()?;
    let runtime = runtime_folder(&user)?;
    let pid_file = cli.pid_file.clone().unwrap_or_else(|| runtime.join("virtagentd.pid"));
    let _lock = PidLock::take(&pid_file)?;
    let mut signals = Signals::new()?;
    let limits = config.limits.clone();
    let audit = if direct { running::start_audit(&config.audit)? } else { Audit::disabled() };
    let channel = match (kind, cli.path.as_deref()) {
        (ChannelKind::UnixConnect, path) => Channel::open(kind, path.unwrap_or(Path::new(SYSTEM_SOCKET)))?,
        (_, None) if kind == ChannelKind::VirtioSerial => {
            system::open_channel(kind, Some(Path::new("/dev/virtio-ports/org.qemu.virtagent.user")))?
        }
        (_, path) => system::open_channel(kind, path)?,
    };
    let control = runtime.join("control.sock");
    let programs = listen(&control, 0o600).map_err(|why| anyhow!("{}: {why}", control.display()))?;
    let enabled = config.modules.enabled.clone();
    let (router, replaced, boot_id) = running::start_router(config, Level::User, user, direct, audit.clone())?;

    actix::spawn(accept_programs(programs, router.clone()));
    actix::spawn(running::watchdog(router.clone()));
    let conversing = async {
        match direct {
            true => system::converse(channel, router.clone(), limits, boot_id).await,
            false => join(channel, router.clone(), limits, enabled).await,
        }
    };
    tokio::pin!(conversing);
    notify_ready(&router).await;
    tokio::pin!(replaced);
    let ended = loop {
        tokio::select! {
            error = &mut conversing => break Err(error),
            Ok(reason) = &mut replaced => {
                tracing::warn!(reason, "leaving");
                break Ok(Ended::Replaced);
            }
            wish = signals.next() => match wish {
                Wish::Stop => break Ok(Ended::Stopped),
                Wish::Reload => running::reload(&router, &audit, || load(cli)).await,
            },
        }
    };
    running::stop(&router, &audit).await;
    let _ = std::fs::remove_file(&control);
    ended
}

/// One session after the other, as the system daemon comes and goes.
async fn join(mut channel: Channel, router: RouterHandle, limits: Limits, enabled: Vec<String>) -> anyhow::Error {
    let mut wait = BACK_OFF_FIRST;
    loop {
        let stream = match channel.next().await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let began = tokio::time::Instant::now();
        let link = Link::start(stream, LinkOptions::inner(&limits), ServeHost::system_daemon(&router));
        router.host_up(link.clone()).await;
        let running = Descriptor::all().into_iter().filter(|module| module.levels.contains(Level::User));
        let modules = running.filter(|module| enabled.iter().any(|name| name == module.name));
        let modules: Vec<Value> = modules.map(|module| module.name.into()).collect();
        let hello = Value::object([("modules", modules.into())]);
        let options = CallOptions { timeout: Some(HELLO_TIMEOUT), ..CallOptions::default() };
        match link.call("session.hello", vec![hello], &options).await {
            Ok(_) => tracing::info!(channel = channel.describe(), "joined the system daemon"),
            Err(fault) => {
                tracing::error!(%fault, "the system daemon does not take us");
                link.close("no session");
            }
        }
        let reason = link.closed().await;
        router.host_down().await;
        if router.stopping().is_cancelled() {
            std::future::pending::<()>().await;
        }
        tracing::warn!(%reason, "the system daemon is gone; joining again when it is back");
        wait = if began.elapsed() > STABLE { BACK_OFF_FIRST } else { (wait * 2).min(Duration::from_secs(5)) };
        tokio::time::sleep(wait).await;
    }
}

/// Where the user's lock and control socket live: `$XDG_RUNTIME_DIR/virtagent`, made with mode 0700.
fn runtime_folder(user: &User) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let base = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !folder.is_empty() => PathBuf::from(folder),
        _ => PathBuf::from(format!("/run/user/{}", user.uid)),
    };
    let folder = if base.is_dir() {
        base.join("virtagent")
    } else {
        // No login session made one. In the home nobody can be there before us; in /tmp, for a user without one, somebody
        // can, and then we don't start.
        let state = user.home.join(".local/state");
        let ours = std::fs::metadata(&user.home).is_ok_and(|home| home.is_dir() && home.uid() == user.uid.as_raw());
        if ours { state.join("virtagent") } else { std::env::temp_dir().join(format!("virtagent-{}", user.uid)) }
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("making {}; is XDG_RUNTIME_DIR right?", folder.display()))?;
    let meta = std::fs::symlink_metadata(&folder)?;
    let ours = meta.is_dir() && meta.uid() == user.uid.as_raw() && meta.mode() & 0o022 == 0;
    ensure!(ours, "{}: not a folder of {}'s alone", folder.display(), user.name);
    Ok(folder)
}
