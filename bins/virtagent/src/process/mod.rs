//! One program of the guest, its streams connected to ours, until it ends.
//!
//! Owns the order of its output, its input, its signals and what exit code they make. Output is written before it is
//! answered, so that a slow reader here slows the program there.

mod input;
mod output;

pub use self::input::Input;

use std::time::Duration;

use agent_core::link::Incoming;
use agent_core::rpc::{Struct, Value};
use nix::errno::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cli::Global;
use crate::client::{Client, Params, int};
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::terminal::{self, RawMode};

/// How many Ctrl-C end our waiting.
const PATIENCE: u32 = 3;

/// How long the guest may take to kill a program whose time is over.
const KILLING: Duration = Duration::from_secs(2);

/// A program to run.
pub struct Job {
    /// The parameters of `exec.start`, without `stdin` and `pty`.
    pub params: Struct,
    /// What goes to its standard input.
    pub input: Input,
    /// Whether it gets a terminal.
    pub tty: bool,
}

/// Connects, runs the program, and returns the exit code that stands for how it ended.
pub async fn run(global: &Global, job: Job) -> Result<u8> {
    let (desk, outputs) = Desk::with_outputs();
    let client = Client::connect(global, desk).await?;
    if !client.is_ours() {
        return Err(Failure::guest(
            "the guest's agent is of 2011 and runs no programs: install virtagent in the guest",
        ));
    }
    let client = client.pinned().await?;
    let code = attend(&client, outputs, job, global.timeout).await;
    client.close().await;
    code
}

async fn attend(client: &Client, outputs: mpsc::Receiver<Incoming>, job: Job, limit: Option<Duration>) -> Result<u8> {
    let Job { params, input, tty } = job;
    let params = Params::from(params).flag("stdin", !tty && input != Input::Nothing);
    let params = if tty { params.with("pty", window(true)) } else { params };
    // From here the program's keys are not ours: Ctrl-C is a byte for it.
    let raw = if tty && terminal::stdin_is_terminal() { Some(RawMode::enter()?) } else { None };
    let started = client.call("exec.start", params.done()).await.map_err(not_started)?;
    let handle = int(&started, "exec.start", "handle")?;

    let mut output = tokio::spawn(output::take(outputs, handle, client.user().map(str::to_owned)));
    let mut feeding = tokio::spawn(input::feed(client.clone(), handle, input, raw.is_some()));
    let waiting = client.within(Duration::ZERO);
    let wait = waiting.call("exec.wait", of(handle).done());
    tokio::pin!(wait);
    let deadline = limit.filter(|limit| !limit.is_zero()).map(|limit| tokio::time::Instant::now() + limit);
    let mut signals = Signals::new()?;
    let (mut interrupts, mut fed) = (0, false);
    loop {
        tokio::select! {
            status = &mut wait => {
                feeding.abort();
                // Everything was written before it was answered; what is left is a failure to write, if anything.
                output.abort();
                return match (&mut output).await {
                    Ok(Err(failure)) => Err(failure),
                    _ => exit_code(&status?),
                };
            }
            failed = &mut output => return Err(match failed {
                Ok(Err(failure)) => failure,
                _ => Failure::guest("the program's output stopped before it ended"),
            }),
            left = &mut feeding, if !fed => {
                fed = true;
                match left {
                    Ok(Ok(true)) => {
                        drop(raw);
                        crate::output::note("\nvirtagent: left the session; the guest ends what ran in it");
                        return Ok(0);
                    }
                    Ok(Err(failure)) => return Err(failure),
                    _ => {}
                }
            }
            event = signals.next() => match event {
                Event::Resized if tty => {
                    let resize = Params::from(window(false)).with("handle", Value::Int(handle)).done();
                    spawn_quietly(client, "exec.resize", resize);
                }
                Event::Resized => {}
                Event::Signal(name) => {
                    interrupts += u32::from(name == "SIGINT");
                    if interrupts >= PATIENCE {
                        return Err(Failure::Interrupted("interrupted; the guest ends the program".to_owned()));
                    }
                    let signal = of(handle).with("signal", name).done();
                    spawn_quietly(client, "exec.signal", signal);
                    if raw.is_some() && matches!(name, "SIGHUP" | "SIGTERM") {
                        return Err(Failure::Interrupted(format!("ended by {name}; the guest ends the program")));
                    }
                }
            },
            () = until(deadline) => {
                let kill = of(handle).with("signal", "SIGKILL").done();
                let _ = client.within(KILLING).call("exec.signal", kill).await;
                let limit = humantime::format_duration(limit.unwrap_or_default());
                return Err(Failure::TimedOut(format!("the program ran longer than --timeout {limit}; it was killed")));
            }
            reason = client.closed() => {
                return Err(Failure::NoConnection(format!("{}: the link ended while the program ran: {reason}", client.target().name)));
            }
        }
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn of(handle: i64) -> Params {
    Params::new().with("handle", Value::Int(handle))
}

/// The window's size as `exec.start` and `exec.resize` take it.
fn window(with_term: bool) -> Struct {
    let (rows, cols) = terminal::size();
    let term = std::env::var("TERM").ok().filter(|term| with_term && !term.is_empty());
    Params::new().with("rows", Value::Int(rows.into())).with("cols", Value::Int(cols.into())).maybe("term", term).done()
}

/// Makes a call whose outcome changes nothing: the program may have ended this moment.
fn spawn_quietly(client: &Client, method: &'static str, params: Struct) {
    let client = client.clone();
    tokio::spawn(async move { client.call(method, params).await });
}

/// A program that can't be started ends as in a shell: 127 when it is not there, 126 when it can't be run.
fn not_started(failure: Failure) -> Failure {
    let code = match failure.errno() {
        Some(Errno::ENOENT) => 127,
        Some(Errno::EACCES | Errno::ENOEXEC) => 126,
        _ => return failure,
    };
    Failure::NotStarted { code, message: failure.to_string() }
}

/// The exit code, or 128 and the signal's number.
fn exit_code(status: &Value) -> Result<u8> {
    if let Some(code) = status.get("exit_code").and_then(Value::as_int) {
        return Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX));
    }
    let signal = match status.get("signal") {
        Some(Value::String(name)) => name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i64),
        Some(Value::Int(number)) => Some(*number),
        _ => return Err(crate::client::missing("exec.wait", "exit_code")),
    };
    // A real-time signal has no name here.
    Ok(signal.and_then(|number| u8::try_from(128 + number).ok()).unwrap_or(u8::MAX))
}

