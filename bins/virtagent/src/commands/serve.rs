//! `serve`: answers the guest's calls with programs.
//!
//! Owns the handlers' processes: how many run, what they are given, when they are ended. The guest's words reach a
//! program only on its standard input and in two environment variables, never on a command line.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_core::link::Incoming;
use agent_core::rpc::{Fault, FaultCode, MethodName, Outcome, Value};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::events::{Event, stay};
use crate::cli::{Global, Serve};
use crate::failure::{Failure, Result, reason};
use crate::json::{from_value, to_value};
use crate::output::{clean, now, print_json_line, println};

/// How long a handler may run when the caller does not say.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest result.
const LONGEST_RESULT: u64 = 1 << 20;
/// How much of a handler's standard error is kept for the fault.
const LONGEST_ERROR: u64 = 4096;

pub async fn run(global: &Global, options: Serve) -> Result<u8> {
    let mut handlers = BTreeMap::new();
    for (method, program) in options.handlers {
        method.parse::<MethodName>().map_err(|error| Failure::usage(format!("--handler: {error}")))?;
        if handlers.insert(method.clone(), program).is_some() {
            return Err(Failure::usage(format!("--handler: {method} is given twice")));
        }
    }
    let methods = handlers.keys().cloned().collect();
    let jobs = Arc::new(Jobs::new(usize::from(options.jobs)));
    let json = global.json;
    stay(global, options.reconnect, methods, async |incoming| {
        if !handlers.contains_key(incoming.call.method.as_str())
            && let Some(event) = Event::of(&incoming)
        {
            incoming.answer(Ok(Value::Nil)).await;
            return event.print(json);
        }
        let Some(program) = handlers.get(incoming.call.method.as_str()).cloned() else { return Ok(()) };
        match jobs.begin(incoming.username.as_deref()) {
            Some(job) => {
                tokio::spawn(handle(incoming, program, job, json));
            }
            None => {
                let fault = Fault::new(FaultCode::Busy, "the host runs as many handlers as it may; try again later");
                report(&incoming, &Err(fault.clone()), json)?;
                incoming.answer(Err(fault)).await;
            }
        }
        Ok(())
    })
    .await
}

/// How many handlers run, for whom: one user of the guest may have half of them.
struct Jobs {
    limit: usize,
    running: Mutex<BTreeMap<Option<String>, usize>>,
}

struct Job {
    jobs: Arc<Jobs>,
    user: Option<String>,
}

impl Jobs {
    fn new(limit: usize) -> Self {
        Self { limit, running: Mutex::default() }
    }

    fn begin(self: &Arc<Self>, user: Option<&str>) -> Option<Job> {
        let user = user.map(str::to_owned);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = running.values().sum();
        let theirs = running.get(&user).copied().unwrap_or(0);
        if all >= self.limit || theirs >= self.limit.div_ceil(2) {
            return None;
        }
        running.insert(user.clone(), theirs + 1);
        Some(Job { jobs: Arc::clone(self), user })
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut running = self.jobs.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                running.remove(&self.user);
            }
        }
    }
}

async fn handle(incoming: Incoming, program: String, job: Job, json: bool) {
    let limit = match incoming.timeout {
        Some(Duration::ZERO) | None => USUAL_TIMEOUT,
        Some(limit) => limit,
    };
    let outcome = tokio::select! {
        outcome = answer(&incoming, &program) => outcome,
        () = tokio::time::sleep(limit) => {
            let limit = humantime::format_duration(limit);
            Err(Fault::new(FaultCode::TimedOut, format!("the host's handler ran longer than {limit}")))
        }
        () = incoming.cancel.cancelled() => Err(Fault::new(FaultCode::Cancelled, "cancelled")),
    };
    drop(job);
    // That nobody reads our report must not cost the caller the answer.
    let _ = report(&incoming, &outcome, json);
    incoming.answer(outcome).await;
}

