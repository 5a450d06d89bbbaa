//! The command line: what `virtagent` takes, and the help that teaches it.
//!
//! Owns clap's definitions and the parsing of single arguments; longer help stands in `help/`. Uses clap and std only,
//! because the developer's tool includes this file to generate manual pages and completions. Must never do I/O.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str =
    concat!(include_str!("help/examples.txt"), "Run `virtagent COMMAND --help` for a command's own examples.");

const LONG_EXAMPLES: &str = concat!(include_str!("help/examples.txt"), include_str!("help/topics.txt"));

/// Act inside a virtual machine: as root, or as one of its users
#[derive(Debug, Parser)]
#[command(
    name = "virtagent",
    version,
    max_term_width = 110,
    after_help = EXAMPLES,
    after_long_help = LONG_EXAMPLES,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// The whole command line for whoever generates something from it.
pub fn cli() -> clap::Command {
    Cli::command()
}

#[derive(Clone, Debug, Default, Args)]
pub struct Global {
    /// The VM's channel on the host: a unix socket's path, or vsock:CID:PORT
    #[arg(short, long, global = true, value_name = "PATH", conflicts_with = "vm", help_heading = "Global options")]
    pub socket: Option<PathBuf>,
    /// The VM's name: in ~/.config/virtagent/vms.toml, or a running libvirt domain
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    pub vm: Option<String>,
    /// Act as this user of the guest: a name, a UID, or @active; without it as root
    #[arg(short, long, global = true, value_name = "USER", value_parser = user, help_heading = "Global options")]
    pub user: Option<String>,
    /// Write JSON for programs, not tables for people
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// How long an answer may take: 500ms, 30s, 5m, 0 for no limit [default: 60s; exec and shell: no limit]
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration, help_heading = "Global options")]
    pub timeout: Option<Duration>,
    /// How calls are written on the wire [default: what the guest understands best]
    #[arg(long, global = true, value_name = "ENCODING", help_heading = "Global options")]
    pub encoding: Option<WireEncoding>,
    /// Say on standard error what is done
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WireEncoding {
    Cbor,
    Json,
    Xml,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Call the agent and measure the round trips
    #[command(after_help = "\
Examples:
  virtagent --vm web1 ping              four calls to the system daemon
  virtagent --vm web1 -u alice ping     through it to alice's own daemon
  virtagent --vm web1 ping -c 0         until Ctrl-C")]
    Ping(Ping),
    /// What runs in the guest: system, kernel, host name, uptime, agent
    Info,
    /// The users whose sessions are connected
    #[command(after_help = "\
A user is listed while their user daemon runs, normally from login to logout.
-u takes any name that is listed here.")]
    Users,
    /// The methods that the guest offers, or one method's help and parameters
    #[command(after_help = "\
Examples:
  virtagent --vm web1 methods              all of them, with the level they run at
  virtagent --vm web1 methods file.open    help, parameters and result of one
  virtagent --vm web1 methods --json file.open   its JSON schema")]
    Methods {
        /// The method to explain
        method: Option<String>,
    },
    /// Call a method by name
    #[command(after_help = include_str!("help/call.txt"))]
    Call(Call),
    /// Copy, list and change files of the guest
    #[command(subcommand)]
    File(FileCommand),
    /// Run a program in the guest, its standard streams connected to ours
    #[command(after_help = include_str!("help/exec.txt"))]
    Exec(Exec),
    /// Run a script in the guest with its interpreter
    #[command(after_help = "\
Examples:
  virtagent --vm web1 script setup.sh
  virtagent --vm web1 -u alice script report.py     the interpreter is taken from the file's #! line
  echo 'df -h /' | virtagent --vm web1 script -
  virtagent --vm web1 script setup.sh -- --fast /srv   arguments, as $1, $2 ...")]
    Script(Script),
    /// Open a terminal in the guest
    #[command(after_help = "\
Examples:
  virtagent --vm web1 shell              root's login shell
  virtagent --vm web1 -u @active shell   of whoever sits at the guest's screen
  virtagent --vm web1 shell -- bash --norc

To leave when the guest does not react: Ctrl-] at any time, or ~. at the
beginning of a line (~~ sends one ~).")]
    Shell {
        /// What to run instead of the login shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
        argv: Vec<String>,
    },
    /// Power the guest off, restart it, or take that back
    #[command(subcommand)]
    Power(PowerCommand),
    /// Print the guest's events as they come
    #[command(after_help = "\
