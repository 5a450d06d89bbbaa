//! The second layer: the base tree with our packages installed, as a disk image, with the host command of the same build beside it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{as_root, hash, whole};
use crate::step;

const SCRIPT: &str = include_str!("layer.sh");

/// The image of this base with these packages, built or found.
pub fn build(vm: &Path, base: &Path, packages: &[PathBuf]) -> Result<PathBuf> {
    let mut inputs = vec![SCRIPT.as_bytes().to_vec(), base.as_os_str().as_encoded_bytes().to_vec()];
    for package in packages {
        inputs.push(fs::read(package).with_context(|| format!("can't read {}", package.display()))?);
    }
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let image = vm.join(format!("image-{}", hash(&inputs)));
    if image.join("disk.img").exists() {
        step::note("the image is there already");
        return Ok(image);
    }
    whole(&image, |part| {
        disk(base, packages, &part.join("disk.img"))?;
        for file in ["vmlinuz", "initrd.cpio"] {
            let (from, to) = (base.join(file), part.join(file));
            fs::hard_link(&from, &to).with_context(|| format!("can't link {} to {}", from.display(), to.display()))?;
        }
        host_command(packages, part)
    })?;
    Ok(image)
}

fn disk(base: &Path, packages: &[PathBuf], disk: &Path) -> Result<()> {
    // A user namespace's root owns neither target/ nor the way to it, so the work is done where everybody may.
    let scratch = tempfile::Builder::new().prefix("virtagent-image-").tempdir()?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
    let made = scratch.path().join("disk.img");
    let mut inputs = Vec::new();
    for file in std::iter::once(&base.join("root.tar")).chain(packages) {
        inputs.push(if step::is_root() { file.clone() } else { copied(file, scratch.path())? });
    }
    let mut argv: Vec<&OsStr> = ["sh", "-c", SCRIPT, "layer.sh"].map(OsStr::new).to_vec();
    argv.extend([scratch.path().as_os_str(), made.as_os_str()]);
    argv.extend(inputs.iter().map(|file| file.as_os_str()));
    let outcome = step::run(&mut as_root(&argv)).and_then(|()| {
        let mut copy = step::command(&["cp", "--sparse=always"]);
        step::run(copy.arg(&made).arg(disk))
    });
    // The tree may belong to others than us; the directory itself is ours.
    let root = scratch.path().join("root");
    step::run(&mut as_root(&["rm".as_ref(), "-rf".as_ref(), root.as_os_str(), made.as_os_str()]))?;
    outcome
}

fn copied(file: &Path, dir: &Path) -> Result<PathBuf> {
    let copy = dir.join(file.file_name().context("an input has no name")?);
    fs::copy(file, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644))?;
    Ok(copy)
}

/// The `virtagent` that the packages carry, for the tests to use against the guest.
fn host_command(packages: &[PathBuf], out: &Path) -> Result<()> {
    let is_host =
        |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("virtagent-host"));
    let Some(package) = packages.iter().find(is_host) else { return Ok(()) };
    let work = tempfile::tempdir()?;
    let mut extract = step::command(&["dpkg-deb", "--extract"]);
    step::run(extract.arg(package).arg(work.path()))?;
    fs::copy(work.path().join("usr/bin/virtagent"), out.join("virtagent"))
        .context("virtagent-host carries no usr/bin/virtagent")?;
    Ok(())
}
