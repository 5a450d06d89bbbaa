//! The command line. Self-contained: the developer's tool includes this file to make the manual page and completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// virtagent's guest daemon: one channel to the hypervisor, for the machine and for each of its users.
#[derive(Debug, Parser)]
#[command(name = "virtagentd", version, disable_version_flag = true, args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  virtagentd                              the system daemon, on /dev/virtio-ports/org.qemu.virtagent
  virtagentd --user-daemon                this user's daemon, joined to it
  virtagentd --user-daemon --username=bob bob's daemon, started by root
  virtagentd -c unix-listen -p ./port.sock --user-socket=./user.sock
                                          without a VM: the host's command is `virtagent -s ./port.sock`
  virtagentd policy test exec.run         may the host run programs as root? which line says so?
  virtagentd audit show --user alice      what the host did as alice

Exit status: 0 after SIGTERM or SIGINT, 1 when it can't start or go on, 2 for wrong options, 150 when another user
daemon of the same user took over.")]
pub struct Cli {
    /// What the channel is [default: virtio-serial; unix-connect for a user daemon]
    #[arg(short, long, value_enum, value_name = "KIND")]
    pub channel: Option<Channel>,

    /// Where it is: a port, a socket, a serial line, or a vsock port's number
    /// [default: /dev/virtio-ports/org.qemu.virtagent; /run/virtagent/user.sock for a user daemon]
    #[arg(short, long, value_name = "PATH")]
    pub path: Option<PathBuf>,

    /// The socket that the users' daemons connect to
    #[arg(long, value_name = "PATH", default_value = "/run/virtagent/user.sock", conflicts_with = "user_daemon")]
    pub user_socket: PathBuf,

    /// Be one user's daemon instead of the machine's
    #[arg(long)]
    pub user_daemon: bool,

    /// Whose daemon to be, by name or UID; anybody else's takes root, which is given up for good [default: who starts it]
    #[arg(long, value_name = "USER", requires = "user_daemon")]
    pub username: Option<String>,

    /// The lock that keeps a user to one daemon [default: $XDG_RUNTIME_DIR/virtagent/virtagentd.pid]
    #[arg(long, value_name = "PATH", requires = "user_daemon")]
    pub pid_file: Option<PathBuf>,

    /// The configuration [default: /etc/virtagent/virtagentd.toml and conf.d/*.toml beside it, or the packaged defaults]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read the configuration, say what is wrong with it, and exit
    #[arg(long)]
    pub check_config: bool,

    /// List the modules that were compiled in, and exit
    #[arg(long)]
    pub list_modules: bool,

    /// Go to the background once it runs; a start that fails is still reported here
    #[arg(short = 'd', long)]
    pub daemonize: bool,

    /// Say more; twice for everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,

    #[command(subcommand)]
    pub tool: Option<Tool>,
}

/// The kinds of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Channel {
    /// A virtio-serial port
    VirtioSerial,
    /// A unix socket that the daemon makes; one host at a time
    UnixListen,
    /// A unix socket that something else listens on
    UnixConnect,
    /// A serial line: 38400 baud, raw
    IsaSerial,
    /// A vsock port that the daemon listens on
    VsockListen,
}

/// What the daemon's program does beside being the daemon.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Ask the policy
    #[command(subcommand)]
    Policy(PolicyTool),
    /// Read the audit log
    #[command(subcommand)]
    Audit(AuditTool),
}

#[derive(Debug, Subcommand)]
pub enum PolicyTool {
    /// Say whether a call may run, and which line decides
    Test(PolicyTest),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  virtagentd policy test power.shutdown
  virtagentd policy test file.open path=/etc/shadow mode=read
  virtagentd policy test exec.run --user alice
  virtagentd policy test host.event --from user --user alice

Exit status: 0 when the call is allowed, 1 when it is denied or can't be judged.")]
pub struct PolicyTest {
    /// The method
    pub method: String,
    /// Parameters that rules may look at, such as path=/etc/shadow mode=read
    #[arg(value_name = "NAME=VALUE")]
    pub params: Vec<String>,
    /// Where it runs [default: user with --user, otherwise system]
    #[arg(long, value_enum)]
    pub level: Option<LevelArg>,
    /// As whom it runs, or who calls the host
    #[arg(long)]
    pub user: Option<String>,
    /// Who calls
    #[arg(long, value_enum, default_value = "host")]
    pub from: FromArg,
    /// A path that the call names, beside those among the parameters
    #[arg(long)]
    pub path: Vec<PathBuf>,
    /// The configuration [default: as the daemon]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// As root
    System,
    /// As one user
    User,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FromArg {
    /// The hypervisor
    Host,
    /// A user of the guest
    User,
}

#[derive(Debug, Subcommand)]
pub enum AuditTool {
    /// Check that no record was altered, removed, added or moved
    #[command(after_help = "\
Exit status: 0 when the log is sound, 1 when it is not or can't be read.

A log that was cut off at its end can't be told from a shorter one by itself: hold the last hash against the journal's.")]
    Verify {
        /// The configuration that names the log [default: as the daemon]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The log itself
        #[arg(long, value_name = "FILE", conflicts_with = "config")]
        log: Option<PathBuf>,
    },
    /// Show calls with their outcomes, one line each
    Show {
        /// The configuration that names the log [default: as the daemon]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The log itself
        #[arg(long, value_name = "FILE", conflicts_with = "config")]
        log: Option<PathBuf>,
        /// Go on with what is being written
        #[arg(short, long)]
        follow: bool,
        /// Of this user only
        #[arg(long)]
        user: Option<String>,
        /// Of these methods only, such as 'file.*'
        #[arg(long, value_name = "GLOB")]
        method: Option<String>,
        /// Print JSON, one object a line
        #[arg(long)]
        json: bool,
    },
}
