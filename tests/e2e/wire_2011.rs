//! The agent of January 2011 at either end: our host command talks to its guest, its host to our daemon.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use virtagent_tests::local::{LIMIT, Setup};
use virtagent_tests::peer2011::{GUEST_FILE, GUEST_FILE_PATH, Guest2011, Host2011, PATIENCE, string};
use virtagent_tests::process;

/// How long nothing may come: longer than a job that went on would take to answer late.
const QUIET: Duration = Duration::from_millis(1500);

struct OldGuest {
    dir: tempfile::TempDir,
    guest: Guest2011,
}

impl OldGuest {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let guest = Guest2011::listen(&dir.path().join("port.sock"))?;
        Ok(Self { dir, guest })
    }

    fn run(&self, args: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(process::built("virtagent")?);
        command.arg("-s").arg(self.dir.path().join("port.sock")).args(args).current_dir(self.dir.path());
        process::run(&mut command, b"", LIMIT)
    }

    fn ok(&self, args: &[&str]) -> Result<String> {
        process::succeeded(&format!("virtagent {}", args.join(" ")), self.run(args)?)
    }

    /// What it says on standard error when it fails.
    fn fails(&self, args: &[&str]) -> Result<String> {
        let output = self.run(args)?;
        assert!(!output.status.success(), "virtagent {} succeeded", args.join(" "));
        Ok(String::from_utf8(output.stderr)?)
    }
}

#[test]
fn the_host_command_pings_a_2011_guest_one_call_at_a_time() -> Result<()> {
    let old = OldGuest::start()?;
    old.ok(&["ping", "-c", "5", "-i", "10ms"])?;
    let pings = old.guest.heard().iter().filter(|method| *method == "va.ping").count();
    assert_eq!(pings, 5, "{:?}", old.guest.heard());
    old.guest.check()
}

#[test]
fn the_host_command_answers_a_2011_guests_hello() -> Result<()> {
    let old = OldGuest::start()?;
    old.ok(&["ping", "-c", "2", "-i", "100ms"])?;
    assert!(old.guest.heard().iter().any(|heard| heard == "(hello)"), "{:?}", old.guest.heard());
    old.guest.check()
}

#[test]
fn the_host_command_lists_a_2011_guests_methods() -> Result<()> {
    let old = OldGuest::start()?;
    let listed = old.ok(&["methods"])?;
    for method in ["va.ping", "va.getfile", "va.shutdown", "system.multicall"] {
        assert!(listed.contains(method), "{listed}");
    }
    let one = old.ok(&["methods", "va.getfile"])?;
    assert!(one.contains("what va.getfile does"), "{one}");
    old.guest.check()
}

#[test]
fn the_host_command_gets_a_file_of_a_2011_guest_whole() -> Result<()> {
    let old = OldGuest::start()?;
    old.ok(&["file", "get", GUEST_FILE_PATH, "copy"])?;
    assert_eq!(std::fs::read(old.dir.path().join("copy"))?, GUEST_FILE);
    let error = old.fails(&["file", "get", "/nowhere", "other"])?;
    assert!(error.contains("open failed: No such file or directory"), "{error}");
    assert!(!old.dir.path().join("other").exists());
    old.guest.check()
}

#[test]
fn the_host_command_calls_any_method_of_a_2011_guest_and_reads_its_faults() -> Result<()> {
    let old = OldGuest::start()?;
    let dmesg = old.ok(&["call", "va.getdmesg"])?;
    assert!(dmesg.contains("<6>[    0.000000] Linux version 2.6.38"), "{dmesg}");
    let error = old.fails(&["call", "va.nonsense"])?;
    assert!(error.contains("Method 'va.nonsense' not defined") && error.contains("-506"), "{error}");
    assert_eq!(error.trim().lines().count(), 1, "an error is one line: {error}");
    old.guest.check()
}

#[test]
fn power_on_a_2011_guest_is_va_shutdown_with_a_mode_and_its_refusal_is_told() -> Result<()> {
    let old = OldGuest::start()?;
    for (command, mode) in [("off", "powerdown"), ("reboot", "reboot"), ("halt", "halt")] {
        let error = old.fails(&["power", command])?;
        assert!(error.contains(&format!("the script does not do {mode}")), "{error}");
    }
    let error = old.fails(&["power", "off", "--delay", "10s"])?;
    assert!(error.contains("2011"), "{error}");
    old.guest.check()
}

