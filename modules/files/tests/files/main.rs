//! The module through its real method table, on real files.
#![allow(clippy::unwrap_used)]

mod handles;
mod paths;
mod replace;
mod transfer;
mod tree;

use std::path::{Path, PathBuf};

use agent_core::module::testing::Harness;
use agent_core::module::{Level, OwnerId};
use agent_core::rpc::{Fault, Outcome, Value};
use tempfile::TempDir;
use virtagent_files::Files;

/// The module at one level, with a directory of its own to work in.
struct Lab {
    files: Harness<Files>,
    directory: TempDir,
}

const ALICE: OwnerId = OwnerId(1);
const BOB: OwnerId = OwnerId(2);

impl Lab {
    fn new() -> Self {
        Self::with("")
    }

    fn with(settings: &str) -> Self {
        Self::at(Level::System, settings)
    }

    fn at(level: Level, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().canonicalize().unwrap();
        Self { files: Harness::new(level, home, settings.parse().unwrap()), directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().canonicalize().unwrap()
    }

    /// A path in the directory.
    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.root()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn call<const N: usize>(&self, method: &str, params: [(&str, Value); N]) -> Outcome {
        self.files.call_named(method, params).await
    }

    async fn call_as<const N: usize>(&self, owner: OwnerId, method: &str, params: [(&str, Value); N]) -> Outcome {
        self.files.call_as(owner, method, vec![Value::object(params)]).await
    }

    async fn open(&self, path: &Path, mode: &str) -> i64 {
        handle(&self.call("file.open", [("path", text(path)), ("mode", mode.into())]).await.unwrap())
    }

    async fn write_to(&self, handle: i64, data: &[u8]) -> Value {
        self.call("file.write", [("handle", handle.into()), ("data", blob(data))]).await.unwrap()
    }

    async fn close(&self, handle: i64) -> Outcome {
        self.call("file.close", [("handle", handle.into())]).await
    }
}

fn text(path: &Path) -> Value {
    path.to_str().unwrap().into()
}

fn blob(data: &[u8]) -> Value {
    Value::Bytes(bytes::Bytes::copy_from_slice(data))
}

fn handle(opened: &Value) -> i64 {
    opened.get("handle").unwrap().as_int().unwrap()
}

/// The errno's name of an OS fault.
fn errno(outcome: Outcome) -> String {
    let fault = outcome.unwrap_err();
    let name = fault.data.as_ref().and_then(|data| data.get("name")?.as_str().map(str::to_owned));
    name.unwrap_or_else(|| panic!("not an OS fault: {fault}"))
}

fn fault(outcome: Outcome) -> Fault {
    outcome.unwrap_err()
}

fn data(outcome: &Outcome) -> &[u8] {
    outcome.as_ref().unwrap().get("data").unwrap().as_bytes().unwrap()
}
