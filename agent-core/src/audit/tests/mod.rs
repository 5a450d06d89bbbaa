//! The log as its users meet it: written by its thread, read back, altered, cut, filled up.

mod bench;
mod chain;
mod disk;
mod readers;
mod writing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::*;
use crate::module::{CallId, Level};
use crate::rpc::Value;

/// A directory for a log of its own.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("audit.jsonl")
    }

    fn settings(&self) -> AuditSettings {
        AuditSettings { file: Some(self.log()), journal: false, ..AuditSettings::default() }
    }

    fn start(&self) -> Audit {
        Audit::start(&self.settings()).unwrap()
    }

    fn content(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    fn records(&self) -> Vec<Json> {
        self.content().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A closed log: start, a call with its outcome, a denied call, an event, stop.
    async fn sample(&self) {
        let audit = self.start();
        let recorded = audit.open(opening(1, "exec.run", Some("alice"))).await.unwrap();
        audit.close(recorded, closing()).await;
        let denied = Opening { verdict: Verdict::Deny, rule: "policy.toml:3".into(), ..opening(2, "file.write", None) };
        audit.refuse(denied, &crate::rpc::Fault::new(crate::rpc::FaultCode::Denied, "not here")).await;
        audit.event(Event::new("host.away")).await;
        audit.stop().await;
    }
}

fn opening(id: u64, method: &str, user: Option<&str>) -> Opening {
    Opening {
        id: CallId(id),
        direction: Direction::HostToGuest,
        origin: Source::Host,
        level: if user.is_some() { Level::User } else { Level::System },
        user: user.map(Into::into),
        uid: user.map(|_| nix::unistd::Uid::from_raw(1000)),
        method: method.parse().unwrap(),
        tag: Some("0000000100000001".parse().unwrap()),
        encoding: Some(crate::encoding::Encoding::Json),
        params: json!({ "argv": ["id"] }),
        verdict: Verdict::Allow,
        rule: "default".into(),
    }
}

fn closing() -> Closing {
    Closing::new(&Ok(Value::Nil), &[], Duration::from_micros(1234), 100, 10)
}

fn kinds(records: &[Json]) -> Vec<&str> {
    records.iter().map(|record| record["type"].as_str().unwrap()).collect()
}

fn sound(log: &Path) -> VerifyReport {
    let report = verify(log).unwrap();
    assert!(report.is_sound(), "{report}");
    report
}

fn broken(log: &Path) -> Break {
    let report = verify(log).unwrap();
    report.broken.unwrap_or_else(|| panic!("taken for sound"))
}