/// Kills a handler's whole group, which is its own, when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn answer(incoming: &Incoming, program: &str) -> Outcome {
    let failed =
        |error: std::io::Error| Fault::unavailable(format!("the host's handler can't be run: {}", reason(&error)));
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", program])
        .env("VIRTAGENT_METHOD", incoming.call.method.as_str())
        .env_remove("VIRTAGENT_USERNAME");
    if let Some(user) = &incoming.username {
        command.env("VIRTAGENT_USERNAME", user);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let input = format!("{}\n", parameters(&incoming.call.params));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A handler need not read its input.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), output, error, status) =
        tokio::join!(feed, take(stdout, LONGEST_RESULT), take(stderr, LONGEST_ERROR), child.wait());
    group.0 = None;
    let status = status.map_err(failed)?;
    if !status.success() {
        let said = String::from_utf8_lossy(&error);
        let first = said.lines().next().map(clean).filter(|line| !line.is_empty());
        return Err(Fault::unavailable(first.unwrap_or_else(|| format!("the host's handler failed: {status}"))));
    }
    if output.len() as u64 > LONGEST_RESULT {
        return Err(Fault::limit("the host's handler answered more than 1 MiB"));
    }
    result(&output)
}

/// Reads to the end, so that the handler never waits for us, and keeps one byte more than `limit` at most.
async fn take(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(limit + 1).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}

/// An object when they were named, else an array.
fn parameters(params: &[Value]) -> Json {
    match params {
        [named @ Value::Struct(_)] => from_value(named),
        others => Json::Array(others.iter().map(from_value).collect()),
    }
}

fn result(output: &[u8]) -> Outcome {
    let text = output.trim_ascii();
    if text.is_empty() {
        return Ok(Value::Nil);
    }
    let broken = |error: String| Fault::internal(format!("the host's handler answered no JSON: {error}"));
    let json: Json = serde_json::from_slice(text).map_err(|error| broken(error.to_string()))?;
    to_value(json).map_err(broken)
}

/// One line for whoever watches.
fn report(incoming: &Incoming, outcome: &Outcome, json: bool) -> Result<()> {
    let (method, user, time) = (incoming.call.method.as_str(), incoming.username.as_deref(), now());
    if json {
        let mut line = json!({ "time": time, "method": method, "params": parameters(&incoming.call.params) });
        if let Some(user) = user {
            line["user"] = json!(user);
        }
        match outcome {
            Ok(value) => line["result"] = from_value(value),
            Err(fault) => line["fault"] = json!({ "code": fault.code, "message": fault.message }),
        }
        return print_json_line(&line);
    }
    let end = match outcome {
        Ok(_) => "answered".to_owned(),
        Err(fault) => format!("fault: {fault}"),
    };
    let params = parameters(&incoming.call.params).to_string();
    let shown: String = params.chars().take(200).collect();
    println(&clean(&format!("{time}  {}  {method} {shown}  {end}", user.unwrap_or("system"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_gets_half_of_the_jobs() {
        let jobs = Arc::new(Jobs::new(4));
        let first = jobs.begin(Some("alice")).unwrap();
        let _second = jobs.begin(Some("alice")).unwrap();
        assert!(jobs.begin(Some("alice")).is_none());
        let _third = jobs.begin(Some("bob")).unwrap();
        let _fourth = jobs.begin(None).unwrap();
        assert!(jobs.begin(Some("bob")).is_none());
        drop(first);
        assert!(jobs.begin(Some("alice")).is_some());
    }

    #[test]
    fn a_handlers_output_is_json_or_nothing() {
        assert_eq!(result(b" \n"), Ok(Value::Nil));
        assert_eq!(result(b"{\"id\": 7}\n"), Ok(Value::object([("id", Value::Int(7))])));
        assert!(result(b"done").unwrap_err().message.contains("no JSON"));
    }

    #[test]
    fn parameters_are_an_object_when_they_were_named() {
        assert_eq!(parameters(&[Value::object([("a", Value::Int(1))])]).to_string(), "{\"a\":1}");
        assert_eq!(parameters(&[Value::Int(1), "x".into()]).to_string(), "[1,\"x\"]");
        assert_eq!(parameters(&[]).to_string(), "[]");
    }
}
