//! Every row of the methods table at its level, by position and by name, in all three encodings.
//!
//! `power.*` and `va.shutdown` act in the virtual machine's test only: here, on the machine that runs the tests, their
//! module is never enabled, and it is asked how they are refused.

use std::path::Path;

use agent_core::encoding::{Encoding, decode_outcome, encode_call, encode_outcome};
use agent_core::frame::{Frame, Heads, Kind};
use agent_core::rpc::{Call, Fault, FaultCode, Value};
use anyhow::{Context, Result};
use serde_json::{Value as Json, json};
use virtagent_tests::local::{self, Guest, Raw, Setup, is_root};

use crate::support::{blob, refused, text};

const BUILT_IN: [&str; 8] = [
    "va.ping",
    "va.capabilities",
    "va.cancel",
    "va.describe",
    "system.listMethods",
    "system.methodHelp",
    "system.methodSignature",
    "system.multicall",
];
const SYSTEM: [&str; 6] = ["session.list", "va.getfile", "va.getdmesg", "info.get", "info.dmesg", "info.logins"];
const FILES: [&str; 10] = [
    "file.open",
    "file.read",
    "file.write",
    "file.close",
    "file.stat",
    "file.list",
    "file.mkdir",
    "file.remove",
    "file.rename",
    "file.digest",
];
const EXEC: [&str; 7] =
    ["exec.run", "exec.start", "exec.stdin", "exec.close_stdin", "exec.signal", "exec.resize", "exec.wait"];
const POWER: [&str; 3] = ["power.shutdown", "power.cancel_shutdown", "va.shutdown"];

/// A host that makes every call in one way.
struct Asker<'r> {
    raw: &'r mut Raw,
    encoding: Encoding,
    by_name: bool,
    user: Option<&'static str>,
    calls: usize,
    /// What started programs wrote.
    output: String,
}

impl Asker<'_> {
    /// Calls with the parameters in their order; null for one that is left out.
    fn ask(&mut self, method: &str, params: &[(&str, Json)]) -> Result<Json, Fault> {
        self.exchange(method, params).unwrap_or_else(|error| panic!("{method} {}: {error:#}", self.how()))
    }

    /// The same; it has to succeed.
    fn ok(&mut self, method: &str, params: &[(&str, Json)]) -> Json {
        self.ask(method, params).unwrap_or_else(|fault| panic!("{method} {}: {fault}", self.how()))
    }

    fn how(&self) -> String {
        let by = if self.by_name { "by name" } else { "by position" };
        format!("{by} in {} at {} level", self.encoding, if self.user.is_some() { "user" } else { "system" })
    }

    fn exchange(&mut self, method: &str, params: &[(&str, Json)]) -> Result<Result<Json, Fault>> {
        self.calls += 1;
        let tag = format!("{}-{:08}", self.encoding, self.calls).parse()?;
        let params = match self.by_name {
            true => {
                let given = params.iter().filter(|(_, value)| !value.is_null());
                vec![Value::Struct(given.map(|(name, value)| ((*name).to_owned(), local::value(value))).collect())]
            }
            false => params.iter().map(|(_, value)| local::value(value)).collect(),
        };
        let call = Call { method: method.parse()?, params };
        let body = encode_call(self.encoding, &call, &tag)?;
        let heads = Heads { username: self.user.map(str::to_owned), timeout_ms: Some(20_000), ..Heads::default() };
        let frame = Frame { kind: Kind::Call, tag, encoding: self.encoding, heads, body };
        let tag = frame.tag.clone();
        self.raw.frame(frame)?;
        loop {
            let frame = self.raw.next()?.context("the guest closed")?;
            if frame.kind == Kind::Call {
                self.take(frame)?;
            } else if frame.tag == tag {
                assert_eq!(frame.encoding, self.encoding, "the reply has another encoding");
                assert_eq!(frame.heads.username.as_deref(), self.user, "the reply does not repeat whose it is");
                return Ok(decode_outcome(frame.encoding, &frame.body)?.map(|value| local::json(&value)));
            }
        }
    }

    /// A call of the guest: its hello, or a program's output, which waits for our nil.
    fn take(&mut self, frame: Frame) -> Result<()> {
        let call = agent_core::encoding::decode_call(frame.encoding, &frame.body)?;
        if call.method == "exec.output" {
            self.output += &text(&local::json(call.params[0].get("data").context("output without data")?));
        }
        let body = encode_outcome(frame.encoding, &Ok(Value::Nil), &frame.tag)?;
        self.raw.frame(Frame { kind: Kind::Reply, body, heads: Heads::default(), ..frame })
    }
}

