//! A guest without a VM: real daemons on real sockets in a folder of their own, users with real UIDs, and the host's end.
//!
//! Owns the processes it starts, which all end with their values. Must never enable the power module: these daemons run on
//! the machine that runs the tests.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `mod` | the guest: its folder, configuration, sockets and log |
//! | `daemon` | one running daemon |
//! | `host` | the host's end as a link, and the double that answers the guest's calls |
//! | `setup` | what a guest is made with |
//! | `raw` | the host's or a user's end as bytes and frames |

mod daemon;
mod host;
mod raw;
mod setup;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};
use serde_json::Value as Json;

pub use self::daemon::Daemon;
pub use self::host::{Heard, Host, HostDouble, json, value};
pub use self::raw::{Raw, call_frame};
pub use self::setup::Setup;
use crate::{process, wait};

/// How long anything may take before a test fails.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Allows everything.
pub const ALLOW_ALL: &str = "[policy]\ndefault = \"allow\"\n";

/// Whether this test runs as root; says why not when it has to be left out.
pub fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: only root can start the daemons of two real users");
    }
    root
}

/// One guest: a system daemon, and the folder that everything is in.
pub struct Guest {
    system: Option<Daemon>,
    setup: Setup,
    dir: tempfile::TempDir,
}

impl Guest {
    /// A guest that allows everything.
    ///
    /// # Errors
    /// When the daemon does not start, with what it said.
    pub fn start() -> Result<Guest> {
        Setup::default().start()
    }

    /// The guest's folder, which every user may read.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The host's channel.
    pub fn port(&self) -> PathBuf {
        self.path("port.sock")
    }

    /// The socket that the users' daemons connect to.
    pub fn user_socket(&self) -> PathBuf {
        self.path("user.sock")
    }

    /// The configuration's file.
    pub fn config_file(&self) -> PathBuf {
        self.path("virtagentd.toml")
    }

    /// The audit log.
    pub fn audit_file(&self) -> PathBuf {
        self.setup.audit.clone().unwrap_or_else(|| self.path("log/audit.jsonl"))
    }

    /// Writes the configuration; the daemon reads it when it starts or by [`Guest::reload`].
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn configure(&self, toml: &str) -> Result<()> {
        let modules: Vec<_> = self.setup.modules.iter().map(|name| format!("{name:?}")).collect();
        let text = format!(
            "{toml}\n[modules]\nenabled = [{}]\n[audit]\nfile = {:?}\njournal = false\ncount = []\n",
            modules.join(", "),
            self.audit_file().display().to_string(),
        );
        fs::write(self.config_file(), text)?;
        fs::set_permissions(self.config_file(), fs::Permissions::from_mode(0o644))?;
        Ok(())
    }

    /// The running system daemon.
    pub fn system(&mut self) -> &mut Daemon {
        self.system.as_mut().expect("the system daemon was started")
    }

