//! Programs: run to their end (`exec.run`), or started with their output pushed to the host as it comes
//! (`exec.start` and what follows), on pipes or on a terminal.
//!
//! # Promises
//! - A program leads a session and a process group of its own. The whole group ends with its call (`exec.run`), its
//!   caller or the daemon: SIGTERM (on a terminal SIGHUP too), SIGKILL after `kill_grace_ms`. When the program itself
//!   ends, what it left behind in its group (`something &`) ends too, within half a second; on a terminal, what it left
//!   in its session. To leave something running, start it as a service (`systemd-run`).
//! - Should the daemon itself be killed, the kernel kills the program (not what the program started, and not one that
//!   changed its user; systemd ends those with the unit).
//! - A program inherits nothing of the daemon: three file descriptors, default signals, umask 022, and the environment
//!   that `environment` describes.
//! - The event loop never waits: programs are started by threads (`pool`) and watched by descriptors.
//!
//! # Layout
//! `child` the system calls · `pool`, `launch`, `terminal` starting · `group` signals and burial ·
//! `stream`, `oversee` one program's life · `run` and `started`, `push` the two kinds of methods ·
//! `owners`, `live` who has what · `command`, `environment`, `params`, `settings`, `signals`, `error`.
#![deny(unsafe_code)]

mod child;
mod command;
mod environment;
mod error;
mod group;
mod launch;
mod live;
mod oversee;
mod owners;
mod params;
mod pool;
mod push;
mod run;
mod settings;
mod signals;
mod started;
mod stream;
mod terminal;

use agent_core::module::prelude::*;
use agent_core::rpc::MethodName;

use crate::environment::Base;
use crate::error::ExecError;
use crate::live::Census;
use crate::owners::Owners;
use crate::params::{
    Done, HandleParams, ResizeParams, RunParams, RunResult, SignalParams, StartParams, StartResult, StdinParams,
    WaitResult,
};
use crate::settings::Settings;
use crate::started::Receiver;

/// The module.
pub struct Exec {
    settings: Settings,
    base: Base,
    owners: Owners,
    census: Census,
    output: MethodName,
}

inventory::submit! {
    Descriptor::new::<Exec>("exec", env!("CARGO_PKG_VERSION"), Levels::Both).shared()
}

impl Module for Exec {
    fn build(env: &ModuleEnv) -> Result<Self, BuildError> {
        let settings = env.settings::<Settings>()?.check()?;
        child::keep_ended_children();
        let unavailable = |error: String| BuildError::Unavailable(error);
        Ok(Self {
            base: Base::new(env),
            owners: Owners::new(settings.max_processes).map_err(|errno| unavailable(format!("getrandom: {errno}")))?,
            census: Census::new(),
            output: "exec.output".parse::<MethodName>().map_err(|error| unavailable(error.to_string()))?,
            settings,
        })
    }

    fn methods() -> Methods<Self> {
        Methods::new()
            .add(
                "exec.run",
                "Runs a program or a script to its end and answers its output and how it ended.",
                Self::run,
            )
            .secret(&["env", "stdin"])
            .add(
                "exec.start",
                "Starts a program or a script; its output comes as calls of exec.output, its end by exec.wait.",
                Self::start,
            )
            .secret(&["env"])
            .add("exec.stdin", "Writes to a started program's input; answers when it took all.", Self::stdin)
            .secret(&["data"])
            .add("exec.close_stdin", "Ends a started program's input (on a terminal: types Ctrl-D).", Self::close_stdin)
            .add("exec.signal", "Sends a signal to a started program and its whole group.", Self::signal)
            .add("exec.resize", "Sets the size of a started program's terminal.", Self::resize)
            .add(
                "exec.wait",
                "Answers how a started program ended, after the host answered all its output; releases the handle.",
                Self::wait,
            )
    }

    fn owner_gone(self: Rc<Self>, owner: OwnerId) {
        self.owners.gone(owner);
    }

    async fn stop(self: Rc<Self>) {
        self.owners.stop();
        self.census.none().await;
    }
}

impl Exec {
    async fn run(self: Rc<Self>, cx: CallContext, params: RunParams) -> Result<RunResult, Fault> {
        let slot = self.owners.slot(cx.owner)?;
        let result = run::run(&self.settings, &self.base, slot, self.census.enter(), params).await?;
        cx.reserve(result.stdout.0.len() + result.stderr.0.len()).await;
        Ok(result)
    }

    async fn start(self: Rc<Self>, cx: CallContext, params: StartParams) -> Result<StartResult, Fault> {
        let slot = self.owners.slot(cx.owner)?;
        let handle = self.owners.next_handle();
        let receiver = Receiver { host: cx.host(), method: self.output.clone(), handle };
        let program = started::start(&self.settings, &self.base, slot, self.census.enter(), params, receiver).await?;
        let pid = program.pid();
        self.owners.keep(cx.owner, handle, program)?;
        Ok(StartResult { handle, pid })
    }

    async fn stdin(self: Rc<Self>, cx: CallContext, params: StdinParams) -> Result<Done, Fault> {
        self.owners.find(cx.owner, params.handle)?.write(params.data.0).await?;
        Ok(Done {})
    }

    async fn close_stdin(self: Rc<Self>, cx: CallContext, params: HandleParams) -> Result<Done, Fault> {
        self.owners.find(cx.owner, params.handle)?.close_input().await?;
        Ok(Done {})
    }

    async fn signal(self: Rc<Self>, cx: CallContext, params: SignalParams) -> Result<Done, Fault> {
        let number = signals::number(&params.signal)?;
        self.owners.find(cx.owner, params.handle)?.signal(number)?;
        Ok(Done {})
    }

    async fn resize(self: Rc<Self>, cx: CallContext, params: ResizeParams) -> Result<Done, Fault> {
        self.owners.find(cx.owner, params.handle)?.resize(params.rows, params.cols)?;
        Ok(Done {})
    }

    async fn wait(self: Rc<Self>, cx: CallContext, params: HandleParams) -> Result<WaitResult, Fault> {
        let outcome = self.owners.find(cx.owner, params.handle)?.outcome().await;
        self.owners.release(cx.owner, params.handle);
        outcome.map_err(|error| match &*error {
            ExecError::Stuck(pid) => ExecError::Stuck(*pid).into(),
            _ => ExecError::Lost.into(),
        })
    }
}
