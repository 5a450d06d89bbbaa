//! `-d`: the daemon goes to the background once it runs, and whoever started it hears of a start that failed.
//!
//! The same program is started again in a session of its own, and tells its readiness as it would tell systemd: over the
//! socket named by `NOTIFY_SOCKET`, which for this once is ours.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

/// Tells the second start that it is the one in the background.
const MARK: &str = "VIRTAGENTD_BACKGROUND";

/// Starts the daemon in the background and waits until it is ready.
pub fn start() -> anyhow::Result<ExitCode> {
    let folder =
        tempfile::Builder::new().prefix("virtagentd-").tempdir().context("a folder for the readiness socket")?;
    let path = folder.path().join("ready");
    let socket = UnixDatagram::bind(&path).context("the readiness socket")?;
    // Long enough to look after the child now and then, while the socket wakes us at once.
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let program = std::env::current_exe().context("finding our own program")?;
    let args = std::env::args_os().skip(1).filter(|arg| arg != "-d" && arg != "--daemonize");
    #[allow(clippy::disallowed_methods, reason = "the daemon starts itself, nothing else")]
    let mut command = Command::new(program);
    let mut child = command
        .args(args)
        .env("NOTIFY_SOCKET", &path)
        .env(MARK, "1")
        .stdin(Stdio::null())
        .spawn()
        .context("starting in the background")?;
    let mut message = [0; 4096];
    loop {
        match socket.recv(&mut message) {
            Ok(length) if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") => {
                return Ok(ExitCode::SUCCESS);
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("the readiness socket"),
        }
        if let Some(status) = child.try_wait()? {
            // It has said why on the standard error that we share.
            bail!("the daemon did not start ({status})");
        }
    }
}

/// In the background: a session of our own, without the terminal that started us.
pub fn settle() {
    if std::env::var_os(MARK).is_some() {
        // Fails only for a leader of a process group, which a fresh child is not.
        let _ = nix::unistd::setsid();
    }
}

/// Whether this is the start in the background: the first readiness goes to whoever started it, later ones nowhere.
pub fn is_background() -> bool {
    std::env::var_os(MARK).is_some()
}
