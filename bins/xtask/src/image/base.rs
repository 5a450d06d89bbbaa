//! The base layer: a Debian root tree as a tar, its kernel, and an initramfs for both.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{hash, initramfs, whole};
use crate::step;

/// What the guest needs to be a machine with users and sessions; qemu-guest-agent is a second way in, and the bench's peer.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "dbus-user-session",
    "libpam-systemd",
    "udev",
    "kmod",
    "iproute2",
    "sudo",
    "passwd",
    "procps",
    "e2fsprogs",
    "qemu-guest-agent",
    "linux-image-cloud-amd64",
];

const CUSTOMIZE: &str = include_str!("base.sh");

/// The base layer of this release, built or found.
pub fn build(vm: &Path, suite: &str) -> Result<PathBuf> {
    let (packages, modules) = (PACKAGES.join(","), initramfs::MODULES.join(","));
    let inputs = [suite, &packages, CUSTOMIZE, initramfs::INIT, &modules].map(str::as_bytes);
    let base = vm.join(format!("base-{}", hash(&inputs)));
    if base.join("root.tar").exists() {
        step::note("the base layer is there already");
        return Ok(base);
    }
    step::note("building the base layer: this downloads some 100 MB and takes about a minute");
    whole(&base, |part| {
        let tar = part.join("root.tar");
        bootstrap(suite, &tar)?;
        initramfs::build(&tar, part)
    })?;
    Ok(base)
}

fn bootstrap(suite: &str, tar: &Path) -> Result<()> {
    let mode = if step::is_root() { "root" } else { "unshare" };
    let mut argv =
        vec!["mmdebstrap".to_owned(), format!("--mode={mode}"), "--variant=minbase".to_owned(), "--quiet".to_owned()];
    argv.push(format!("--include={}", PACKAGES.join(",")));
    for place in ["man", "doc", "locale", "info", "lintian"] {
        argv.push(format!("--dpkgopt=path-exclude=/usr/share/{place}/*"));
    }
    argv.push("--aptopt=Acquire::Languages \"none\"".to_owned());
    // As a file that the user namespace's root can read too.
    let hook = tempfile::Builder::new().prefix("virtagent-base-").suffix(".sh").tempfile()?;
    fs::write(hook.path(), format!("#!/bin/sh\n{CUSTOMIZE}"))?;
    fs::set_permissions(hook.path(), fs::Permissions::from_mode(0o755))?;
    let hook = hook.into_temp_path();
    argv.push(format!("--customize-hook={}", hook.display()));
    argv.push(suite.to_owned());
    argv.push(tar.display().to_string());
    step::run(&mut step::command(&argv)).with_context(|| match mode {
        "root" => "the base system could not be made".to_owned(),
        _ => {
            "the base system could not be made as an ordinary user, which takes user namespaces and a line for you in \
              /etc/subuid and /etc/subgid (package uidmap); or run this as root"
                .to_owned()
        }
    })
}