/// Does that in every encoding, by position and by name.
fn in_every_way(guest: &Guest, user: Option<&'static str>, work: impl Fn(&mut Asker)) -> Result<()> {
    for encoding in Encoding::ALL {
        for by_name in [false, true] {
            let mut raw = guest.raw()?;
            work(&mut Asker { raw: &mut raw, encoding, by_name, user, calls: 0, output: String::new() });
        }
    }
    Ok(())
}

fn guest() -> Result<Guest> {
    Setup::default().modules(&["files", "exec", "info"]).start()
}

fn built_in(ask: &mut Asker) {
    assert_eq!(ask.ok("va.ping", &[]), "pong");
    let capabilities = ask.ok("va.capabilities", &[]);
    let level = if ask.user.is_some() { "user" } else { "system" };
    assert_eq!((&capabilities["version"], &capabilities["level"]), (&json!("1.0"), &json!(level)));
    assert_eq!(capabilities["encodings"], json!(["xml", "json", "cbor"]));
    assert!(capabilities["limits"]["body"].is_i64() && capabilities["boot_id"].is_string(), "{capabilities}");
    let module = &capabilities["modules"][0];
    assert!(module["name"].is_string() && module["level"].is_string() && module["version"].is_string(), "{module}");
    assert_eq!(ask.ok("va.cancel", &[("tag", json!("no-such-call"))]), false);
    let methods = ask.ok("system.listMethods", &[]);
    assert_eq!(methods, capabilities["methods"]);
    let listed = |name: &str| methods.as_array().is_some_and(|names| names.iter().any(|listed| listed == name));
    for name in BUILT_IN.iter().chain(&FILES).chain(&EXEC) {
        assert!(listed(name), "{name} is not listed {}", ask.how());
    }
    for name in SYSTEM {
        assert_eq!(listed(name), ask.user.is_none(), "{name} {}", ask.how());
    }
    assert!(POWER.iter().all(|name| !listed(name)), "the power module is enabled on this machine");
    for name in BUILT_IN.iter().chain(&FILES).chain(&EXEC).chain(if ask.user.is_none() { &SYSTEM[..] } else { &[] }) {
        let method = [("method", json!(name))];
        let described = ask.ok("va.describe", &method);
        assert_eq!(described["method"], *name);
        assert!(described["params"].is_object() || described["params"].is_string(), "{described}");
        assert!(!described["result"].is_null(), "{described}");
        assert_eq!(ask.ok("system.methodHelp", &method), described["help"]);
        assert_eq!(ask.ok("system.methodSignature", &method)[0], described["signature"]);
    }
    let calls = json!([
        {"methodName": "va.ping", "params": []},
        {"methodName": "no.such", "params": []},
        {"methodName": "system.methodHelp", "params": ["va.ping"]},
        {"methodName": "system.methodHelp", "params": {"method": "va.ping"}},
    ]);
    let results = ask.ok("system.multicall", &[("calls", calls)]);
    assert_eq!((&results[0], &results[1]["faultCode"]), (&json!(["pong"]), &json!(-32601)), "{results}");
    assert!(results[2][0].is_string() && results[2] == results[3], "{results}");
}

#[test]
fn the_routers_own_methods_answer_at_system_level_in_every_way() -> Result<()> {
    in_every_way(&guest()?, None, built_in)
}

#[test]
fn the_routers_own_methods_answer_at_user_level_in_every_way() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let _user = guest.user("nobody")?;
    in_every_way(&guest, Some("nobody"), built_in)
}

