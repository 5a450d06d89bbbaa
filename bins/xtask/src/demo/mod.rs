//! `cargo xtask demo`: the main job, for a newcomer to watch. Each command is printed before its output, and each
//! outcome is checked: a demo that does not do what it says ends with an error.

mod cleanup;
mod guest;
mod local;
mod tour;

use anyhow::Result;

#[derive(clap::Args)]
pub struct Options {
    /// In a booted Debian guest rather than on a unix socket of this machine
    #[arg(long)]
    vm: bool,
    /// Leave missing apt packages missing, and fail
    #[arg(long)]
    no_install: bool,
}

/// `cargo xtask demo`.
pub fn run(options: &Options) -> Result<()> {
    // Before anything is started that a signal would leave behind.
    cleanup::on_signals()?;
    if options.vm { guest::run(!options.no_install) } else { local::run() }
}