Examples:
  virtagent --vm web1 events
  virtagent --vm web1 events 'session.*'
  virtagent --vm web1 events --json | jq -r 'select(.topic == \"session.connected\").data.username'

With --json one object a line: time, user (absent for the system daemon), topic, data.")]
    Events(Events),
    /// Answer the guest's calls, with programs of yours
    #[command(after_help = include_str!("help/serve.txt"))]
    Serve(Serve),
    /// Inside a guest: call the host
    #[command(subcommand)]
    ToHost(ToHostCommand),
}

#[derive(Debug, Args)]
pub struct Ping {
    /// How many calls; 0 until Ctrl-C
    #[arg(short, long, value_name = "N", default_value_t = 4)]
    pub count: u64,
    /// Time from one call to the next
    #[arg(short, long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct Call {
    /// The method's name; `virtagent methods` lists them
    pub method: String,
    /// A JSON array or object, or name=value ...
    #[arg(value_name = "PARAMETER", allow_negative_numbers = true)]
    pub params: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Copy a file out of the guest
    #[command(after_help = "\
Examples:
  virtagent --vm web1 file get /etc/hosts              to ./hosts
  virtagent --vm web1 -u alice file get notes.txt .    relative to alice's home
  virtagent --vm web1 file get /var/log/syslog - | less

Bytes go to DEST.part, which is renamed when the whole file's digest matches
the guest's; an existing DEST is replaced only then. After an interruption the
same command goes on where it was: DEST.part.meta knows which file it is.")]
    Get {
        /// The guest's file
        remote: String,
        /// A file, a directory, or - for standard output
        #[arg(default_value = ".")]
        local: PathBuf,
    },
    /// Copy a file into the guest
    #[command(after_help = "\
Examples:
  virtagent --vm web1 file put app.tar /srv/
  virtagent --vm web1 -u alice file put .bashrc .bashrc
  mysqldump db | virtagent --vm web1 file put - /srv/db.sql
  virtagent --vm web1 file put --resume disk.img /srv/disk.img

The guest writes beside the destination, compares the digest and only then
replaces it: nothing half-written is seen. With --resume the bytes go to
DEST.virtagent-part, which an interruption leaves for the next --resume.")]
    Put {
        /// A file, or - for standard input
        local: PathBuf,
        /// The guest's file, or a directory there
        remote: String,
        /// Permission bits of a new file, octal [default: the local file's]
        #[arg(short, long, value_name = "MODE", value_parser = permissions)]
        mode: Option<u32>,
        /// Continue an interrupted put --resume, or make this one resumable
        #[arg(long)]
        resume: bool,
    },
    /// Write files of the guest to standard output
    Cat {
        /// The guest's files
        #[arg(required = true)]
        remote: Vec<String>,
    },
    /// List a directory of the guest
    Ls {
        /// The directory [default: the user's home; / at system level]
        remote: Option<String>,
        /// Names only
        #[arg(short = '1', long)]
        names: bool,
    },
    /// What a file of the guest is
    Stat {
        /// The guest's files
        #[arg(required = true)]
        remote: Vec<String>,
        /// Describe a symbolic link itself, not what it points to
        #[arg(short = 'P', long)]
        no_follow: bool,
    },
    /// Remove files of the guest
    Rm {
        /// The guest's files
        #[arg(required = true)]
        remote: Vec<String>,
        /// Directories too, with all that is in them
        #[arg(short, long)]
        recursive: bool,
    },
    /// Make a directory in the guest
    Mkdir {
        /// The directories
        #[arg(required = true)]
        remote: Vec<String>,
        /// Parents too; no error when it is there already
        #[arg(short, long)]
        parents: bool,
        /// Permission bits, octal
        #[arg(short, long, value_name = "MODE", value_parser = permissions)]
        mode: Option<u32>,
    },
    /// Rename a file of the guest
    Mv {
        /// Its name
        from: String,
        /// Its new name
        to: String,
        /// Replace what has the new name
        #[arg(short, long)]
        force: bool,
    },
    /// Digest files of the guest, inside the guest
    Digest {
        /// The guest's files
        #[arg(required = true)]
        remote: Vec<String>,
        /// Which digest
        #[arg(short, long, value_name = "NAME", default_value = "xxh3-128", value_parser = ["xxh3-128", "sha256"])]
        algorithm: String,
    },
}