#[test]
fn what_only_the_system_level_offers_answers_there_in_every_way() -> Result<()> {
    let guest = guest()?;
    let file = guest.path("file");
    std::fs::write(&file, b"\0\xff")?;
    in_every_way(&guest, None, |ask| {
        let sessions = ask.ok("session.list", &[]);
        assert_eq!(sessions["sessions"], json!([]));
        assert_eq!(ask.ok("va.getfile", &[("path", json!(file))]), blob(b"\0\xff"));
        let info = ask.ok("info.get", &[]);
        for member in ["os", "kernel", "hostname", "boot_id", "uptime", "timezone"] {
            assert!(!info[member].is_null(), "{member}: {info}");
        }
        // Where no logind runs, or the kernel's log is not to be read, the fault says so.
        let params = [("max_bytes", json!(1000))];
        let given = [("info.logins", &[][..]), ("info.dmesg", &params), ("va.getdmesg", &[])];
        for (method, params) in given {
            match (method, ask.ask(method, params)) {
                ("info.logins", Ok(result)) => assert!(result["logins"].is_array(), "{result}"),
                ("info.dmesg", Ok(log)) => assert!(log["text"].is_string() && log["truncated"].is_boolean(), "{log}"),
                (_, Ok(log)) => assert!(log.as_str().is_some_and(|text| text.len() <= 16384), "{log}"),
                (_, Err(fault)) => assert!(fault.is(FaultCode::Os) || fault.is(FaultCode::Unavailable), "{fault}"),
            }
        }
    })
}

#[test]
fn a_session_shows_in_the_list_with_who_and_since_when() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let user = guest.user("nobody")?;
    in_every_way(&guest, None, |ask| {
        let session = &ask.ok("session.list", &[])["sessions"][0];
        assert_eq!((&session["username"], &session["uid"]), (&json!("nobody"), &json!(65534)));
        assert_eq!(session["pid"], user.pid());
        assert!(session["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{session}");
        assert_eq!(session["modules"], json!(["exec", "files"]), "{session}");
    })
}

fn files(ask: &mut Asker, folder: &Path) {
    let path = |name: &str| json!(folder.join(name));
    let none = || Json::Null;
    ask.ok("file.mkdir", &[("path", path("a/b")), ("parents", json!(true)), ("mode", json!(0o700))]);
    let opened =
        ask.ok("file.open", &[("path", path("a/b/new")), ("mode", json!("create")), ("permissions", json!(0o600))]);
    let handle = || ("handle", opened["handle"].clone());
    let written = ask.ok("file.write", &[handle(), ("offset", none()), ("data", blob(b"0123456789"))]);
    assert_eq!((&written["written"], &written["position"]), (&json!(10), &json!(10)));
    let closed = ask.ok("file.close", &[handle()]);
    assert_eq!(closed["written"], 10);
    let stat = ask.ok("file.stat", &[("path", path("a/b/new")), ("follow", json!(false))]);
    assert_eq!((&stat["type"], &stat["size"], &stat["mode"]), (&json!("file"), &json!(10), &json!(0o600)));
    let digest =
        [("path", path("a/b/new")), ("algorithm", json!("sha256")), ("offset", json!(0)), ("length", json!(10))];
    let digest = ask.ok("file.digest", &digest);
    assert_eq!(digest["digest"], "sha256:84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882");
    let xxh3 = ask.ok("file.digest", &[("path", path("a/b/new"))]);
    assert!(xxh3["digest"].as_str().is_some_and(|text| text.starts_with("xxh3-128:")), "{xxh3}");
    let opened = ask.ok("file.open", &[("path", path("a/b/new")), ("mode", json!("read"))]);
    let handle = || ("handle", opened["handle"].clone());
    let read = ask.ok("file.read", &[handle(), ("offset", json!(2)), ("length", json!(3))]);
    assert_eq!((text(&read["data"]), &read["eof"]), ("234".to_owned(), &json!(false)));
    let read = ask.ok("file.read", &[handle(), ("offset", json!(8)), ("length", json!(30))]);
    assert_eq!((text(&read["data"]), &read["eof"]), ("89".to_owned(), &json!(true)));
    ask.ok("file.close", &[handle()]);
    for (mode, content) in [("write", "X123456789"), ("append", "X123456789X"), ("replace", "X")] {
        let opened = ask.ok("file.open", &[("path", path("a/b/new")), ("mode", json!(mode))]);
        let handle = || ("handle", opened["handle"].clone());
        ask.ok("file.write", &[handle(), ("offset", none()), ("data", blob(b"X"))]);
        ask.ok("file.close", &[handle()]);
        assert_eq!(std::fs::read_to_string(folder.join("a/b/new")).unwrap(), content, "{mode}");
    }
    ask.ok("file.rename", &[("from", path("a/b/new")), ("to", path("a/b/old")), ("overwrite", json!(false))]);
    let listed = ask.ok("file.list", &[("path", path("a/b")), ("offset", json!(0)), ("limit", json!(10))]);
    assert_eq!((&listed["total"], &listed["more"]), (&json!(1), &json!(false)));
    assert_eq!(listed["entries"][0]["name"], "old");
    refused(ask.ask("file.remove", &[("path", path("a"))]), FaultCode::Os);
    ask.ok("file.remove", &[("path", path("a")), ("recursive", json!(true))]);
    let fault = refused(ask.ask("file.stat", &[("path", path("a"))]), FaultCode::Os);
    assert!(fault.message.contains("ENOENT"), "{fault}");
    refused(ask.ask("file.read", &[("handle", json!(4711))]), FaultCode::InvalidParams);
}

