//! The fuzz targets of `tests/fuzz`, each for a short while, with the nightly toolchain and no cargo-fuzz.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::{step, tree};

const TARGETS: &[&str] = &["frame", "xml", "json", "cbor", "policy"];

/// What cargo-fuzz passes too: the fuzzer's view of the code's edges, and the address sanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1 -Zsanitizer=address";

/// Builds and runs each target for `seconds`, from its seed corpus. Without nightly it says so and is done.
pub fn run(seconds: u32) -> Result<()> {
    step::say("fuzz targets");
    let manifest = tree::root().join("tests/fuzz/Cargo.toml");
    if !step::works(&mut step::cargo("+nightly --version")) {
        step::note("skipped: no nightly toolchain (rustup toolchain install nightly)");
        return Ok(());
    }
    // An explicit --target keeps the flags off build scripts.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let out = tree::target().join("fuzz");
    let mut build = step::cargo("+nightly build --release --bins --target");
    build.arg(&triple).arg("--manifest-path").arg(&manifest).env("CARGO_TARGET_DIR", &out);
    // rustup sets this one for the toolchain that runs us.
    build.env_remove("RUSTUP_TOOLCHAIN").env("RUSTFLAGS", FLAGS);
    step::run(&mut build)?;
    for name in TARGETS {
        one(&out.join(&triple).join("release").join(name), name, seconds)?;
    }
    Ok(())
}

fn one(program: &Path, name: &str, seconds: u32) -> Result<()> {
    // Finds go to target/, so that the seeds in the repository stay as they are.
    let found = tree::target().join("fuzz/corpus").join(name);
    let crashes = tree::target().join("fuzz/crashes").join(name);
    for dir in [&found, &crashes] {
        fs::create_dir_all(dir)?;
    }
    let mut fuzz = step::command(&[program]);
    fuzz.args([format!("-max_total_time={seconds}"), "-print_final_stats=1".into(), "-verbosity=0".into()]);
    fuzz.args(["-rss_limit_mb=2048", "-timeout=10"])
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg(&found);
    let seeds = tree::root().join("tests/fuzz/corpus").join(name);
    if seeds.is_dir() {
        fuzz.arg(seeds);
    }
    step::run(&mut fuzz).with_context(|| format!("the fuzz target {name} found something: {}", crashes.display()))
}
