//! From root to a user, for good: supplementary groups, GID, UID, an environment of the user's, no way back.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use agent_core::identity::{User, lookup_user};
use agent_core::link::transport::ChannelKind;
use anyhow::{Context, anyhow, bail, ensure};
use nix::unistd::{self, Uid};

use crate::cli::Cli;

/// Whether `--username` names somebody else than who we are. An ordinary user may only name themselves.
pub fn needed(cli: &Cli) -> anyhow::Result<bool> {
    let Some(name) = &cli.username else { return Ok(false) };
    let user = lookup(name)?;
    let us = unistd::geteuid();
    if user.uid == us {
        return Ok(false);
    }
    if !us.is_root() {
        bail!("--username={name}: only root may start another user's daemon");
    }
    Ok(true)
}

fn lookup(name: &str) -> anyhow::Result<User> {
    lookup_user(name).map_err(|fault| anyhow!("--username={name}: {}", fault.message))
}

/// Becomes that user and starts this program anew, so that nothing of root's stays in its memory. Returns only what went
/// wrong.
pub fn go(cli: &Cli) -> anyhow::Error {
    match try_go(cli) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_go(cli: &Cli) -> anyhow::Result<Infallible> {
    let name = cli.username.as_deref().unwrap_or_default();
    let user = lookup(name)?;
    ensure!(!user.uid.is_root(), "--username={name}: root needs no user daemon; start the system daemon");
    let c_name = CString::new(&*user.name).context("the user's name")?;
    unistd::initgroups(&c_name, user.gid).context("taking on the user's groups")?;
    unistd::setresgid(user.gid, user.gid, user.gid).context("taking on the user's group")?;
    unistd::setresuid(user.uid, user.uid, user.uid).context("becoming the user")?;
    verify(&user)?;
    let args = arguments(cli)?;
    // A home that is not there (yet) is no reason not to run.
    if std::env::set_current_dir(&user.home).is_err() {
        std::env::set_current_dir("/")?;
    }
    let program = std::env::current_exe().context("finding our own program")?;
    #[allow(clippy::disallowed_methods, reason = "the daemon goes on as itself, as another user")]
    let mut command = Command::new(program);
    command.args(args).env_clear();
    for (name, value) in environment(&user) {
        command.env(name, value);
    }
    Err(command.exec()).context("starting anew as the user")
}

/// The same command line with absolute paths: the user's daemon starts in another folder.
fn arguments(cli: &Cli) -> anyhow::Result<Vec<OsString>> {
    let mut args = vec![OsString::from("--user-daemon")];
    if let Some(channel) = cli.channel {
        args.extend(["-c".into(), ChannelKind::from(channel).to_string().into()]);
    }
    // A vsock port's number is no path.
    let is_path = cli.channel != Some(crate::cli::Channel::VsockListen);
    let paths = [("--path", &cli.path, is_path), ("--pid-file", &cli.pid_file, true), ("--config", &cli.config, true)];
    for (option, path, is_path) in paths {
        if let Some(path) = path {
            let path = if is_path { std::path::absolute(path)? } else { path.clone() };
            args.extend([option.into(), path.into_os_string()]);
        }
    }
    args.extend(cli.check_config.then(|| "--check-config".into()));
    args.extend(cli.daemonize.then(|| "--daemonize".into()));
    args.extend((0..cli.verbose).map(|_| "-v".into()));
    Ok(args)
}

/// Every identity is the user's, and root's can't be had again.
fn verify(user: &User) -> anyhow::Result<()> {
    let uids = unistd::getresuid().context("reading our identity")?;
    let gids = unistd::getresgid().context("reading our identity")?;
    let all_uids = [uids.real, uids.effective, uids.saved].iter().all(|uid| *uid == user.uid);
    let all_gids = [gids.real, gids.effective, gids.saved].iter().all(|gid| *gid == user.gid);
    ensure!(all_uids && all_gids, "the identity of {} was not taken on whole", user.name);
    ensure!(unistd::setuid(Uid::from_raw(0)).is_err(), "root's identity could be had again; refusing to go on");
    Ok(())
}

/// What the user's daemon starts with: the user's own basics, and what the caller said about this start.
fn environment(user: &User) -> Vec<(String, String)> {
    let mut environment = vec![
        ("HOME".to_owned(), user.home.display().to_string()),
        ("USER".to_owned(), user.name.to_string()),
        ("LOGNAME".to_owned(), user.name.to_string()),
        ("SHELL".to_owned(), user.shell.display().to_string()),
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games".to_owned()),
    ];
    let runtime = match std::env::var("XDG_RUNTIME_DIR") {
        Ok(folder) if owned_by(&folder, user.uid) => Some(folder),
        _ => Some(format!("/run/user/{}", user.uid)).filter(|folder| owned_by(folder, user.uid)),
    };
    environment.extend(runtime.map(|folder| ("XDG_RUNTIME_DIR".to_owned(), folder)));
    for name in ["LANG", "LC_ALL", "TZ", "NOTIFY_SOCKET", "WATCHDOG_USEC", "VIRTAGENTD_BACKGROUND", "RUST_BACKTRACE"] {
        environment.extend(std::env::var(name).map(|value| (name.to_owned(), value)));
    }
    environment
}

fn owned_by(folder: &str, uid: Uid) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(Path::new(folder)).is_ok_and(|folder| folder.is_dir() && folder.uid() == uid.as_raw())
}