#[test]
fn what_a_2011_guest_can_not_do_is_refused_in_a_line_before_anything_is_sent() -> Result<()> {
    let old = OldGuest::start()?;
    for args in [&["exec", "--", "true"][..], &["file", "put", "/etc/hostname", "/tmp/x"]] {
        let error = old.fails(args)?;
        assert!(error.contains("2011") && error.trim().lines().count() == 1, "{error}");
    }
    let foreign =
        old.guest.heard().into_iter().find(|method| method.starts_with("exec.") || method.starts_with("file."));
    assert_eq!(foreign, None);
    old.guest.check()
}

#[test]
fn a_2011_host_finds_our_daemon_as_it_needs_it() -> Result<()> {
    let guest = Setup::default().modules(&["files", "exec", "info"]).start()?;
    let mut host = Host2011::connect(&guest.port())?;
    for method in ["va.ping", "va.capabilities", "va.getfile", "va.getdmesg"] {
        assert!(host.methods().iter().any(|name| name == method), "not listed: {method}");
    }
    assert!(host.call("va.ping", "")?.is_ok());
    assert!(host.call("va.ping", &string("any").repeat(3))?.is_ok(), "any number of parameters");
    let capabilities = host.call("va.capabilities", "")?.expect("capabilities");
    assert!(capabilities.contains("<name>version</name><value><string>1.0</string></value>"), "{capabilities}");
    assert!(capabilities.contains("<name>methods</name><value><array>"), "{capabilities}");
    std::fs::write(guest.path("file"), "2011")?;
    let file = host.call("va.getfile", &string(&guest.path("file").display().to_string()))?;
    assert_eq!(file.expect("the file").replace("\r\n", ""), "<value><base64>MjAxMQ==</base64></value>");
    host.check_quiet(QUIET)
}

#[test]
fn a_2011_host_gets_faults_in_its_own_encoding() -> Result<()> {
    let guest = Setup::default().start()?;
    let mut host = Host2011::connect(&guest.port())?;
    let fault = host.call("va.getfile", &string("/nowhere"))?.expect_err("no such file");
    assert_eq!(fault.code, -32010, "{fault}");
    let fault = host.call("va.getfile", "")?.expect_err("no path");
    assert_eq!(fault.code, -32602, "{fault}");
    assert!(host.call("va.shutdown", &string("halt")).is_err(), "not enabled here, so not listed and not sent");
    host.check_quiet(QUIET)
}

#[test]
fn a_2011_host_is_answered_before_it_gives_up_and_never_again_after() -> Result<()> {
    let guest = Setup::default().start()?;
    let mut host = Host2011::connect(&guest.port())?;
    let argv = "<param><value><array><data><value><string>sleep</string></value><value><string>6</string></value>\
                </data></array></value></param>";
    let begin = Instant::now();
    let fault = host.call("exec.run", argv)?.expect_err("it sleeps longer than a 2011 host waits");
    assert_eq!(fault.code, -32005, "{fault}");
    assert!(begin.elapsed() < PATIENCE);
    // The sleep would end now, and be answered late.
    host.check_quiet(Duration::from_secs(3))?;
    assert!(host.call("va.ping", "")?.is_ok(), "the next call is answered");
    host.check_quiet(QUIET)
}

#[test]
fn a_2011_host_hears_nothing_of_sessions_that_come_and_go() -> Result<()> {
    if !virtagent_tests::local::is_root() {
        return Ok(());
    }
    let guest = Setup::default().start()?;
    let mut host = Host2011::connect(&guest.port())?;
    let user = guest.user("nobody")?;
    drop(user);
    guest.audited("the session's end", |record| record["event"] == "session.disconnected")?;
    host.check_quiet(QUIET)
}

#[test]
fn a_2011_host_that_comes_back_is_greeted_again() -> Result<()> {
    let guest = Setup::default().start()?;
    for _ in 0..3 {
        let mut host = Host2011::connect(&guest.port())?;
        assert!(host.call("va.ping", "")?.is_ok());
        host.check_quiet(Duration::from_millis(100))?;
    }
    Ok(())
}

#[test]
fn a_host_that_never_answers_the_hello_is_served_all_the_same() -> Result<()> {
    let guest = Setup::default().start()?;
    let mut raw = guest.raw()?;
    let (hello, call) = raw.next_call()?;
    assert_eq!((call.method.as_str(), hello.encoding), ("va.hello", agent_core::encoding::Encoding::Xml));
    for number in 0..3 {
        let tag = format!("testtag{number}");
        raw.ask(&tag, "va.ping", serde_json::json!(null))?.ok().context("a ping")?;
    }
    Ok(())
}

#[test]
fn sentinels_behind_the_bodies_as_in_march_2011_disturb_nothing() -> Result<()> {
    let guest = Setup::default().start()?;
    let mut host = Host2011::of_march(&guest.port())?;
    for _ in 0..3 {
        assert!(host.call("va.ping", "")?.is_ok());
    }
    host.check_quiet(QUIET)
}
