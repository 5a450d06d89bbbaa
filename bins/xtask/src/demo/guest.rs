//! The demo in a booted Debian guest, from the packages: alice and bob are logged in, systemd started their daemons.

use std::fs;

use anyhow::{Result, ensure};
use virtagent_tests::image::Image;
use virtagent_tests::vm::Vm;

use super::cleanup::Running;
use super::tour::{Tour, print_log};
use crate::{apt, image, package, step};

pub fn run(install: bool) -> Result<()> {
    apt::ensure(&[apt::VM, apt::PACKAGE], install)?;
    let packages = package::run()?;
    let dir = image::build(&image::default_suite(), &packages)?;

    step::say("booting the guest");
    let mut vm = Vm::boot(Image::at(dir.clone())?)?;
    Running::remember(vm.pid(), vm.dir());
    step::note(&format!("QEMU is process {}, the guest's console is in {}/console.log", vm.pid(), vm.dir().display()));
    let took = vm.wait_ready()?;
    step::note(&format!("the agent answered {:.1} s after the start", took.as_secs_f32()));

    let tour = Tour {
        dir: vm.dir().to_owned(),
        programs: dir,
        socket: "va.sock",
        system_user: "root".to_owned(),
        users: vec!["alice".to_owned(), "bob".to_owned()],
        guest_dir: "/srv".to_owned(),
    };
    vm.wait("the sessions of alice and bob", |vm| {
        let users = vm.host_ok(&["--json", "users"])?;
        Ok(tour.users.iter().all(|user| users.contains(&format!("\"{user}\""))).then_some(()))
    })?;

    let outcome = tour
        .first_part()
        .and_then(|()| call_the_host(&tour, &mut vm))
        .and_then(|()| refusal(&tour))
        .and_then(|()| log(&tour));
    outcome.map_err(|error| vm.explained(&error))?;

    tour.tell("And the machine's business: power off, by logind, answered before the machine goes down.");
    tour.host(&["power", "off"])?;
    let status = vm.wait_off()?;
    ensure!(status.success(), "QEMU ended with {status}");
    tour.say("(the guest is off, and QEMU ended)");
    Ok(())
}

fn call_the_host(tour: &Tour, vm: &mut Vm) -> Result<()> {
    tour.tell("The other direction: alice's own program calls the host, which answers with a program of its own.");
    // It tries until the host command below has the channel, which only one program at a time can have.
    let retry = "until virtagent to-host call demo.greet; do sleep 1; done >greeting.txt 2>/dev/null";
    tour.host(&["-u", "alice", "exec", "--", "systemd-run", "--user", "--quiet", "--same-dir", "sh", "-c", retry])?;
    let (mut serve, log) = tour.serve("demo.greet=echo \"\\\"hello $VIRTAGENT_USERNAME, says the host\\\"\"")?;
    vm.wait("alice's call", |_| Ok(fs::read_to_string(&log)?.contains("demo.greet").then_some(())))?;
    // It ends when it has answered.
    serve.end();
    print_log(&log)?;
    let greeting = tour.host(&["-u", "alice", "file", "cat", "greeting.txt"])?;
    ensure!(greeting.contains("hello alice, says the host"), "the host's answer was to greet alice");
    Ok(())
}

fn refusal(tour: &Tour) -> Result<()> {
    tour.tell("Policy is the guest owner's word; this guest's owner trusts the host. A user may narrow it: alice keeps a directory to herself.");
    let policy = "[[policy.rule]]\naction = \"deny\"\nmethod = \"file.*\"\npath = \"/home/alice/private/**\"\n";
    fs::write(tour.dir.join("policy.toml"), policy)?;
    tour.say(policy);
    tour.host(&["-u", "alice", "file", "mkdir", "-p", ".config/virtagent", "private"])?;
    tour.host(&["-u", "alice", "file", "put", "policy.toml", ".config/virtagent/policy.toml"])?;
    tour.host(&["-u", "alice", "exec", "--", "sh", "-c", "echo secret > private/diary"])?;
    tour.host(&["-u", "alice", "exec", "--", "systemctl", "--user", "reload", "virtagent-user"])?;
    tour.refused(&["-u", "alice", "file", "cat", "private/diary"])
}

fn log(tour: &Tour) -> Result<()> {
    tour.tell("Everything is in the guest's audit log, each record carrying the hash of the one before.");
    for (method, word) in [("exec.start", "bob"), ("demo.greet", "alice"), ("file.open", "diary")] {
        let shown = tour.host(&["exec", "--", "virtagentd", "audit", "show", "--method", method])?;
        ensure!(shown.contains(method) && shown.contains(word), "the audit log does not show {method} with {word}");
    }
    tour.host(&["exec", "--", "virtagentd", "audit", "verify"]).map(|_| ())
}