#[test]
fn the_files_module_answers_at_system_level_in_every_way() -> Result<()> {
    let guest = guest()?;
    in_every_way(&guest, None, |ask| files(ask, &guest.path("log")))
}

#[test]
fn the_files_module_answers_at_user_level_in_every_way() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let folder = guest.path("nobodys");
    guest.folder_of("nobody", &folder)?;
    let _user = guest.user("nobody")?;
    in_every_way(&guest, Some("nobody"), |ask| files(ask, &folder))
}

fn exec(ask: &mut Asker) {
    let null = || Json::Null;
    // In their order: argv, script, interpreter, env, clear_env, cwd, stdin, timeout_ms, output_limit.
    let done = ask.ok(
        "exec.run",
        &[
            ("argv", json!(["/bin/sh", "-c", "cat; pwd; echo $WORD >&2; exit 7"])),
            ("script", null()),
            ("interpreter", null()),
            ("env", json!({"WORD": "env"})),
            ("clear_env", json!(false)),
            ("cwd", json!("/")),
            ("stdin", blob(b"in\n")),
            ("timeout_ms", json!(15_000)),
            ("output_limit", json!(1000)),
        ],
    );
    assert_eq!((&done["exit_code"], &done["truncated"]), (&json!(7), &json!(false)), "{done}");
    assert_eq!((text(&done["stdout"]), text(&done["stderr"])), ("in\n/\n".into(), "env\n".into()));
    let script = [("argv", null()), ("script", json!("echo $0; kill -9 $$")), ("interpreter", json!(["/bin/sh"]))];
    assert_eq!(ask.ok("exec.run", &script)["signal"], "SIGKILL");

    // argv, script, interpreter, env, clear_env, cwd, stdin, pty.
    let start = |argv: Json, stdin: Json, pty: Json| {
        [
            ("argv", argv),
            ("script", Json::Null),
            ("interpreter", Json::Null),
            ("env", Json::Null),
            ("clear_env", Json::Null),
            ("cwd", Json::Null),
            ("stdin", stdin),
            ("pty", pty),
        ]
    };
    ask.output.clear();
    let started = ask.ok("exec.start", &start(json!(["cat"]), json!(true), null()));
    let handle = || ("handle", started["handle"].clone());
    ask.ok("exec.stdin", &[handle(), ("data", blob(b"through a pipe"))]);
    ask.ok("exec.close_stdin", &[handle()]);
    assert_eq!(ask.ok("exec.wait", &[handle()])["exit_code"], 0);
    assert_eq!(ask.output, "through a pipe");

    for signal in [json!("TERM"), json!("SIGTERM"), json!(15)] {
        let started = ask.ok("exec.start", &start(json!(["sleep", "3600"]), null(), null()));
        let handle = || ("handle", started["handle"].clone());
        ask.ok("exec.signal", &[handle(), ("signal", signal)]);
        assert_eq!(ask.ok("exec.wait", &[handle()])["signal"], "SIGTERM");
    }

    ask.output.clear();
    let argv = json!(["/bin/sh", "-c", "read line; stty size"]);
    let started = ask.ok("exec.start", &start(argv, null(), json!({"rows": 10, "cols": 20, "term": "dumb"})));
    let handle = || ("handle", started["handle"].clone());
    ask.ok("exec.resize", &[handle(), ("rows", json!(33)), ("cols", json!(77))]);
    ask.ok("exec.stdin", &[handle(), ("data", blob(b"\n"))]);
    assert_eq!(ask.ok("exec.wait", &[handle()])["exit_code"], 0);
    assert!(ask.output.contains("33 77"), "{:?}", ask.output);
    refused(ask.ask("exec.wait", &[handle()]), FaultCode::InvalidParams);
}

