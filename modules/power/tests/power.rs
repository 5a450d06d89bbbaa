//! The module through its real method table, on a bus of its own with a logind that only writes down what it is told, and
//! with programs that do the same.
//!
//! DANGER: a module that is built without these settings brings down the machine that runs the tests. [`Lab`] is the only
//! way to get one here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime};

use agent_core::module::testing::Harness;
use agent_core::module::{Level, OwnerId};
use agent_core::rpc::{FaultCode, Outcome, Value};
use futures_util::StreamExt;
use tempfile::TempDir;
use tokio::sync::mpsc;
use virtagent_power::Power;
use zbus::MessageStream;
use zbus::connection::Builder;

/// A private message bus.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    #[allow(clippy::disallowed_methods, reason = "a test's own bus")]
    fn start(directory: &TempDir) -> Self {
        let config = directory.path().join("bus.conf");
        let socket = directory.path().join("bus");
        let text = format!(
            r#"<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
               <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>"#,
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut daemon = std::process::Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--config-file={}", config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("dbus-daemon does not start ({error}): apt install dbus"));
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// What the test's logind does with a call.
#[derive(Clone, Copy, PartialEq)]
enum Logind {
    /// It is not there.
    Absent,
    /// It writes down what it is told.
    Obeys,
    /// It says that it can, and then refuses.
    Refuses,
    /// It says that it can't.
    Unable,
}

/// The module, and what reached the machine: `PowerOff false`, `systemctl --no-wall poweroff`.
struct Lab {
    power: Harness<Power>,
    reached: mpsc::UnboundedReceiver<String>,
    log: PathBuf,
    _bus: Bus,
    _directory: TempDir,
}

impl Lab {
    async fn new(logind: Logind) -> Self {
        Self::with_programs(logind, &[("systemctl", 0), ("shutdown", 0)]).await
    }

    /// With programs of those names that exit so; one that is not named does not exist.
    async fn with_programs(logind: Logind, programs: &[(&str, u8)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        for (name, code) in programs {
            let program = directory.path().join(name);
            let script = format!("#!/bin/sh\necho \"{name} $*\" >>'{}'\necho no >&2\nexit {code}\n", log.display());
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let bus = Bus::start(&directory);
        let (told, reached) = mpsc::unbounded_channel();
        if logind != Logind::Absent {
            serve(&bus.address, logind, told).await;
        }
        let mut settings = toml::Table::new();
        settings.insert("bus".into(), bus.address.clone().into());
        for name in ["systemctl", "shutdown"] {
            settings.insert(name.into(), directory.path().join(name).to_str().unwrap().into());
        }
        let power = Harness::new(Level::System, "/nonexistent", settings);
        Self { power, reached, log, _bus: bus, _directory: directory }
    }

    async fn shutdown<const N: usize>(&self, params: [(&str, Value); N]) -> Outcome {
        self.power.call_named("power.shutdown", params).await
    }

    /// What reaches logind next.
    async fn next(&mut self) -> String {
        let next = tokio::time::timeout(Duration::from_secs(20), self.reached.recv()).await;
        next.expect("nothing reached logind").expect("logind is gone")
    }

    /// What the programs were called with, as soon as they were called that often.
    async fn program_calls(&self, calls: usize) -> Vec<String> {
        for _ in 0..2000 {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if log.lines().count() >= calls {
                return log.lines().map(str::to_owned).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the programs were called less than {calls} times");
    }

    /// That nothing has reached the machine.
    fn nothing_reached(&mut self) -> bool {
        self.reached.try_recv().is_err() && !self.log.exists()
    }
}

/// A logind that writes down instead of acting.
async fn serve(address: &str, logind: Logind, told: mpsc::UnboundedSender<String>) {
    let connection = Builder::address(address).build().await.unwrap();
    let mut calls = MessageStream::from(&connection);
    connection.request_name("org.freedesktop.login1").await.unwrap();
    tokio::spawn(async move {
        while let Some(Ok(message)) = calls.next().await {
            let header = message.header();
            let Some(member) = header.member().map(|member| member.to_string()) else { continue };
            let refused = "org.freedesktop.DBus.Error.AccessDenied";
            match member.as_str() {
                "CanPowerOff" | "CanHalt" | "CanReboot" => {
                    let answer = if logind == Logind::Unable { "na" } else { "yes" };
                    connection.reply(&header, &answer).await.unwrap();
                }
                "SetWallMessage" => {
                    let (text, enabled): (String, bool) = message.body().deserialize().unwrap();
                    told.send(format!("{member} {text} {enabled}")).unwrap();
                    connection.reply(&header, &()).await.unwrap();
                }
                "PowerOff" | "Halt" | "Reboot" if logind == Logind::Obeys => {
                    let interactive: bool = message.body().deserialize().unwrap();
                    told.send(format!("{member} {interactive}")).unwrap();
                    connection.reply(&header, &()).await.unwrap();
                }
                "PowerOff" | "Halt" | "Reboot" => connection.reply_error(&header, refused, &"inhibited").await.unwrap(),
                _ => {}
            }
        }
    });
}

#[tokio::test]
async fn the_answer_comes_before_the_machine_goes_down() {
    let mut lab = Lab::new(Logind::Obeys).await;
    let planned = lab.shutdown([]).await.unwrap();
    assert!(lab.nothing_reached());
    let at = humantime::parse_rfc3339(planned.get("at").unwrap().as_str().unwrap()).unwrap();
    assert!(at <= SystemTime::now() + Duration::from_secs(2));
    assert_eq!(lab.next().await, "PowerOff false");
}

#[tokio::test]
async fn each_mode_is_its_own_call_of_logind() {
    for (mode, call) in [("powerdown", "PowerOff"), ("halt", "Halt"), ("reboot", "Reboot")] {
        let mut lab = Lab::new(Logind::Obeys).await;
        lab.shutdown([("mode", mode.into())]).await.unwrap();
        assert_eq!(lab.next().await, format!("{call} false"));
    }
}

#[tokio::test]
async fn users_are_told_the_message() {
    let mut lab = Lab::new(Logind::Obeys).await;
    lab.shutdown([("message", "back in an hour".into())]).await.unwrap();
    assert_eq!(lab.next().await, "SetWallMessage back in an hour true");
    assert_eq!(lab.next().await, "PowerOff false");
}

#[tokio::test]
async fn a_shutdown_is_taken_back_within_its_delay_and_only_once() {
    let mut lab = Lab::new(Logind::Obeys).await;
    let cancel = || lab.power.call("power.cancel_shutdown", vec![]);
    let cancelled = |outcome: Outcome| outcome.unwrap().get("cancelled").unwrap().as_bool().unwrap();
    assert!(!cancelled(cancel().await));
    lab.shutdown([("delay", Value::Int(3600))]).await.unwrap();
    assert!(cancelled(cancel().await));
    assert!(!cancelled(cancel().await));
    lab.shutdown([]).await.unwrap();
    assert!(cancelled(cancel().await), "half a second is a delay too");
    assert!(lab.nothing_reached());
}

#[tokio::test]
async fn what_has_begun_is_not_taken_back() {
    let mut lab = Lab::new(Logind::Obeys).await;
    lab.shutdown([]).await.unwrap();
    lab.next().await;
    let outcome = lab.power.call("power.cancel_shutdown", vec![]).await.unwrap();
    assert_eq!(outcome.get("cancelled"), Some(&false.into()));
}

#[tokio::test]
async fn a_later_plan_replaces_an_earlier_one() {
    let mut lab = Lab::new(Logind::Obeys).await;
    lab.shutdown([("delay", Value::Int(1))]).await.unwrap();
    lab.shutdown([("mode", "reboot".into()), ("delay", Value::Int(1))]).await.unwrap();
    assert_eq!(lab.next().await, "Reboot false");
    assert!(lab.nothing_reached());
}

#[tokio::test]
async fn a_plan_outlives_its_caller() {
    let mut lab = Lab::new(Logind::Obeys).await;
    lab.shutdown([]).await.unwrap();
    lab.power.owner_gone(OwnerId(1));
    assert_eq!(lab.next().await, "PowerOff false");
}

#[tokio::test]
async fn a_daemon_that_stops_forgets_its_plan() {
    let mut lab = Lab::new(Logind::Obeys).await;
    lab.shutdown([("delay", Value::Int(3600))]).await.unwrap();
    lab.power.stop().await;
    let outcome = lab.power.call("power.cancel_shutdown", vec![]).await.unwrap();
    assert_eq!(outcome.get("cancelled"), Some(&false.into()));
    assert!(lab.nothing_reached());
}

#[tokio::test]
async fn the_2011_method_answers_a_string_and_acts_five_seconds_later() {
    let mut lab = Lab::new(Logind::Obeys).await;
    let before = std::time::Instant::now();
    let answer = lab.power.call("va.shutdown", vec!["reboot".into()]).await.unwrap();
    assert_eq!(answer.as_str(), Some("reboot in 5 seconds"));
    assert_eq!(lab.next().await, "Reboot false");
    assert!(before.elapsed() >= Duration::from_secs(5));
}

#[tokio::test]
async fn without_logind_systemctl_does_it() {
    for logind in [Logind::Absent, Logind::Refuses, Logind::Unable] {
        for (mode, verb) in [("powerdown", "poweroff"), ("halt", "halt"), ("reboot", "reboot")] {
            let lab = Lab::new(logind).await;
            lab.shutdown([("mode", mode.into())]).await.unwrap();
            assert_eq!(lab.program_calls(1).await, [format!("systemctl --no-wall {verb}")]);
        }
    }
}

#[tokio::test]
async fn where_systemctl_fails_or_is_not_there_shutdown_does_it() {
    let lab = Lab::with_programs(Logind::Absent, &[("systemctl", 1), ("shutdown", 0)]).await;
    lab.shutdown([("mode", "reboot".into()), ("message", "new kernel".into())]).await.unwrap();
    assert_eq!(lab.program_calls(2).await, ["systemctl --no-wall reboot", "shutdown -r now new kernel"]);

    let lab = Lab::with_programs(Logind::Absent, &[("shutdown", 0)]).await;
    lab.shutdown([]).await.unwrap();
    assert_eq!(lab.program_calls(1).await, ["shutdown -P now the hypervisor asks for it"]);
}

#[tokio::test]
async fn with_no_way_at_all_the_call_is_refused_at_once_and_names_each() {
    for logind in [Logind::Absent, Logind::Unable] {
        let lab = Lab::with_programs(logind, &[]).await;
        let refused = lab.shutdown([]).await.unwrap_err();
        assert!(refused.is(FaultCode::Unavailable), "{refused}");
        for way in ["logind", "systemctl", "shutdown"] {
            assert!(refused.message.contains(way), "{refused}");
        }
    }
}

#[tokio::test]
async fn a_failure_after_the_answer_comes_to_the_host_as_an_event() {
    let lab = Lab::with_programs(Logind::Refuses, &[("systemctl", 1), ("shutdown", 2)]).await;
    let mut calls = lab.power.host_calls();
    lab.shutdown([("mode", "halt".into())]).await.unwrap();
    let (method, params) = calls.recv().await.unwrap();
    assert_eq!(method, "host.event");
    assert_eq!(params[0].get("topic").unwrap().as_str(), Some("power.failed"));
    let data = params[0].get("data").unwrap();
    assert_eq!(data.get("mode").unwrap().as_str(), Some("halt"));
    assert!(data.get("error").unwrap().as_str().unwrap().contains("inhibited"), "{data:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_plans_nothing() {
    let mut lab = Lab::new(Logind::Obeys).await;
    let long = "x".repeat(1025);
    for (name, value) in [
        ("mode", Value::from("explode")),
        ("delay", Value::Int(-1)),
        ("delay", Value::Int(604_801)),
        ("message", Value::from("two\nlines")),
        ("message", Value::from(long.as_str())),
        ("when", Value::Int(1)),
    ] {
        let refused = lab.shutdown([(name, value)]).await.unwrap_err();
        assert!(refused.is(FaultCode::InvalidParams), "{name}: {refused}");
    }
    let outcome = lab.power.call("power.cancel_shutdown", vec![]).await.unwrap();
    assert_eq!(outcome.get("cancelled"), Some(&false.into()));
    assert!(lab.nothing_reached());
}
