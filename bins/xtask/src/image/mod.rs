//! `cargo xtask image`: the Debian guest of the VM test, in two layers so that a new package costs seconds.
//!
//! `target/vm/base-HASH/` holds the system without our packages (a tar, the kernel, an initramfs), `target/vm/image-HASH/` the
//! disk with them; a hash is that of all inputs. `target/vm/current` names the image that the tests boot.

mod base;
mod initramfs;
mod layer;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{apt, package, step, tree};

#[derive(clap::Args)]
pub struct Options {
    /// The Debian release of the guest [default: bookworm, or this machine's own where that is newer]
    #[arg(long, value_name = "CODENAME")]
    suite: Option<String>,
    /// An image without virtagent's packages
    #[arg(long)]
    bare: bool,
    /// Leave missing apt packages missing, and fail
    #[arg(long)]
    no_install: bool,
}

/// `cargo xtask image`.
pub fn run(options: &Options) -> Result<PathBuf> {
    apt::ensure(&[apt::VM], !options.no_install)?;
    let packages = if options.bare { vec![] } else { package::run()? };
    let suite = options.suite.clone().unwrap_or_else(default_suite);
    build(&suite, &packages)
}

/// The image with these packages, built or found.
pub fn build(suite: &str, packages: &[PathBuf]) -> Result<PathBuf> {
    step::say("VM image");
    let vm = tree::target().join("vm");
    fs::create_dir_all(&vm)?;
    let base = base::build(&vm, suite)?;
    let image = layer::build(&vm, &base, packages)?;
    let current = vm.join("current");
    let _ = fs::remove_file(&current);
    std::os::unix::fs::symlink(image.file_name().context("the image's directory has no name")?, &current)?;
    forget_others(&vm, &[&base, &image])?;
    step::note(&format!("image: {}", image.display()));
    Ok(image)
}

/// Packages built here must find their libc in the guest: a machine newer than Debian 12 gets a guest of its own release.
pub fn default_suite() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let ours = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    if ours == "trixie" { "trixie".to_owned() } else { "bookworm".to_owned() }
}

/// Removes the layers that no longer have a use, and what interrupted builds left.
fn forget_others(vm: &Path, keep: &[&Path]) -> Result<()> {
    for entry in fs::read_dir(vm)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ours = name.starts_with("base-") || name.starts_with("image-");
        if ours && !keep.contains(&path.as_path()) {
            step::note(&format!("removing the unused {name}"));
            fs::remove_dir_all(&path).with_context(|| format!("can't remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// A short hash of what something is made of.
fn hash(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Builds `DIR` beside its place and moves it there whole, so that a half-built layer is never used.
fn whole(dir: &Path, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let part = dir.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(&part)?;
    build(&part)?;
    fs::rename(&part, dir).with_context(|| format!("can't move {} into place", part.display()))
}

/// A command that needs root's rights over files: as it is for root, in a user namespace for others.
fn as_root(argv: &[&std::ffi::OsStr]) -> std::process::Command {
    let helper = ["mmdebstrap".as_ref(), "--unshare-helper".as_ref()];
    let prefix: &[&std::ffi::OsStr] = if step::is_root() { &[] } else { &helper };
    step::command(&[prefix, argv].concat())
}