    /// Starts the system daemon.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub fn start_system(&mut self) -> Result<()> {
        let (kind, path) = match &self.setup.channel {
            Some((kind, path)) => (kind.clone(), path.clone()),
            None => ("unix-listen".to_owned(), self.port().display().to_string()),
        };
        let mut command = self.command()?;
        command.args(["-v", "-c", &kind, "-p", &path, "--user-socket"]).arg(self.user_socket());
        command.arg("--config").arg(self.config_file());
        self.system = Some(Daemon::start("system", self.dir(), command)?);
        Ok(())
    }

    /// Ends the system daemon by SIGTERM and starts it again.
    ///
    /// # Errors
    /// When it does not end or start.
    pub fn restart_system(&mut self) -> Result<()> {
        let mut old = self.system.take().context("the system daemon does not run")?;
        old.signal(Signal::SIGTERM)?;
        old.ended(LIMIT)?;
        drop(old);
        self.start_system()
    }

    /// Ends the system daemon by SIGKILL.
    ///
    /// # Errors
    /// When it can't be.
    pub fn kill_system(&mut self) -> Result<()> {
        self.system.take().context("the system daemon does not run")?.kill()
    }

    /// Writes another configuration, has the system daemon read it, and waits until it has.
    ///
    /// # Errors
    /// When it does not read it.
    pub fn reload(&mut self, toml: &str) -> Result<()> {
        self.configure(toml)?;
        let before = self.events("policy.reloaded").len();
        self.system().signal(Signal::SIGHUP)?;
        wait::until(LIMIT, "the policy to be reloaded", || {
            Ok((self.events("policy.reloaded").len() > before).then_some(()))
        })
    }

    /// `virtagentd`, or what stands in for it, with a folder of its own for its passwd if that is asked for.
    ///
    /// # Errors
    /// When it is not built.
    pub fn command(&self) -> Result<Command> {
        let program = process::built(&self.setup.program)?;
        if !self.setup.homes {
            return Ok(Command::new(program));
        }
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/passwd && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(self.path("passwd")).arg(program);
        Ok(command)
    }

    /// A user daemon's command line, without what names its kind and place.
    ///
    /// # Errors
    /// When the user does not exist.
    pub fn user_command(&self, name: &str, args: &[&str]) -> Result<Command> {
        let mut command = self.command()?;
        command.args(["-v", "--user-daemon", "--username", name, "--config"]).arg(self.config_file()).args(args);
        command.env("XDG_RUNTIME_DIR", self.runtime(name)?);
        Ok(command)
    }

    /// Starts that user's daemon, as that user, and waits until it has joined.
    ///
    /// # Errors
    /// When it does not start or join, with what it said.
    pub fn user(&self, name: &str) -> Result<Daemon> {
        self.user_with(name, &[])
    }

    /// The same with more arguments, such as another `--pid-file`.
    ///
    /// # Errors
    /// When it does not start or join, with what it said.
    pub fn user_with(&self, name: &str, args: &[&str]) -> Result<Daemon> {
        let socket = self.user_socket().display().to_string();
        let mut command = self.user_command(name, &["-p", &socket])?;
        command.args(args);
        let mut daemon = Daemon::start(name, self.dir(), command)?;
        daemon.said("joined the system daemon")?;
        Ok(daemon)
    }

    /// A runtime folder of that user's.
    ///
    /// # Errors
    /// When the user does not exist, or the folder can't be made.
    pub fn runtime(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path(&format!("run-{name}"));
        if !folder.exists() {
            self.folder_of(name, &folder)?;
        }
        Ok(folder)
    }

    /// A folder of that user's alone.
    ///
    /// # Errors
    /// When the user does not exist, or the folder can't be made.
    pub fn folder_of(&self, name: &str, folder: &Path) -> Result<()> {
        let user = account(name)?;
        fs::create_dir_all(folder)?;
        chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        Ok(())
    }

    /// That user's home, where [`Setup::homes`] was asked for.
    pub fn home(&self, name: &str) -> PathBuf {
        self.path(&format!("home-{name}"))
    }

    /// The host's end as a connected, greeted link; [`HostDouble`] answers the guest's calls with nil.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub async fn host(&self) -> Result<Host> {
        self.host_with(HostDouble::new(|_| Some(Ok(agent_core::rpc::Value::Nil)))).await
    }

    /// The same with answers of the test's own.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub async fn host_with(&self, double: HostDouble) -> Result<Host> {
        Host::connect(&self.port(), double).await
    }

    /// The host's end as frames.
    ///
    /// # Errors
    /// When nothing listens.
    pub fn raw(&self) -> Result<Raw> {
        Ok(Raw::new(UnixStream::connect(self.port())?))
    }

    /// A connection to the users' socket, made by a process of that UID: the kernel's word on who it is, and nothing else
    /// of a user daemon. Say hello by [`Raw::hello`] for a session.
    ///
    /// # Errors
    /// When `socat` can't be started.
    pub fn session(&self, uid: u32) -> Result<Raw> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut socat = Command::new("socat");
        socat.arg("-").arg(format!("UNIX-CONNECT:{}", self.user_socket().display()));
        socat.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)));
        socat.stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs))).stderr(Stdio::null());
        let child = socat.uid(uid).gid(uid).spawn().context("can't start socat")?;
        drop(socat);
        Ok(Raw::through(ours, child))
    }

    /// Runs the host command on the channel.
    ///
    /// # Errors
    /// When it can't start or does not end.
    pub fn virtagent(&self, args: &[&str]) -> Result<Output> {
        process::run(&mut self.virtagent_command(args)?, b"", LIMIT)
    }

    /// The host command, not yet started.
    ///
    /// # Errors
    /// When it is not built.
    pub fn virtagent_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(process::built("virtagent")?);
        command.arg("-s").arg(self.port()).args(args);
        Ok(command)
    }

    /// What the host command printed; it has to succeed.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn virtagent_ok(&self, args: &[&str]) -> Result<String> {
        process::succeeded(&format!("virtagent {}", args.join(" ")), self.virtagent(args)?)
    }

    /// One of the daemon's tools (`policy test`, `audit verify`), with this guest's configuration.
    ///
    /// # Errors
    /// When it can't start or does not end.
    pub fn tool(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.command()?;
        command.args(args).arg("--config").arg(self.config_file());
        process::run(&mut command, b"", LIMIT)
    }

    /// The same without the configuration, for tools that are told where the log is.
    ///
    /// # Errors
    /// When it can't start or does not end.
    pub fn tool_of(&self, tool: &str, args: &[&str]) -> Result<Output> {
        process::run(self.command()?.arg(tool).args(args), b"", LIMIT)
    }

    /// The audit log's records.
    pub fn audit(&self) -> Vec<Json> {
        let text = fs::read_to_string(self.audit_file()).unwrap_or_default();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The audit log's records of one event.
    pub fn events(&self, name: &str) -> Vec<Json> {
        self.audit().into_iter().filter(|record| record["type"] == "event" && record["event"] == name).collect()
    }

    /// Waits until the audit log has a record of which that is true.
    ///
    /// # Errors
    /// When it has none in time.
    pub fn audited(&self, what: &str, wanted: impl Fn(&Json) -> bool) -> Result<Json> {
        wait::until(LIMIT, &format!("an audit record: {what}"), || Ok(self.audit().into_iter().find(&wanted)))
    }

    /// Checks the audit log's chain with the daemon's own tool.
    ///
    /// # Errors
    /// When it is broken.
    pub fn verify_audit(&self) -> Result<String> {
        process::succeeded("virtagentd audit verify", self.tool(&["audit", "verify"])?)
    }
}

/// An account of this machine.
///
/// # Errors
/// When there is none.
pub fn account(name: &str) -> Result<User> {
    let Some(user) = User::from_name(name)? else { bail!("this machine has no user {name}") };
    ensure!(!user.uid.is_root(), "{name} is root");
    Ok(user)
}

/// The processes whose command line contains that text.
pub fn processes(text: &str) -> Vec<u32> {
    let ours = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let matches = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    };
    pids.filter(|pid| *pid != ours).filter(matches).collect()
}

/// Waits until no process has that text in its command line.
///
/// # Errors
/// When one is left.
pub fn gone(text: &str) -> Result<()> {
    wait::until(LIMIT, &format!("the end of every process with {text:?}"), || {
        Ok(processes(text).is_empty().then_some(()))
    })
}
