//! The demo without a VM: a system daemon on a unix socket in place of the port, and a user daemon for each user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::{Uid, User, chown};
use virtagent_tests::{process, wait};

use super::cleanup::{Running, Scratch};
use super::tour::{Tour, print_log};
use crate::{step, tree};

const CONFIG: &str = include_str!("demo.toml");
const START: Duration = Duration::from_secs(20);

pub fn run() -> Result<()> {
    step::say("building virtagentd and virtagent");
    step::run(&mut step::cargo("build --locked -p virtagentd -p virtagent"))?;
    let programs = tree::target().join("debug");

    let me = User::from_uid(Uid::effective())?.context("your UID has no account")?;
    let second = if Uid::effective().is_root() { Some(another_user()?) } else { None };
    let scratch = Scratch::new()?;
    let dir = scratch.path();
    let tour = Tour {
        dir: dir.to_owned(),
        programs,
        socket: "port.sock",
        system_user: me.name.clone(),
        users: std::iter::once(&me).chain(&second).map(|user| user.name.clone()).collect(),
        guest_dir: dir.join("guest").display().to_string(),
    };
    fs::create_dir(dir.join("guest"))?;
    fs::write(dir.join("demo.toml"), CONFIG.replace("@DIR@", &dir.display().to_string()))?;

    tour.tell(&format!(
        "A system daemon, with a unix socket in place of a VM's port. {} Its policy is made for this demo (demo.toml, \
         in {}): all but /etc/shadow is allowed, and the power module is not enabled, so that nothing can power off \
         this machine.",
        if second.is_some() { "As you are root, it is too." } else { "As you are not root, neither is it." },
        dir.display()
    ));
    let mut daemons = vec![system(&tour)?];
    tour.tell("A user daemon for each user. In a guest systemd starts them, when somebody logs in.");
    daemons.push(user(&tour, &me, false)?);
    if let Some(second) = &second {
        daemons.push(user(&tour, second, true)?);
    }
    sessions(&tour).map_err(|error| with_logs(&error, dir))?;

    let outcome = tour.first_part().and_then(|()| call_the_host(&tour, &me)).and_then(|()| refusal_and_log(&tour));
    outcome.map_err(|error| with_logs(&error, dir))?;

    // Users first, as when a guest goes down.
    while let Some(mut daemon) = daemons.pop() {
        daemon.end();
    }
    tour.tell("The daemons have ended and everything is cleaned up. The same in a real guest: cargo xtask demo --vm");
    Ok(())
}

fn system(tour: &Tour) -> Result<Running> {
    let args = ["-c", "unix-listen", "-p", "port.sock", "--user-socket", "user.sock", "--config", "demo.toml"];
    tour.show("virtagentd", &args);
    let mut daemon = start(tour, &mut tour.command("virtagentd", &args), "system")?;
    let sockets = ["port.sock", "user.sock"].map(|name| tour.dir.join(name));
    let ready = || Ok(sockets.iter().all(|socket| socket.exists()).then_some(()));
    daemon.wait(START, "its sockets", ready).map_err(|error| with_logs(&error, &tour.dir))?;
    Ok(daemon)
}

fn user(tour: &Tour, user: &User, become_it: bool) -> Result<Running> {
    // What a login session provides in a guest.
    let runtime = tour.dir.join(format!("run-{}", user.name));
    fs::create_dir(&runtime)?;
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700))?;
    chown(&runtime, Some(user.uid), Some(user.gid))?;
    let pid_file = format!("{}/daemon.pid", runtime.display());
    let socket = tour.dir.join("user.sock").display().to_string();
    let config = tour.dir.join("demo.toml").display().to_string();
    let mut args = vec!["--user-daemon", "-p", &socket, "--pid-file", &pid_file, "--config", &config];
    if become_it {
        args.extend(["--username", &user.name]);
    }
    tour.show("virtagentd", &args);
    let mut command = tour.command("virtagentd", &args);
    start(tour, command.env("XDG_RUNTIME_DIR", &runtime), &user.name)
}

