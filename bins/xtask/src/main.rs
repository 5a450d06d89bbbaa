//! virtagent's developer tool, run as `cargo xtask`: demo, tests, bench, packages, manual pages and the VM image.
//! It prints each command that it runs. It must never change the machine beyond apt packages (told in advance) and `target/`.
#![allow(
    clippy::disallowed_methods,
    reason = "a tool that starts programs and waits for them, outside of any event loop"
)]

mod apt;
mod bench;
mod demo;
mod fuzz;
mod image;
mod man;
mod package;
mod step;
mod test;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// virtagent's developer tool.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the main job: builds, starts the daemons, and tours the host command against them
    Demo(demo::Options),
    /// Runs everything that has to hold: format, lints, docs, packages, fuzzing, tests, the virtual machine
    Test(test::Options),
    /// Builds virtagent-guest and virtagent-host as .deb files in target/debian
    Package,
    /// Builds the Debian image that the VM test boots, or reuses it while its inputs are the same
    Image(image::Options),
    /// Measures virtagent beside qemu-ga, alternating, and draws a chart
    Bench(bench::Options),
    /// Generates the manual pages and shell completions into target/assets
    Man,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Package => package::run().map(|_| ()),
        Command::Image(options) => image::run(&options).map(|_| ()),
        Command::Bench(options) => bench::run(&options),
        Command::Man => man::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Its causes, and no backtrace: this is for whoever runs the tool.
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}
