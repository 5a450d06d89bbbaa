//! Where `cargo xtask image` left the guest, and how fast it may run here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process;

/// A guest's disk, kernel and initramfs, and the host command of the same build.
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// The image that `target/vm/current` names; `$VIRTAGENT_VM_IMAGE` names another.
    ///
    /// # Errors
    /// When there is none.
    pub fn current() -> Result<Image> {
        let dir = match std::env::var_os("VIRTAGENT_VM_IMAGE") {
            Some(dir) => PathBuf::from(dir),
            None => process::target().join("vm/current"),
        };
        Image::at(dir)
    }

    /// The image in this directory.
    ///
    /// # Errors
    /// When a part of it is missing.
    pub fn at(dir: PathBuf) -> Result<Image> {
        for file in ["disk.img", "vmlinuz", "initrd.cpio"] {
            if !dir.join(file).is_file() {
                bail!("no VM image: {} is missing; build it with `cargo xtask image`", dir.join(file).display());
            }
        }
        Ok(Image { dir: fs::canonicalize(dir)? })
    }

    /// One of the image's files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The `virtagent` of virtagent-host, of the same build as what is in the guest.
    ///
    /// # Errors
    /// When the image was built without packages.
    pub fn host_command(&self) -> Result<PathBuf> {
        let path = self.file("virtagent");
        if path.is_file() {
            Ok(path)
        } else {
            bail!("the image carries no packages: run `cargo xtask image` without --bare")
        }
    }
}

/// A boot sector that tells QEMU's exit device 0x10 and halts: mov al,0x10; mov dx,0x501; out dx,al; hlt; jmp $-1.
const PROBE: [u8; 9] = [0xb0, 0x10, 0xba, 0x01, 0x05, 0xee, 0xf4, 0xeb, 0xfd];

/// Whether a guest really runs under KVM here: `/dev/kvm` can be opened on machines where none ever does, so a small
/// guest is started. Where there is no answer within 5 s it is TCG.
pub fn kvm_works() -> bool {
    let opens = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    opens && probe().unwrap_or(false)
}

fn probe() -> Result<bool> {
    // One probe a boot of this machine.
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = process::target().join("vm/kvm-probe");
    if let Some(known) =
        fs::read_to_string(&answer).ok().and_then(|text| text.strip_prefix(boot.as_str()).map(str::to_owned))
    {
        return Ok(known == "works");
    }
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("probe.img");
    let mut sector = [0_u8; 512];
    sector[..PROBE.len()].copy_from_slice(&PROBE);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    fs::write(&disk, sector)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35,accel=kvm",
        "-cpu",
        "host",
        "-m",
        "32",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    qemu.args(["-device", "isa-debug-exit,iobase=0x501,iosize=1", "-drive"]);
    qemu.arg(format!("file={},format=raw,if=ide", disk.display()));
    let output = process::run(&mut qemu, b"", Duration::from_secs(5));
    // The device exits with twice the value and one.
    let works = output.is_ok_and(|output| output.status.code() == Some(0x21));
    let _ = fs::write(&answer, format!("{boot}{}", if works { "works" } else { "does not" }));
    Ok(works)
}
