//! The fuzz targets of `tests/fuzz`, each for a short while, with the nightly toolchain and no cargo-fuzz.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{step, tree};

/// Builds and runs each target for `seconds`, from its seed corpus. Without nightly it says so and is done.
pub fn run(seconds: u32) -> Result<()> {
    step::say("fuzz targets");
    if !step::works(&mut step::cargo("+nightly --version")) {
        step::note("skipped: no nightly toolchain (rustup toolchain install nightly)");
        return Ok(());
    }
    let fuzz = tree::root().join("tests/fuzz");
    let names = names(&fuzz.join("fuzz_targets"))?;
    let out = tree::target().join("fuzz");
    // Its own .cargo/config.toml, found from its directory, has the flags that cargo-fuzz would pass.
    let mut build = step::cargo("+nightly build --quiet --release --locked --bins");
    build.current_dir(&fuzz).env("CARGO_TARGET_DIR", &out).env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
    step::note("building them takes some minutes, once");
    step::run(&mut build)?;
    let programs = out.join(format!("{}-unknown-linux-gnu/release", std::env::consts::ARCH));
    names.iter().try_for_each(|name| one(&fuzz, &programs.join(name), name, seconds))
}

/// A target for each file.
fn names(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("can't list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "no fuzz targets in {}", dir.display());
    Ok(names)
}

fn one(fuzz: &Path, program: &Path, name: &str, seconds: u32) -> Result<()> {
    // Finds go to target/, so that the seeds in the repository stay as they are.
    let corpus = tree::target().join("fuzz/corpus").join(name);
    let crashes = tree::target().join("fuzz/crashes").join(name);
    for dir in [&corpus, &crashes] {
        fs::create_dir_all(dir)?;
    }
    let mut command = step::command(&[program]);
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-artifact_prefix={}/", crashes.display()));
    command.args(["-print_final_stats=1", "-verbosity=0", "-rss_limit_mb=2048", "-timeout=10"]).arg(&corpus);
    let seeds = fuzz.join("corpus").join(name);
    if seeds.is_dir() {
        command.arg(seeds);
    }
    step::run(&mut command)
        .with_context(|| format!("the fuzz target {name} found something, see {}", crashes.display()))
}
