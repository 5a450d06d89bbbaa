//! What the local tests say often.

use std::sync::atomic::{AtomicU32, Ordering};

use agent_core::link::CallOptions;
use agent_core::rpc::{Fault, FaultCode};
use anyhow::Result;
use serde_json::{Value as Json, json};
use virtagent_tests::local::{LIMIT, processes};
use virtagent_tests::wait;

/// Bytes of a result as text.
pub fn text(bytes: &Json) -> String {
    use base64::Engine;
    let coded = bytes["$base64"].as_str().unwrap_or_else(|| panic!("no bytes: {bytes}"));
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(coded).unwrap()).unwrap()
}

/// Bytes as a parameter.
pub fn blob(bytes: &[u8]) -> Json {
    use base64::Engine;
    json!({"$base64": base64::engine::general_purpose::STANDARD.encode(bytes)})
}

/// The fault of a call that has to fail in that way.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, Fault>, code: FaultCode) -> Fault {
    match outcome {
        Err(fault) if fault.is(code) => fault,
        other => panic!("wanted the fault {:?}, got {other:?}", code.name()),
    }
}

/// A number of seconds for `sleep` that no other test waits for: it finds the process again.
pub fn unique_seconds() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("3600.{:07}{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until a process with that text in its command line runs, and gives all of them.
pub fn running(text: &str) -> Result<Vec<u32>> {
    wait::until(
        LIMIT,
        &format!("a process with {text:?}"),
        || Ok(Some(processes(text)).filter(|pids| !pids.is_empty())),
    )
}

/// Parameters of a program that runs for an hour and starts another one that does.
pub fn endless(seconds: &str) -> Json {
    json!({"argv": ["/bin/sh", "-c", format!("sleep {seconds} & sleep {seconds}")]})
}

/// A call without any deadline.
pub fn without_deadline(user: Option<&str>) -> CallOptions {
    let timeout = Some(std::time::Duration::ZERO);
    CallOptions { username: user.map(str::to_owned), timeout, ..CallOptions::default() }
}
