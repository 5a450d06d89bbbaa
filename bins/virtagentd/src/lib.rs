//! The guest daemon, both levels.
//!
//! A daemon with modules of one's own is a program of three lines: name the module's crate and call [`run`]; see
//! `docs/writing-a-module.md`.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `cli` | the command line |
//! | `system`, `user` | the two daemons |
//! | `running` | what they share: signals, readiness, the router's life |
//! | `become_user` | from root to a user, for good |
//! | `lock` | one user daemon a user |
//! | `background` | `-d` |
//! | `log` | where messages go |
//! | `tools` | `policy test`, `audit verify`, `audit show` |
#![forbid(unsafe_code)]

mod background;
mod become_user;
pub mod cli;
mod lock;
mod log;
mod running;
mod system;
mod tools;
mod user;

use std::process::ExitCode;

use agent_core::config::Config;
use agent_core::module::{Descriptor, Level, Levels};
use agent_core::router::check_modules;
use anyhow::Context;
use clap::Parser;

use self::cli::Cli;

// Names the shipped modules, so that the linker keeps what they register.
use virtagent_modules as _;

/// The exit status of a user daemon that another one of the same user replaced.
const REPLACED: u8 = 150;

/// How a daemon ended without an error.
enum Ended {
    /// By SIGTERM or SIGINT.
    Stopped,
    /// Another user daemon took over.
    Replaced,
}

/// The whole program: reads the command line, and is the daemon or the tool that it asks for.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match act(cli) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn act(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(tool) = cli.tool {
        return tools::run(tool);
    }
    if cli.list_modules {
        print(&list_modules());
        return Ok(ExitCode::SUCCESS);
    }
    if cli.user_daemon && become_user::needed(&cli)? {
        // Does not come back: the same program goes on as that user.
        return Err(become_user::go(&cli));
    }
    if cli.check_config {
        let config = actix::System::new().block_on(async { load(&cli) })?;
        print(&format!("the configuration is sound: {}", config.sources.join(", ")));
        return Ok(ExitCode::SUCCESS);
    }
    if cli.daemonize {
        return background::start();
    }
    background::settle();
    log::init(cli.verbose);
    let ended = actix::System::new().block_on(async {
        let config = load(&cli)?;
        if cli.user_daemon { user::run(&cli, config).await } else { system::run(&cli, config).await }
    })?;
    Ok(match ended {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Replaced => ExitCode::from(REPLACED),
    })
}

/// The configuration of the level that the command line asks for, checked against the modules. Wants a runtime.
fn load(cli: &Cli) -> anyhow::Result<Config> {
    let user = user::own()?;
    let (config, level) = match cli.user_daemon {
        true => (Config::load_user(cli.config.as_deref(), &user.home), Level::User),
        false => (Config::load(cli.config.as_deref()), Level::System),
    };
    let config = config.context("configuration")?;
    check_modules(&config, level, &user).map_err(anyhow::Error::msg).context("configuration")?;
    Ok(config)
}

fn list_modules() -> String {
    let mut text = String::new();
    for module in Descriptor::all() {
        let level = match module.levels {
            Levels::System => "system",
            Levels::User => "user",
            Levels::Both => "system, user",
        };
        let methods: Vec<_> = (module.specs)().iter().map(|spec| spec.name).collect();
        text += &format!("{:<12} {:<8} {:<13} {}\n", module.name, module.version, level, methods.join(" "));
    }
    text.trim_end().to_owned()
}

/// What was asked for, on standard output; a reader that went away is no failure.
fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// One line on standard error.
fn complain(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "virtagentd: {text}");
}
