//! The bench in a virtual machine: both agents in one guest, each on a port of its own, and a port with an echo.

use std::time::Duration;

use anyhow::{Context, Result};
use virtagent_tests::image::{Image, kvm_works};
use virtagent_tests::vm::{LIMIT, Vm};

use crate::agent::{Agent, first_answer};
use crate::qga::Qga;
use crate::raw::Raw;
use crate::rounds::{self, Bench, Effort, Pids};
use crate::table::Table;
use crate::va::Va;

const USER: &str = "alice";
/// In the guest's memory.
const DIR: &str = "/run/bench";
/// The port that no daemon has open here echoes.
const ECHO: &str = "exec 3<>/dev/virtio-ports/org.qemu.virtagent.user; cat <&3 >&3";

/// Measures everything in a guest.
pub fn run(effort: Effort) -> Result<Table> {
    let how = if kvm_works() { "KVM" } else { "TCG: emulated" };
    let mut table = Table::new(format!("In one guest, virtio-serial ({how})"));
    eprintln!("   booting the guest");
    let mut vm = Vm::boot(Image::current()?)?;
    vm.wait_ready()?;
    vm.wait("alice's session", |vm| {
        let users = vm.host_ok(&["--json", "users"])?;
        Ok(users.contains(&format!("\"{USER}\"")).then_some(()))
    })?;
    let mut bench = connect(&vm)?;
    bench.qga.run(&["/bin/mkdir", "-p", DIR])?;
    let pids = "systemctl show -p MainPID --value virtagentd; pgrep -o -u alice virtagentd; pidof qemu-ga";
    let text = bench.qga.run(&["/bin/sh", "-c", pids])?;
    let pids: Vec<u32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [system, user, qga] = pids[..] else { anyhow::bail!("not three daemons in the guest: {text:?}") };
    bench.pids = Pids { system, user, qga };

    bench.memory("idle", &mut table)?;
    let mut bench = rounds::idle(effort, bench, &mut table, |bench| {
        let pids = bench.pids;
        drop(bench);
        std::thread::sleep(rounds::absence(effort));
        Ok(Bench { pids, ..connect(&vm)? })
    })?;
    bench.raw = echo(&vm, &mut bench).inspect_err(|error| eprintln!("   no raw channel beside it: {error:#}")).ok();
    bench.rounds(effort, &mut table)?;
    bench.memory("after load", &mut table)?;
    Ok(table)
}

fn connect(vm: &Vm) -> Result<Bench> {
    let va = first_answer(LIMIT, || Va::connect(&vm.socket(), Duration::from_secs(5)))?;
    let qga = first_answer(LIMIT, || Qga::connect(&vm.qga_socket(), Duration::from_secs(5)))?;
    let pids = Pids { system: 0, user: 0, qga: 0 };
    Ok(Bench { va, qga, raw: None, user: USER.into(), pids, dir: DIR.into(), guest: true })
}

fn echo(vm: &Vm, bench: &mut Bench) -> Result<Raw> {
    // The host first: an echo that finds nobody there ends.
    let mut raw = Raw::behind(&vm.direct_socket())?;
    bench.qga.run(&["/bin/systemd-run", "--quiet", "/bin/sh", "-c", ECHO])?;
    raw.ping().context("the echo in the guest")?;
    Ok(raw)
}