#[derive(Debug, Args)]
pub struct ExecOptions {
    /// Run in this directory of the guest
    #[arg(short = 'C', long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set a variable of the program's environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub env: Vec<(String, String)>,
    /// Begin with an empty environment
    #[arg(long)]
    pub clear_env: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    pub options: ExecOptions,
    /// Pass standard input even when it is a terminal
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal of the window's size
    #[arg(short, long)]
    pub tty: bool,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGV")]
    pub argv: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Script {
    #[command(flatten)]
    pub options: ExecOptions,
    /// What runs it, a program and its arguments separated by spaces [default: the #! line, else /bin/sh]
    #[arg(long, value_name = "COMMAND")]
    pub interpreter: Option<String>,
    /// A local file, or - for standard input
    pub file: PathBuf,
    /// The script's arguments
    #[arg(last = true, value_name = "ARGUMENT")]
    pub args: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum PowerCommand {
    /// Power off
    Off(PowerOptions),
    /// Restart
    Reboot(PowerOptions),
    /// Stop without powering off
    Halt(PowerOptions),
    /// Take back an off, reboot or halt that has a delay
    Cancel,
}

#[derive(Debug, Args)]
pub struct PowerOptions {
    /// Wait this long, whole seconds: 30s, 5m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub delay: Option<Duration>,
    /// What the guest's users are told
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    /// Only topics that match; * stands for anything
    #[arg(value_name = "TOPIC")]
    pub topic: Option<String>,
    /// Connect again when the VM goes away and comes back
    #[arg(long)]
    pub reconnect: bool,
}

#[derive(Debug, Args)]
pub struct Serve {
    /// Answer METHOD with the output of a shell command; may be repeated
    #[arg(long = "handler", value_name = "METHOD=PROGRAM", value_parser = handler)]
    pub handlers: Vec<(String, String)>,
    /// How many handlers run at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: u16,
    /// Connect again when the VM goes away and comes back
    #[arg(long)]
    pub reconnect: bool,
}

#[derive(Debug, Subcommand)]
pub enum ToHostCommand {
    /// Call a method of the host, through your own user daemon
    #[command(after_help = "\
Run this inside the guest, as a user whose user daemon runs; it uses
$XDG_RUNTIME_DIR/virtagent/control.sock.

Examples:
  virtagent to-host call va.ping
  virtagent to-host call ticket.open title='No sound' priority=2
  virtagent to-host call host.event topic=backup.done data='{\"bytes\": 1234}'")]
    Call(Call),
}

/// `500ms`, `30s`, `5m`, `2h`, `1m30s`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a duration: {text:?} (want 500ms, 30s, 5m or 2h)");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| wrong());
    }
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest[..end].trim() {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        rest = &rest[end..];
        let part = Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    Ok(total)
}

fn user(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return Err("want a user's name, a UID or @active".to_owned());
    }
    if text.starts_with('@') && text != "@active" {
        return Err("the only such name is @active".to_owned());
    }
    Ok(text.to_owned())
}

fn permissions(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err("want octal permission bits, such as 644".to_owned()),
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("want NAME=VALUE".to_owned()),
    }
}

fn handler(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((method, program)) if !method.is_empty() && !program.trim().is_empty() => {
            Ok((method.to_owned(), program.to_owned()))
        }
        _ => Err("want METHOD=PROGRAM, such as ticket.open=/usr/local/bin/open-ticket".to_owned()),
    }
}
