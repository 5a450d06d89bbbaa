//! `virtagent`: the host's command.
//!
//! # Layout
//! | module | what it owns |
//! |---|---|
//! | `cli` | the command line and its help |
//! | `connect` | from `-s` and `--vm` to a connected stream |
//! | `client` | calls to the guest |
//! | `desk` | the guest's calls to the host |
//! | `commands` | one file a command |
//! | `process` | a program of the guest, connected to our streams |
//! | `transfer` | files: pipelined, verified, resumed |
//! | `terminal`, `output`, `json`, `params`, `failure` | what the user types and reads |
//!
//! Everything runs on one thread's event loop; blocking files and pipes are read and written on threads of their own.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod commands;
mod connect;
mod desk;
mod failure;
mod json;
mod output;
mod params;
mod process;
mod terminal;
mod transfer;

use std::process::ExitCode;

use clap::FromArgMatches;

use crate::cli::Cli;
use crate::failure::Failure;

fn main() -> ExitCode {
    let parsed = cli::cli().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let json = cli.global.json;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("virtagent: can't start: {error}"));
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // A thread that still waits for standard input must not keep the command alive.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Failure::BrokenPipe) => ExitCode::from(Failure::BrokenPipe.exit_code()),
        Err(failure) => {
            match json {
                true => output::note(&failure.to_json().to_string()),
                false => output::note(&format!("virtagent: {failure}")),
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Help goes where help goes; an error is one line.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if help || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(if help { 0 } else { 2 });
    }
    output::note(&format!("virtagent: {}", one_line(&error.render().to_string())));
    ExitCode::from(2)
}

/// clap's error without its usage paragraph, in one line.
fn one_line(text: &str) -> String {
    let paragraphs = text.trim().split("\n\n").filter(|part| !part.starts_with("Usage:"));
    let parts = paragraphs.map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let line = parts.collect::<Vec<_>>().join("; ").replace("; For more information, try '--help'.", "; try --help");
    line.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::{Cli, Command, cli, duration};

    #[test]
    fn the_command_line_is_consistent() {
        cli().debug_assert();
    }

    #[test]
    fn a_programs_own_options_are_not_ours() {
        let line = ["virtagent", "-u", "alice", "exec", "-C", "/srv", "ls", "-l", "--json", "-t"];
        let parsed = Cli::try_parse_from(line).unwrap();
        assert!(!parsed.global.json);
        let Command::Exec(exec) = parsed.command else { panic!("not exec") };
        assert!(!exec.tty);
        assert_eq!(exec.argv, ["ls", "-l", "--json", "-t"]);
    }

    #[test]
    fn global_options_work_after_the_command_too() {
        let parsed = Cli::try_parse_from(["virtagent", "ping", "-c", "1", "--vm", "x", "--timeout", "1m30s"]).unwrap();
        assert_eq!(parsed.global.vm.as_deref(), Some("x"));
        assert_eq!(parsed.global.timeout, Some(std::time::Duration::from_secs(90)));
    }

    #[test]
    fn an_error_of_the_command_line_is_one_line_with_a_way_on() {
        let error = Cli::try_parse_from(["virtagent", "pnig"]).unwrap_err();
        let line = super::one_line(&error.render().to_string());
        assert!(line.starts_with("unrecognized subcommand 'pnig'; tip: ") && line.ends_with("; try --help"), "{line}");
    }

    #[test]
    fn durations_are_numbers_with_units() {
        assert_eq!(duration("500ms").unwrap().as_millis(), 500);
        assert_eq!(duration("1.5").unwrap().as_millis(), 1500);
        assert_eq!(duration("0").unwrap().as_millis(), 0);
        assert_eq!(duration("2h").unwrap().as_secs(), 7200);
        for wrong in ["", "s", "5x", "-1", "1e400", "5 5", "inf"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_user_or_handler_is_refused_by_the_command_line() {
        for line in [
            &["virtagent", "-u", "@idle", "ping"][..],
            &["virtagent", "-u", "", "ping"],
            &["virtagent", "serve", "--handler", "x"],
            &["virtagent", "-s", "a", "--vm", "b", "ping"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }
}