#[test]
fn the_exec_module_answers_at_system_level_in_every_way() -> Result<()> {
    in_every_way(&guest()?, None, exec)
}

#[test]
fn the_exec_module_answers_at_user_level_in_every_way() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let _user = guest.user("nobody")?;
    in_every_way(&guest, Some("nobody"), exec)
}

#[test]
fn a_method_of_the_other_level_is_not_found_and_the_fault_names_the_level() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let _user = guest.user("nobody")?;
    in_every_way(&guest, Some("nobody"), |ask| {
        for method in SYSTEM {
            let fault = refused(ask.ask(method, &[]), FaultCode::MethodNotFound);
            let says = if method == "session.list" { "user level" } else { "system level only" };
            assert!(fault.message.contains(method) && fault.message.contains(says), "{fault}");
        }
    })
}

#[test]
fn what_is_unknown_or_does_not_fit_has_its_documented_code_in_every_way() -> Result<()> {
    in_every_way(&guest()?, None, |ask| {
        let fault = refused(ask.ask("no.such", &[]), FaultCode::MethodNotFound);
        assert!(fault.message.contains("no.such"), "{fault}");
        refused(ask.ask("va.describe", &[("method", json!("no.such"))]), FaultCode::MethodNotFound);
        refused(ask.ask("system.methodHelp", &[("method", json!("no.such"))]), FaultCode::MethodNotFound);
        let fault = refused(ask.ask("file.stat", &[]), FaultCode::InvalidParams);
        assert!(fault.message.contains("path"), "{fault}");
        refused(ask.ask("file.stat", &[("path", json!(7))]), FaultCode::InvalidParams);
        refused(ask.ask("file.stat", &[("path", json!("relative"))]), FaultCode::InvalidParams);
        let more = [("path", json!("/")), ("follow", json!(true)), ("more", json!(1))];
        let fault = refused(ask.ask("file.stat", &more), FaultCode::InvalidParams);
        assert!(!ask.by_name || fault.message.contains("more"), "{fault}");
        refused(
            ask.ask("file.open", &[("path", json!("/etc/hostname")), ("mode", json!("x"))]),
            FaultCode::InvalidParams,
        );
        refused(ask.ask("exec.run", &[]), FaultCode::InvalidParams);
        refused(ask.ask("va.cancel", &[("tag", json!(""))]), FaultCode::InvalidParams);
    })
}

#[test]
fn unknown_users_and_users_without_a_session_have_their_documented_codes() -> Result<()> {
    let guest = guest()?;
    in_every_way(&guest, Some("no-such-user"), |ask| {
        refused(ask.ask("va.ping", &[]), FaultCode::NoSuchUser);
    })?;
    for unknown in ["4294967", "99999999999", "-1", "", "../root", "@nobody"] {
        in_every_way(&guest, Some(unknown), |ask| {
            refused(ask.ask("va.ping", &[]), FaultCode::NoSuchUser);
        })?;
    }
    in_every_way(&guest, Some("daemon"), |ask| {
        refused(ask.ask("va.ping", &[]), FaultCode::NoSession);
    })
}

