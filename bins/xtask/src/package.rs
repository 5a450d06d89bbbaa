//! `cargo xtask package`: virtagent-guest and virtagent-host as .deb files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{apt, man, step, tree};

const CARGO_DEB: &str = "3.8.0";

/// Builds both packages and says where they are, the guest's first.
pub fn run() -> Result<Vec<PathBuf>> {
    apt::ensure(&[apt::PACKAGE], true)?;
    let cargo_deb = cargo_deb()?;
    man::run()?;
    step::say("release binaries");
    step::run(&mut step::cargo("build --release --locked -p virtagentd -p virtagent"))?;
    step::say("packages");
    let dir = tree::target().join("debian");
    let mut packages = Vec::new();
    for (member, package) in [("virtagentd", "virtagent-guest"), ("virtagent", "virtagent-host")] {
        // Named without a version, so that an older version's file is never taken for this one.
        let file = dir.join(format!("{package}.deb"));
        let mut build = step::command(&[cargo_deb.as_os_str()]);
        build.args(["-p", member, "--no-build", "--locked", "--quiet", "--output"]).arg(&file);
        step::run(&mut build)?;
        if !file.exists() {
            bail!("cargo-deb succeeded and left no {}", file.display());
        }
        packages.push(file);
    }
    for package in &packages {
        step::note(&format!("{} ({} KiB)", package.display(), fs::metadata(package)?.len() / 1024));
    }
    Ok(packages)
}

/// cargo-deb of the version that we know, installed under `target/` where it is missing.
fn cargo_deb() -> Result<PathBuf> {
    let tools = tree::root().join("target/tools");
    let program = tools.join("bin/cargo-deb");
    let version = std::process::Command::new(&program).arg("--version").output();
    if version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(CARGO_DEB)) {
        return Ok(program);
    }
    step::say("cargo-deb");
    step::note("installing it under target/tools: this takes some minutes, once");
    let mut install = step::cargo("install --locked cargo-deb --version");
    step::run(install.arg(CARGO_DEB).arg("--root").arg(&tools))
        .context("cargo-deb could not be installed; it needs the network")?;
    Ok(program)
}
