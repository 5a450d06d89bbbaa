//! apt packages that a command needs: told before they are installed, by root or through sudo.

use anyhow::{Result, bail};

use crate::step;

/// One package and the program by which we know that it is there.
pub struct Need {
    pub package: &'static str,
    pub program: &'static str,
}

const fn need(package: &'static str, program: &'static str) -> Need {
    Need { package, program }
}

/// What building the image and booting it takes.
pub const VM: &[Need] = &[
    need("qemu-system-x86", "qemu-system-x86_64"),
    need("mmdebstrap", "mmdebstrap"),
    need("busybox-static", "busybox"),
    need("cpio", "cpio"),
    need("e2fsprogs", "mke2fs"),
    need("xz-utils", "xz"),
    need("util-linux", "setpriv"),
];

/// What cargo-deb takes.
pub const PACKAGE: &[Need] = &[need("dpkg-dev", "dpkg-shlibdeps")];

/// What the local tests take.
pub const TEST: &[Need] = &[need("python3", "python3"), need("socat", "socat")];

/// Installs what is missing of `needs`.
///
/// # Errors
/// When something is missing and this is neither root nor an account with sudo, or `install` is false.
pub fn ensure(needs: &[&[Need]], install: bool) -> Result<()> {
    let missing: Vec<&str> =
        needs.iter().copied().flatten().filter(|need| !step::have(need.program)).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !install {
        bail!("missing packages, and --no-install was given; install them with: apt-get install {list}");
    }
    if !step::have("apt-get") {
        bail!("these programs' packages (by their Debian names) are missing, and there is no apt-get here: {list}");
    }
    if !step::is_root() && !step::have("sudo") {
        bail!("missing packages, and this is neither root nor is sudo there; ask root for: apt-get install {list}");
    }
    step::say("apt packages");
    step::note(&format!("going to install: {list}"));
    apt(&["update", "-q"])?;
    if missing.contains(&"qemu-system-x86") && newer_qemu_utils() {
        step::note("qemu-utils of another release is installed and would block QEMU: removing it");
        apt(&["remove", "-y", "-q", "qemu-utils"])?;
    }
    apt(&[&["install", "-y", "-q", "--no-install-recommends"], missing.as_slice()].concat())
}

fn apt(words: &[&str]) -> Result<()> {
    let mut argv = if step::is_root() { vec![] } else { vec!["sudo"] };
    argv.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    argv.extend(words);
    step::run(&mut step::command(&argv))
}

/// Whether the installed qemu-utils is not the one that this release's QEMU goes with.
fn newer_qemu_utils() -> bool {
    let version = |argv: &[&str]| {
        let output = step::command(argv).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(installed) = version(&["dpkg-query", "-W", "-f=${Version}", "qemu-utils"]).filter(|it| !it.is_empty())
    else {
        return false;
    };
    let candidate = version(&["apt-cache", "policy", "qemu-system-x86"]).unwrap_or_default();
    let candidate = candidate.lines().find_map(|line| line.trim().strip_prefix("Candidate: ")).unwrap_or_default();
    upstream(&installed) != upstream(candidate)
}

/// The part before Debian's own revision.
fn upstream(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}