#[test]
fn power_is_not_enabled_on_this_machine_and_the_fault_names_the_module() -> Result<()> {
    in_every_way(&guest()?, None, |ask| {
        // No parameters that would do anything, should it ever be enabled by mistake.
        for method in POWER {
            let fault = refused(ask.ask("va.describe", &[("method", json!(method))]), FaultCode::MethodNotFound);
            assert!(fault.message.contains(method), "{fault}");
        }
        let fault = refused(ask.ask("power.cancel_shutdown", &[]), FaultCode::MethodNotFound);
        assert!(fault.message.contains("module power"), "{fault}");
    })
}

#[test]
fn a_module_that_is_not_enabled_is_named_in_the_fault() -> Result<()> {
    let guest = Setup::default().modules(&["info"]).start()?;
    in_every_way(&guest, None, |ask| {
        for (method, module) in [("file.stat", "files"), ("exec.run", "exec")] {
            let params = [("path", json!("/"))];
            let params = if module == "files" { &params[..] } else { &[] };
            let fault = refused(ask.ask(method, params), FaultCode::MethodNotFound);
            assert!(fault.message.contains(&format!("module {module}")), "{fault}");
        }
    })
}

#[test]
fn policy_refuses_power_before_anybody_asks_whether_it_is_there() -> Result<()> {
    let config =
        "[policy]\ndefault = \"allow\"\n[[policy.rule]]\naction = \"deny\"\nmethod = [\"power.*\", \"va.shutdown\"]\n";
    let guest = Setup::default().config(config).start()?;
    in_every_way(&guest, None, |ask| {
        for method in POWER {
            let fault = refused(ask.ask(method, &[]), FaultCode::Denied);
            assert!(fault.message.contains("virtagentd.toml:3") && fault.message.contains("rule 1"), "{fault}");
        }
    })
}

#[test]
fn a_host_can_not_say_what_only_a_session_says() -> Result<()> {
    in_every_way(&guest()?, None, |ask| {
        for method in
            ["session.hello", "session.replaced", "session.host_left", "va.hello", "host.event", "exec.output"]
        {
            refused(ask.ask(method, &[]), FaultCode::MethodNotFound);
        }
    })
}

#[test]
fn a_session_can_not_call_the_system_level_beyond_ping_and_capabilities() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let mut session = guest.session(65534)?;
    session.hello()?;
    let methods =
        ["session.list", "session.hello", "file.stat", "exec.run", "info.get", "system.multicall", "va.cancel"];
    for (number, method) in methods.into_iter().enumerate() {
        let tag = format!("reserved-{number:08}");
        session.call_as("@system", &tag, method, json!(null))?;
        let fault = session.answer(&tag)?.expect_err(method);
        let expected = if method == "session.hello" { FaultCode::InvalidRequest } else { FaultCode::Denied };
        assert!(fault.is(expected), "{method}: {fault}");
    }
    for (tag, method) in [("allowed-00000001", "va.ping"), ("allowed-00000002", "va.capabilities")] {
        session.call_as("@system", tag, method, json!(null))?;
        session.answer(tag)?.map_err(anyhow::Error::from)?;
    }
    // Without the system as its recipient a call is for the host, who is not there.
    for (number, method) in ["va.ping", "session.list", "session.replaced", "file.stat"].into_iter().enumerate() {
        let tag = format!("to-host-{number:08}");
        session.call(&tag, method, json!(null))?;
        refused(session.answer(&tag)?, FaultCode::Unavailable);
    }
    Ok(())
}

#[test]
fn a_connection_that_is_no_session_yet_can_call_nothing() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = guest()?;
    let mut stranger = guest.session(65534)?;
    for (number, method) in ["va.ping", "va.capabilities", "host.event", "session.list"].into_iter().enumerate() {
        let tag = format!("stranger-{number:08}");
        stranger.call_as("@system", &tag, method, json!(null))?;
        refused(stranger.answer(&tag)?, FaultCode::InvalidRequest);
    }
    Ok(())
}
