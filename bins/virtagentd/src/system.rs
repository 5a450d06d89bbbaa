//! The system daemon: the host's channel on one side, the users' socket on the other.

use std::path::{Path, PathBuf};

use agent_core::config::{Config, Limits};
use agent_core::identity::lookup_user;
use agent_core::link::transport::{Channel, ChannelKind, listen};
use agent_core::link::{Link, LinkOptions};
use agent_core::module::Level;
use agent_core::router::{RouterHandle, ServeHost, accept_sessions};
use anyhow::{Context, anyhow};
use sd_notify::NotifyState;

use crate::cli::{self, Cli};
use crate::running::{self, Signals, Wish};
use crate::{Ended, load};

const PORT: &str = "/dev/virtio-ports/org.qemu.virtagent";

impl From<cli::Channel> for ChannelKind {
    fn from(channel: cli::Channel) -> Self {
        match channel {
            cli::Channel::VirtioSerial => Self::VirtioSerial,
            cli::Channel::UnixListen => Self::UnixListen,
            cli::Channel::UnixConnect => Self::UnixConnect,
            cli::Channel::IsaSerial => Self::IsaSerial,
            cli::Channel::VsockListen => Self::VsockListen,
        }
    }
}

/// Opens the host's channel; only the usual port has a usual path.
pub fn open_channel(kind: ChannelKind, path: Option<&Path>) -> anyhow::Result<Channel> {
    let path = match (path, kind) {
        (Some(path), _) => path.to_owned(),
        (None, ChannelKind::VirtioSerial) => PathBuf::from(PORT),
        (None, ChannelKind::IsaSerial) => PathBuf::from("/dev/ttyS0"),
        (None, _) => return Err(anyhow!("-c {kind} needs -p PATH")),
    };
    Ok(Channel::open(kind, &path)?)
}

/// One conversation after the other, as the host comes and goes.
pub async fn converse(mut channel: Channel, router: RouterHandle, limits: Limits, boot_id: String) -> anyhow::Error {
    loop {
        let stream = match channel.next().await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        let link = Link::start(stream, LinkOptions::outer(&limits), ServeHost::host(&router));
        router.host_up(link.clone()).await;
        tracing::info!(channel = channel.describe(), "the host is there");
        if let Err(fault) = link.hello(&boot_id).await {
            tracing::debug!(%fault, "hello");
        }
        let reason = link.closed().await;
        router.host_down().await;
        tracing::info!(%reason, "the host is away");
        if router.stopping().is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs until a signal ends it.
pub async fn run(cli: &Cli, config: Config) -> anyhow::Result<Ended> {
    let kind = cli.channel.map_or(ChannelKind::VirtioSerial, ChannelKind::from);
    let user = lookup_user(&nix::unistd::geteuid().to_string()).map_err(|fault| anyhow!(fault.message))?;
    let limits = config.limits.clone();
    let audit = running::start_audit(&config.audit)?;
    let mut signals = Signals::new()?;
    let channel = open_channel(kind, cli.path.as_deref())?;
    let folder = cli.user_socket.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.exists()) {
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        let open_to_all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder, open_to_all)?;
    }
    // Everybody may connect: who it is says the kernel, and what they may do says the router.
    let users = listen(&cli.user_socket, 0o666).map_err(|why| anyhow!("{}: {why}", cli.user_socket.display()))?;
    let (router, _replaced, boot_id) = running::start_router(config, Level::System, user, true, audit.clone())?;

    actix::spawn(accept_sessions(users, router.clone()));
    actix::spawn(running::watchdog(router.clone()));
    let conversing = converse(channel, router.clone(), limits, boot_id);
    tokio::pin!(conversing);
    notify_ready(&router).await;
    let ended = loop {
        tokio::select! {
            error = &mut conversing => break Err(error),
            wish = signals.next() => match wish {
                Wish::Stop => break Ok(Ended::Stopped),
                Wish::Reload => running::reload(&router, &audit, || load(cli)).await,
            },
        }
    };
    running::stop(&router, &audit).await;
    let _ = std::fs::remove_file(&cli.user_socket);
    ended
}

/// Ready, with a first status.
pub async fn notify_ready(router: &RouterHandle) {
    let status = router.status().await;
    running::notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}
