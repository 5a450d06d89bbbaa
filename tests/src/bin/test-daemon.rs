//! `virtagentd` with one module more, which misbehaves in every way that a module can.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use agent_core::module::prelude::*;

inventory::submit! { Descriptor::new::<Trouble>("trouble", env!("CARGO_PKG_VERSION"), Levels::Both) }

/// Panics, blocks and hangs on request.
struct Trouble {
    calls: Cell<i64>,
}

#[derive(Deserialize)]
struct Settings {
    #[serde(default)]
    panic_in_build: bool,
}

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct Milliseconds {
    /// For how long.
    ms: u64,
}

impl Module for Trouble {
    fn build(env: &ModuleEnv) -> Result<Self, BuildError> {
        assert!(!env.settings::<Settings>()?.panic_in_build, "as the settings want it");
        Ok(Self { calls: Cell::new(0) })
    }

    fn methods() -> Methods<Self> {
        Methods::new()
            .add("trouble.count", "How many calls this instance has had.", Self::count)
            .add("trouble.panic", "Panics.", Self::panic)
            .add("trouble.block", "Blocks its thread.", Self::block)
            .add("trouble.hang", "Never answers.", Self::hang)
    }
}

impl Trouble {
    async fn count(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<i64, Fault> {
        self.calls.set(self.calls.get() + 1);
        Ok(self.calls.get())
    }

    async fn panic(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<i64, Fault> {
        panic!("as it was asked to");
    }

    async fn block(self: Rc<Self>, _: CallContext, params: Milliseconds) -> Result<i64, Fault> {
        #[allow(clippy::disallowed_methods, reason = "to block the event loop is what it is for")]
        std::thread::sleep(Duration::from_millis(params.ms));
        Ok(0)
    }

    async fn hang(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<i64, Fault> {
        std::future::pending().await
    }
}

fn main() -> std::process::ExitCode {
    virtagentd::run()
}