fn start(tour: &Tour, command: &mut Command, name: &str) -> Result<Running> {
    let log = fs::File::create(tour.dir.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Not this machine's service manager, if it started us.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    Running::start(command, &format!("the daemon of {name}"))
}

/// Waits until every user daemon is connected.
fn sessions(tour: &Tour) -> Result<()> {
    wait::until(START, "the sessions of all users", || {
        let mut users = tour.command("virtagent", &["-s", tour.socket, "--json", "users"]);
        let output = process::run(&mut users, b"", START)?;
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let all = tour.users.iter().all(|user| listed.contains(&format!("\"{user}\"")));
        Ok((output.status.success() && all).then_some(()))
    })
}

fn call_the_host(tour: &Tour, me: &User) -> Result<()> {
    tour.tell(
        "The other direction: the host answers calls, here with a program of its own, and a user's program calls it.",
    );
    let handler = "demo.greet=echo \"\\\"hello $VIRTAGENT_USERNAME, says the host\\\"\"";
    let (mut serve, log) = tour.serve(handler)?;
    let args = ["to-host", "call", "demo.greet"];
    tour.show("virtagent", &args);
    let mut command = tour.command("virtagent", &args);
    command.env("XDG_RUNTIME_DIR", tour.dir.join(format!("run-{}", me.name)));
    // The host command may not have the channel yet.
    let answer = serve.wait(START, "the host's answer", || {
        let output = process::run(&mut command, b"", START)?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })?;
    print!("{answer}");
    ensure!(
        answer.contains(&format!("hello {}, says the host", me.name)),
        "the host's answer was to greet {}",
        me.name
    );
    serve.end();
    tour.say("(and what `virtagent serve` printed meanwhile)");
    let printed = print_log(&log)?;
    ensure!(printed.contains("demo.greet"), "`virtagent serve` did not print the call");
    Ok(())
}

fn refusal_and_log(tour: &Tour) -> Result<()> {
    tour.tell("Policy is the guest owner's word. A refusal names the rule, its file and its line.");
    tour.refused(&["file", "cat", "/etc/shadow"])?;
    tour.run(
        "virtagentd",
        &["policy", "test", "--config", "demo.toml", "file.open", "--level", "system", "--path", "/etc/hostname"],
    )?;

    tour.tell("Everything is in the guest's audit log, each record carrying the hash of the one before.");
    for (method, word) in [("exec.start", tour.users[0].as_str()), ("demo.greet", "host"), ("file.open", "/etc/shadow")]
    {
        let shown = tour.run("virtagentd", &["audit", "show", "--config", "demo.toml", "--method", method])?;
        ensure!(shown.contains(method) && shown.contains(word), "the audit log does not show {method} with {word}");
    }
    tour.run("virtagentd", &["audit", "verify", "--config", "demo.toml"]).map(|_| ())
}

/// The error, and below it what the daemons said last.
fn with_logs(error: &anyhow::Error, dir: &Path) -> anyhow::Error {
    let mut text = format!("{error:#}");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let log = fs::read_to_string(&path).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "log") && !log.is_empty() {
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            text += &format!("\n--- {}\n{tail}", path.file_name().unwrap_or_default().to_string_lossy());
        }
    }
    anyhow!(text)
}

/// A real account besides root's: who called sudo, else the first person of this machine, else nobody.
fn another_user() -> Result<User> {
    if let Some(name) = std::env::var("SUDO_USER").ok().filter(|name| name != "root")
        && let Some(user) = User::from_name(&name)?
    {
        return Ok(user);
    }
    let accounts = fs::read_to_string("/etc/passwd").context("can't read /etc/passwd")?;
    let uids = accounts.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok());
    for uid in uids.filter(|uid| (1000..60_000).contains(uid)) {
        if let Some(user) = User::from_uid(Uid::from_raw(uid))?.filter(|user| user.dir.is_dir()) {
            return Ok(user);
        }
    }
    User::from_name("nobody")?.context("no account besides root's: not even nobody")
}
