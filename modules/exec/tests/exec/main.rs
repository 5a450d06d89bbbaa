//! The module with real programs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod bench;
mod endings;
mod run;
mod start;
mod terminal;

use std::future::Future;
use std::time::{Duration, Instant};

use agent_core::module::Level;
use agent_core::module::testing::Harness;
use agent_core::rpc::{Fault, MethodName, Value};
use tokio::sync::mpsc::UnboundedReceiver;
use virtagent_exec::Exec;

/// A module at system level with short graces, so that tests of stubborn programs end soon.
fn module() -> Harness<Exec> {
    Harness::new(Level::System, "/root", toml::from_str("kill_grace_ms = 300\nmax_processes = 256").unwrap())
}

fn argv(words: &[&str]) -> Value {
    Value::Array(words.iter().map(|word| (*word).into()).collect())
}

fn sh(script: &str) -> Value {
    argv(&["sh", "-c", script])
}

/// What `exec.run` answered.
struct Ran(Value);

impl Ran {
    fn code(&self) -> Option<i64> {
        self.0.get("exit_code")?.as_int()
    }
    fn signal(&self) -> Option<&str> {
        self.0.get("signal")?.as_str()
    }
    fn bytes(&self, name: &str) -> &[u8] {
        self.0.get(name).unwrap().as_bytes().unwrap()
    }
    fn stdout(&self) -> String {
        String::from_utf8_lossy(self.bytes("stdout")).into_owned()
    }
    fn stderr(&self) -> String {
        String::from_utf8_lossy(self.bytes("stderr")).into_owned()
    }
    fn flag(&self, name: &str) -> bool {
        self.0.get(name).unwrap().as_bool().unwrap()
    }
}

async fn try_run<const N: usize>(module: &Harness<Exec>, params: [(&str, Value); N]) -> Result<Ran, Fault> {
    module.call_named("exec.run", params).await.map(Ran)
}

async fn run<const N: usize>(module: &Harness<Exec>, params: [(&str, Value); N]) -> Ran {
    try_run(module, params).await.unwrap()
}

async fn start<const N: usize>(module: &Harness<Exec>, params: [(&str, Value); N]) -> (Value, i64) {
    let started = module.call_named("exec.start", params).await.unwrap();
    (started.get("handle").unwrap().clone(), started.get("pid").unwrap().as_int().unwrap())
}

/// One `exec.output` that the host got.
#[derive(Debug)]
struct Pushed {
    stream: String,
    seq: i64,
    data: Vec<u8>,
    eof: bool,
}

type HostCalls = UnboundedReceiver<(MethodName, Vec<Value>)>;

async fn pushed(calls: &mut HostCalls) -> Pushed {
    let (method, params) = soon(calls.recv()).await.expect("the module is there");
    assert_eq!(method, "exec.output");
    let get = |name| params[0].get(name).unwrap();
    Pushed {
        stream: get("stream").as_str().unwrap().to_owned(),
        seq: get("seq").as_int().unwrap(),
        data: get("data").as_bytes().unwrap().to_vec(),
        eof: get("eof").as_bool().unwrap(),
    }
}

/// Takes output until what came contains `text`.
async fn pushed_until(calls: &mut HostCalls, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let chunk = pushed(calls).await;
        all.push_str(&String::from_utf8_lossy(&chunk.data));
        assert!(!chunk.eof || all.contains(text), "the end came before {text:?}, after {all:?}");
    }
    all
}

/// What must not take long, with a bound that only a defect reaches.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this hangs")
}

/// Waits until it is so.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "not so within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Whether a process is there and not just unburied.
fn lives(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The process number that a program writes to a file, once it is there.
async fn pid_in(file: &std::path::Path) -> i64 {
    let mut pid = None;
    until("the program writes its number", || {
        pid =
            std::fs::read_to_string(file).ok().filter(|text| text.ends_with('\n')).and_then(|t| t.trim().parse().ok());
        pid.is_some()
    })
    .await;
    pid.unwrap()
}
