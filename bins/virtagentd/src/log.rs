//! Where the daemon's messages go: to journald with structured fields where it runs under systemd, else to standard
//! error.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sets up the messages; `-v` is debug, `-vv` trace.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // journald set this up: standard error is its stream (systemd.exec(5), $JOURNAL_STREAM).
    let under_journald = std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal();
    let journal = if under_journald { tracing_journald::layer().ok() } else { None };
    match journal {
        Some(journal) => {
            let journal =
                journal.with_field_prefix(Some("VIRTAGENT".into())).with_syslog_identifier("virtagentd".into());
            tracing_subscriber::registry().with(level).with(journal).init();
        }
        None => {
            let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(verbose > 0);
            let lines = lines.with_ansi(std::io::stderr().is_terminal()).without_time();
            tracing_subscriber::registry().with(level).with(lines).init();
        }
    }
}