/// What arrives here while the program runs.
enum Event {
    Signal(&'static str),
    Resized,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    quit: Signal,
    resize: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |kind| signal(kind).map_err(|error| Failure::usage(format!("can't take signals: {error}")));
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: of(SignalKind::hangup())?,
            quit: of(SignalKind::quit())?,
            resize: of(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.interrupt.recv() => Event::Signal("SIGINT"),
            _ = self.terminate.recv() => Event::Signal("SIGTERM"),
            _ = self.hang_up.recv() => Event::Signal("SIGHUP"),
            _ = self.quit.recv() => Event::Signal("SIGQUIT"),
            _ = self.resize.recv() => Event::Resized,
        }
    }
}

#[cfg(test)]
mod tests {
    use agent_core::rpc::Fault;

    use super::*;

    #[test]
    fn a_program_ends_with_its_code_or_128_and_its_signal() {
        assert_eq!(exit_code(&Value::object([("exit_code", Value::Int(7))])).unwrap(), 7);
        assert_eq!(exit_code(&Value::object([("signal", "SIGKILL".into())])).unwrap(), 137);
        assert_eq!(exit_code(&Value::object([("signal", "SIGRTMIN+1".into())])).unwrap(), 255);
        assert!(exit_code(&Value::Nil).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_is_127() {
        let failure = Failure::fault("exec.start", Fault::errno("start nope", Errno::ENOENT));
        assert_eq!(not_started(failure).exit_code(), 127);
        let failure = Failure::fault("exec.start", Fault::errno("start /etc/passwd", Errno::EACCES));
        assert_eq!(not_started(failure).exit_code(), 126);
        let failure = Failure::fault("exec.start", Fault::unavailable("no"));
        assert_eq!(not_started(failure).exit_code(), 1);
    }
}
