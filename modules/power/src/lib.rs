//! virtagent module: power, at system level. Brings the machine down, after the answer and after a delay.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `lib.rs` | the descriptor, the methods, and the one shutdown that is planned |
//! | `machine.rs` | the ways to bring the machine down, one after the other |
//! | `logind.rs` | the first of them |
//! | `settings.rs` | which bus and which programs these are |
//!
//! The delay is a task of this daemon and not logind's, so that a call can take it back. It outlives the caller: a host's
//! command has gone long before the machine does.
#![forbid(unsafe_code)]

mod error;
mod logind;
mod machine;
mod settings;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use agent_core::module::HostCaller;
use agent_core::module::prelude::*;
use tokio::task::JoinHandle;

use crate::machine::{Machine, Mode};

inventory::submit! {
    Descriptor::new::<Power>("power", env!("CARGO_PKG_VERSION"), Levels::System).shared()
}

/// The machine's power switch.
pub struct Power {
    machine: Arc<Machine>,
    host: Arc<dyn HostCaller>,
    plan: RefCell<Option<Plan>>,
}

/// How long the reply has to be written before the machine goes down.
const GRACE: Duration = Duration::from_millis(500);
/// What the 2011 method promises.
const DELAY_2011: Duration = Duration::from_secs(5);
/// A week.
const MAX_DELAY: u64 = 7 * 24 * 60 * 60;
const MAX_MESSAGE: usize = 1024;

/// A shutdown to come.
struct Plan {
    /// Set by who decides its fate: the task when it acts, or who takes it back.
    decided: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Plan {
    /// Takes it back, unless it has begun.
    fn take_back(&self) -> bool {
        let first = !self.decided.swap(true, Ordering::AcqRel);
        if first {
            self.task.abort();
        }
        first
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shutdown {
    /// How; without it powerdown.
    mode: Option<Mode>,
    /// Seconds from now, at most a week; without it none.
    delay: Option<u64>,
    /// What users who are logged in are told.
    message: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Planned {
    /// When the machine goes down (RFC 3339, UTC).
    at: String,
}

/// No parameters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// Whether there was one to cancel, and it had not begun.
    cancelled: bool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Shutdown2011 {
    /// How.
    mode: Mode,
}

impl Module for Power {
    fn build(env: &ModuleEnv) -> Result<Self, BuildError> {
        let machine = Arc::new(Machine::new(env.settings()?));
        Ok(Self { machine, host: Arc::clone(&env.host), plan: RefCell::default() })
    }

    fn methods() -> Methods<Self> {
        Methods::new()
            .add(
                "power.shutdown",
                "Powers the machine off, halts or reboots it, half a second after the answer or later; a plan made before is replaced.",
                Self::shutdown,
            )
            .add("power.cancel_shutdown", "Takes back a shutdown that has not begun.", Self::cancel_shutdown)
            .add("va.shutdown", "Powers the machine off, halts or reboots it five seconds later.", Self::shutdown_2011)
    }

    async fn stop(self: Rc<Self>) {
        if self.plan.take().is_some_and(|plan| plan.take_back()) {
            tracing::warn!("a planned shutdown is forgotten, for the daemon stops");
        }
    }
}

impl Power {
    async fn shutdown(self: Rc<Self>, _: CallContext, params: Shutdown) -> Result<Planned, Fault> {
        let delay = params.delay.unwrap_or(0);
        if delay > MAX_DELAY {
            return Err(Fault::invalid_params(format!("delay {delay}: at most {MAX_DELAY} seconds, a week")));
        }
        let message = params.message.filter(|message| !message.is_empty());
        if message.as_ref().is_some_and(|text| text.len() > MAX_MESSAGE || text.chars().any(char::is_control)) {
            return Err(Fault::invalid_params(format!("message: one line of at most {MAX_MESSAGE} bytes")));
        }
        let delay = Duration::from_secs(delay) + GRACE;
        let at = self.plan(params.mode.unwrap_or_default(), delay, message).await?;
        Ok(Planned { at: humantime::format_rfc3339_seconds(at).to_string() })
    }

    async fn shutdown_2011(self: Rc<Self>, _: CallContext, params: Shutdown2011) -> Result<String, Fault> {
        self.plan(params.mode, DELAY_2011, None).await?;
        Ok(format!("{} in {} seconds", params.mode, DELAY_2011.as_secs()))
    }

    async fn cancel_shutdown(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<Cancelled, Fault> {
        let cancelled = self.plan.borrow().as_ref().is_some_and(Plan::take_back);
        Ok(Cancelled { cancelled })
    }

    /// Plans a shutdown in place of one that has not begun, if there is any way to bring the machine down.
    async fn plan(&self, mode: Mode, delay: Duration, message: Option<String>) -> Result<SystemTime, Fault> {
        self.machine.check(mode).await?;
        let mut plan = self.plan.borrow_mut();
        if plan.as_ref().is_some_and(|earlier| !earlier.take_back() && !earlier.task.is_finished()) {
            return Err(Fault::new(FaultCode::Busy, "the machine is going down already"));
        }
        let decided = Arc::new(AtomicBool::new(false));
        let (machine, host, undecided) = (Arc::clone(&self.machine), Arc::clone(&self.host), Arc::clone(&decided));
        let task = tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            if !undecided.swap(true, Ordering::AcqRel)
                && let Err(error) = machine.bring_down(mode, message).await
            {
                tracing::error!("{error}");
                tell_host(&*host, mode, &error.to_string()).await;
            }
        });
        *plan = Some(Plan { decided, task });
        Ok(SystemTime::now() + delay)
    }
}

/// The host has its answer long since, so a failure comes as an event.
async fn tell_host(host: &dyn HostCaller, mode: Mode, error: &str) {
    let Ok(method) = "host.event".parse() else { return };
    let data = Value::object([("mode", mode.to_string().into()), ("error", error.into())]);
    let event = Value::object([("topic", "power.failed".into()), ("data", data)]);
    if let Err(fault) = host.call_host(method, vec![event]).await {
        tracing::warn!("the host was not told: {fault}");
    }
}
