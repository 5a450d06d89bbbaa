//! `cargo xtask bench`: starts the measuring program, built as what it measures is, with what it needs in place.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::apt::{self, Need};
use crate::{image, package, step, tree};

#[derive(clap::Args)]
pub struct Options {
    /// Measure in a booted guest too, both agents on ports of one VM
    #[arg(long)]
    vm: bool,
    /// In a guest only
    #[arg(long, conflicts_with = "vm")]
    only_vm: bool,
    /// Fewer rounds: a look, not a figure to be told
    #[arg(long)]
    quick: bool,
    /// One group of measurements alone
    #[arg(long, value_name = "GROUP", value_parser = ["pings", "files", "runs"])]
    only: Option<String>,
    /// Where bench.json and bench.svg go [default: target/bench]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leave missing apt packages missing, and fail
    #[arg(long)]
    no_install: bool,
}

/// The agent that virtagent is compared with. Its own service is no part of it: the bench starts one of its own.
const PEER: &[Need] = &[Need { package: "qemu-guest-agent", program: "qemu-ga" }];

pub fn run(options: &Options) -> Result<()> {
    let in_guest = options.vm || options.only_vm;
    if !options.only_vm {
        apt::ensure(&[PEER], !options.no_install)?;
    }
    if in_guest {
        apt::ensure(&[apt::VM, apt::PACKAGE], !options.no_install)?;
        image::build(&image::default_suite(), &package::run()?)?;
    }
    step::say("release binaries");
    // Each with its own features, as in the packages.
    step::run(&mut step::cargo("build --release --locked -p virtagentd"))?;
    step::run(&mut step::cargo("build --release --locked -p virtagent-tests --bin bench"))?;

    step::say("measuring; leave the machine alone meanwhile");
    let out = options.out.clone().unwrap_or_else(|| tree::target().join("bench"));
    let mut bench = step::command(&[tree::target().join("release/bench")]);
    bench.arg("--out").arg(std::path::absolute(out).context("--out")?);
    let flags = [("--vm", options.vm), ("--only-vm", options.only_vm), ("--quick", options.quick)];
    bench.args(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| flag));
    if let Some(group) = &options.only {
        bench.args(["--only", group]);
    }
    step::run(&mut bench)
}
