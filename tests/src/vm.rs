//! One booted guest: QEMU, its channels as unix sockets, and the host command against it. It goes when this value goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::image::{self, Image};
use crate::qga::{Ended, Qga};
use crate::{process, wait};

/// How long a guest may take for anything; emulation on a busy machine is slow, and a hang is seen soon enough.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Quiet, quick, and with nothing random in how long it takes.
const KERNEL: &str = "root=/dev/vda rw rootfstype=ext4 console=ttyS0 quiet loglevel=3 mitigations=off nokaslr no_timer_check \
    tsc=reliable random.trust_cpu=on audit=0 lsm=landlock,yama net.ifnames=0 systemd.show_status=false \
    modprobe.blacklist=kvm_amd,kvm_intel,powernow_k8";

/// A running guest.
pub struct Vm {
    dir: tempfile::TempDir,
    image: Image,
    qemu: Child,
    started: Instant,
    qga: Option<Qga>,
}

impl Vm {
    /// Starts a guest on a throw-away view of the image's disk. It is not yet up: see [`Vm::wait_ready`].
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn boot(image: Image) -> Result<Vm> {
        let dir = tempfile::Builder::new().prefix("virtagent-vm-").tempdir()?;
        let log = fs::File::create(dir.path().join("qemu.log"))?;
        let mut command = qemu(&image, dir.path(), image::kvm_works());
        let qemu = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("can't start {}", process::shown(&command)))?;
        let mut vm = Vm { dir, image, qemu, started: Instant::now(), qga: None };
        let qmp = vm.dir.path().join("qmp.sock");
        vm.wait("QEMU's sockets", |_| Ok(qmp.exists().then_some(())))?;
        Ok(vm)
    }

    /// Boots the current image and waits until the guest's daemon answers the host command.
    ///
    /// # Errors
    /// When there is no image, or no answer within [`LIMIT`].
    pub fn boot_ready() -> Result<Vm> {
        let mut vm = Vm::boot(Image::current()?)?;
        vm.wait_ready()?;
        Ok(vm)
    }

    /// Waits until `virtagent ping` is answered, and says how long after the start that was.
    ///
    /// # Errors
    /// When it is not within [`LIMIT`].
    pub fn wait_ready(&mut self) -> Result<Duration> {
        self.wait("virtagentd's answer to a ping", |vm| {
            let output = vm.host_within(&["--timeout", "2s", "ping"], Duration::from_secs(10))?;
            Ok(output.status.success().then_some(()))
        })?;
        Ok(self.started.elapsed())
    }

    /// The channel's socket: `virtagent -s` takes it.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("va.sock")
    }

    /// The socket of the port for the active seat's user.
    pub fn direct_socket(&self) -> PathBuf {
        self.dir.path().join("direct.sock")
    }

    /// qemu-guest-agent's socket.
    pub fn qga_socket(&self) -> PathBuf {
        self.dir.path().join("qga.sock")
    }

    /// A directory that goes with the guest, for a test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// QEMU's process.
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// Since QEMU was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The host command with `-s SOCKET` given, not yet started.
    ///
    /// # Errors
    /// When the image carries none.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.image.host_command()?);
        command.arg("-s").arg(self.socket()).args(args);
        Ok(command)
    }

    /// Runs the host command to its end, whatever that is.
    ///
    /// # Errors
    /// When it does not end within [`LIMIT`].
    pub fn host(&self, args: &[&str]) -> Result<Output> {
        self.host_within(args, LIMIT)
    }

    fn host_within(&self, args: &[&str], limit: Duration) -> Result<Output> {
        process::run(&mut self.command(args)?, b"", limit)
    }

    /// What the host command printed, which has to succeed.
    ///
    /// # Errors
    /// When it fails, with what it said and the console's last lines.
    pub fn host_ok(&self, args: &[&str]) -> Result<String> {
        let what = format!("virtagent {}", args.join(" "));
        process::succeeded(&what, self.host(args)?).map_err(|error| self.explained(&error))
    }

    /// What the host command said on its standard error, which has to fail.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn host_refused(&self, args: &[&str]) -> Result<String> {
        let output = self.host(args)?;
        if output.status.success() {
            bail!("virtagent {} succeeded: {}", args.join(" "), String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The host command's output as JSON, asked for with `--json`.
    ///
    /// # Errors
    /// When it fails, or prints something else.
    pub fn host_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.host_ok(&[&["--json"], args].concat())?;
        serde_json::from_str(&text).with_context(|| format!("virtagent --json {}: {text}", args.join(" ")))
    }

    /// Runs a script in the guest as root, by qemu-guest-agent.
    ///
    /// # Errors
    /// When it does not end within [`LIMIT`].
    pub fn inside(&mut self, script: &str) -> Result<Ended> {
        if self.qga.is_none() {
            let limit = LIMIT.saturating_sub(self.age()).max(Duration::from_secs(20));
            self.qga = Some(Qga::connect(&self.qga_socket(), limit).map_err(|error| self.explained(&error))?);
        }
        self.qga.as_mut().context("no connection")?.run(script, LIMIT)
    }

    /// The output of a script in the guest, which has to succeed.
    ///
    /// # Errors
    /// When it fails.
    pub fn inside_ok(&mut self, script: &str) -> Result<String> {
        let ended = self.inside(script)?;
        if ended.code != 0 {
            bail!(
                "in the guest: {script}\nended with {}\n--- stdout\n{}--- stderr\n{}",
                ended.code,
                ended.stdout,
                ended.stderr
            );
        }
        Ok(ended.stdout)
    }

    /// Asks until there is an answer, as long as QEMU runs.
    ///
    /// # Errors
    /// After [`LIMIT`], or when QEMU ends, with the console's last lines.
    pub fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Vm) -> Result<Option<T>>) -> Result<T> {
        let answer = wait::until(LIMIT, what, || {
            if let Some(status) = self.qemu.try_wait()? {
                bail!("QEMU ended ({status}) while waiting for {what}");
            }
            ask(self)
        });
        answer.map_err(|error| self.explained(&error))
    }

    /// Waits until the guest is off, which ends QEMU.
    ///
    /// # Errors
    /// When it is not within [`LIMIT`].
    pub fn wait_off(&mut self) -> Result<ExitStatus> {
        let ended = wait::until(LIMIT, "the guest to power off", || Ok(self.qemu.try_wait()?));
        ended.map_err(|error| self.explained(&error))
    }

    /// The error, and below it the last lines of the guest's console.
    pub fn explained(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}\n{}", self.console_tail())
    }

    /// The last lines that the guest and QEMU wrote, for a failure's message.
    pub fn console_tail(&self) -> String {
        let mut text = String::new();
        for name in ["console.log", "qemu.log"] {
            let log = fs::read(self.dir.path().join(name)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(30)..];
            text += &format!("--- end of {name}\n{}\n", tail.join("\n"));
        }
        text
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// QEMU in a session of its own, so that no terminal's signal reaches it, and gone when the thread that started it is.
fn qemu(image: &Image, dir: &Path, kvm: bool) -> Command {
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "setsid", "qemu-system-x86_64", "-name", "virtagent-test"]);
    if kvm {
        qemu.args(["-machine", "q35,accel=kvm", "-cpu", "host"]);
    } else {
        qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max"]);
    }
    qemu.args(["-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot", "-append", KERNEL]);
    qemu.arg("-kernel").arg(image.file("vmlinuz")).arg("-initrd").arg(image.file("initrd.cpio"));
    // snapshot=on: the image itself is never written.
    qemu.arg("-drive").arg(format!("file={},if=none,id=disk,format=raw,snapshot=on", image.file("disk.img").display()));
    qemu.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]);
    for (id, port) in
        [("va", "org.qemu.virtagent"), ("direct", "org.qemu.virtagent.user"), ("qga", "org.qemu.guest_agent.0")]
    {
        let socket = dir.join(format!("{id}.sock"));
        qemu.arg("-chardev").arg(format!("socket,id={id},path={},server=on,wait=off", socket.display()));
        qemu.arg("-device").arg(format!("virtserialport,chardev={id},name={port}"));
    }
    qemu.arg("-serial").arg(format!("file:{}", dir.join("console.log").display()));
    qemu.arg("-qmp").arg(format!("unix:{},server=on,wait=off", dir.join("qmp.sock").display()));
    qemu
}
