//! `cargo xtask test`: everything that has to hold, the summary of the tests last.

use anyhow::{Context, Result};

use crate::{apt, fuzz, image, package, step};

#[derive(clap::Args)]
pub struct Options {
    /// Leave the virtual machine out
    #[arg(long)]
    no_vm: bool,
    /// Leave missing apt packages missing, and fail
    #[arg(long)]
    no_install: bool,
    /// How long each fuzz target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    fuzz_seconds: u32,
}

/// `cargo xtask test`.
pub fn run(options: &Options) -> Result<()> {
    let vm: &[apt::Need] = if options.no_vm { &[] } else { apt::VM };
    apt::ensure(&[apt::TEST, apt::PACKAGE, vm], !options.no_install)?;

    step::say("format");
    step::run(&mut step::cargo("fmt --all --check"))?;
    step::say("lints");
    step::run(step::cargo("clippy --quiet --workspace --all-targets --locked -- -D warnings").env_remove("RUSTFLAGS"))?;
    step::say("documentation");
    step::run(step::cargo("doc --quiet --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings"))?;
    step::say("licences and advisories");
    if step::works(&mut step::cargo("deny --version")) {
        step::run(&mut step::cargo("deny --workspace check"))?;
    } else {
        step::note("skipped: no cargo-deny (cargo install --locked cargo-deny)");
    }

    if options.no_vm {
        step::note("the virtual machine is left out: --no-vm");
    } else {
        let packages = package::run()?;
        image::build(&image::default_suite(), &packages)?;
    }

    fuzz::run(options.fuzz_seconds)?;

    step::say("doc tests");
    step::run(&mut step::cargo("test --quiet --workspace --doc --locked"))?;
    step::say("tests");
    // The end-to-end tests start the programs, which a test of another package does not build by itself.
    step::run(&mut step::cargo("build --workspace --bins --locked"))?;
    tests(options.no_vm)
}

fn tests(no_vm: bool) -> Result<()> {
    let nextest = step::works(&mut step::cargo("nextest --version"));
    let mut tests = match (nextest, no_vm) {
        (true, false) => step::cargo("nextest run --workspace --locked"),
        (true, true) => {
            let mut tests = step::cargo("nextest run --workspace --locked -E");
            tests.arg("not (binary(e2e) and test(/^vm::/))");
            tests
        }
        (false, false) => step::cargo("test --workspace --all-targets --locked"),
        (false, true) => step::cargo("test --workspace --all-targets --locked -- --skip vm::"),
    };
    step::run(&mut tests).context("the tests did not pass")
}
