//! The bench without a VM: both agents on unix sockets, in a directory that goes with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::agent::{Agent, first_answer};
use crate::qga::{BLOCKED, Qga};
use crate::raw::Raw;
use crate::rounds::{self, Bench, Effort, Pids};
use crate::table::{Better, Table, median};
use crate::va::Va;

/// Everything allowed to the host, every call but pings in the log: what a guest does that trusts its host.
const CONFIG: &str = r#"
[modules]
enabled = ["files", "exec"]
[audit]
file = "@DIR@/audit.jsonl"
journal = false
[policy]
default = "allow"
"#;

const LIMIT: Duration = Duration::from_secs(10);

/// A daemon, ended and reaped with this value.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Place {
    dir: tempfile::TempDir,
    virtagentd: PathBuf,
    qemu_ga: PathBuf,
}

/// Measures everything here.
pub fn run(effort: Effort) -> Result<Table> {
    let place = Place::new()?;
    let mut table = Table::new("This machine, unix sockets".into());
    if effort.wants_all() {
        starts(&place, effort, &mut table)?;
    }

    let system = place.system()?;
    let user = place.user()?;
    let theirs = place.qga()?;
    let pids = Pids { system: system.0.id(), user: user.0.id(), qga: theirs.0.id() };
    let name = nix::unistd::User::from_uid(nix::unistd::geteuid())?.context("this user has no name")?.name;
    let mut va = first_answer(LIMIT, || Va::connect(&place.socket("va"), LIMIT))?;
    let qga = first_answer(LIMIT, || Qga::connect(&place.socket("qga"), LIMIT))?;
    va.at(Some(&name))?;
    first_answer(LIMIT, || va.ping())?;
    va.at(None)?;
    let dir = place.dir.path().to_string_lossy().into_owned();
    let mut bench = Bench { va, qga, raw: Some(Raw::here()?), user: name, pids, dir, guest: false };

    bench.memory("idle", &mut table)?;
    let mut bench = rounds::idle(effort, bench, &mut table, |bench| {
        let Bench { va, qga, raw, user, pids, dir, guest } = bench;
        drop((va, qga));
        std::thread::sleep(rounds::absence(effort));
        let va = Va::connect(&place.socket("va"), LIMIT)?;
        let qga = Qga::connect(&place.socket("qga"), LIMIT)?;
        Ok(Bench { va, qga, raw, user, pids, dir, guest })
    })?;
    bench.rounds(effort, &mut table)?;
    bench.memory("after load", &mut table)?;
    Ok(table)
}

/// From the start of the process to the first answer.
fn starts(place: &Place, effort: Effort, table: &mut Table) -> Result<()> {
    for _ in 0..effort.rounds {
        let (mut ours, mut theirs) = (vec![], vec![]);
        for _ in 0..5 {
            let begin = Instant::now();
            let daemon = place.system()?;
            first_answer(LIMIT, || Va::connect(&place.socket("va"), LIMIT))?;
            ours.push(begin.elapsed().as_secs_f64() * 1e3);
            drop(daemon);
            let begin = Instant::now();
            let daemon = place.qga()?;
            first_answer(LIMIT, || Qga::connect(&place.socket("qga"), LIMIT))?;
            theirs.push(begin.elapsed().as_secs_f64() * 1e3);
            drop(daemon);
        }
        let row = table.row("start to first answer", "ms", Better::Less);
        row.ours.extend(median(&ours));
        row.theirs.extend(median(&theirs));
    }
    Ok(())
}

impl Place {
    fn new() -> Result<Place> {
        let virtagentd = virtagent_tests::process::built("virtagentd")?;
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&paths).chain(["/usr/sbin".into()]);
        let qemu_ga = dirs.map(|dir| dir.join("qemu-ga")).find(|path| path.is_file());
        let qemu_ga = qemu_ga.context("no qemu-ga here; install it with: apt-get install qemu-guest-agent")?;
        // In memory: the agents are compared, not the disk.
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("virtagent-bench-").tempdir_in(parent)?;
        let config = CONFIG.replace("@DIR@", &dir.path().to_string_lossy());
        fs::write(dir.path().join("bench.toml"), config)?;
        fs::create_dir(dir.path().join("run"))?;
        Ok(Place { dir, virtagentd, qemu_ga })
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.sock"))
    }

    /// A clean start: a socket that a killed daemon left would be connected to in vain.
    fn start(&self, name: &str, command: &mut Command) -> Result<Daemon> {
        let _ = fs::remove_file(self.socket(name));
        let log = fs::File::create(self.dir.path().join(format!("{name}.log")))?;
        let quiet = command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Daemon(quiet.spawn().with_context(|| format!("can't start {}", virtagent_tests::process::shown(command)))?))
    }

    fn system(&self) -> Result<Daemon> {
        let mut command = Command::new(&self.virtagentd);
        command.args(["-c", "unix-listen", "-p", "va.sock", "--user-socket", "user.sock", "--config", "bench.toml"]);
        self.start("va", &mut command)
    }

    fn user(&self) -> Result<Daemon> {
        let socket = self.socket("user");
        first_answer(LIMIT, || {
            ensure!(socket.exists(), "the system daemon makes no {}", socket.display());
            Ok(())
        })?;
        let mut command = Command::new(&self.virtagentd);
        command.args(["--user-daemon", "--config", "bench.toml", "-p"]).arg(&socket);
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        // Named for its log only: the socket is not its to remove.
        self.start("daemon", &mut command)
    }

    fn qga(&self) -> Result<Daemon> {
        let mut command = Command::new(&self.qemu_ga);
        command
            .args(["-m", "unix-listen", "-p", "qga.sock", "-f", "qga.pid", "-b", BLOCKED, "-t"])
            .arg(self.dir.path());
        self.start("qga", &mut command)
    }
}
