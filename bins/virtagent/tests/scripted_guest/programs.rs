//! The scripted guest's `exec.*`: real programs through pipes.

use std::process::Stdio;
use std::sync::Arc;

use agent_core::link::{CallOptions, Incoming, Link};
use agent_core::rpc::{Fault, Outcome, Value};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::{Guest, Mischief};

pub struct Program {
    pid: i32,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
    end: Option<JoinHandle<Value>>,
}

pub(super) async fn call(
    guest: &Guest,
    method: &str,
    params: &Value,
    incoming: &Incoming,
    mischief: &Mischief,
) -> Outcome {
    if method == "exec.start" {
        let (program, handle) = start(params, incoming, mischief)?;
        let pid = program.pid;
        guest.programs.lock().unwrap().insert(handle, program);
        return Ok(Value::object([("handle", Value::Int(handle)), ("pid", Value::Int(pid.into()))]));
    }
    let handle = params.get("handle").and_then(Value::as_int).unwrap_or(0);
    let (pid, stdin, end) = {
        let mut programs = guest.programs.lock().unwrap();
        let program = programs.get_mut(&handle).ok_or_else(|| Fault::invalid_params("no such program"))?;
        let end = if method == "exec.wait" { program.end.take() } else { None };
        (program.pid, Arc::clone(&program.stdin), end)
    };
    match method {
        "exec.stdin" => {
            let data = params.get("data").and_then(Value::as_bytes).cloned().unwrap_or_default();
            let mut stdin = stdin.lock().await;
            let stdin = stdin.as_mut().ok_or_else(|| Fault::unavailable("closed"))?;
            stdin.write_all(&data).await.map(|()| Value::Nil).map_err(|error| Fault::os("stdin", &error))
        }
        "exec.close_stdin" => {
            stdin.lock().await.take();
            Ok(Value::Nil)
        }
        "exec.signal" => {
            let signal: Signal = params.get("signal").and_then(Value::as_str).unwrap_or_default().parse().unwrap();
            kill(Pid::from_raw(pid), signal).map(|()| Value::Nil).map_err(|errno| Fault::errno("kill", errno))
        }
        "exec.resize" => Ok(Value::Nil),
        "exec.wait" => end.unwrap().await.map_err(|_| Fault::internal("wait")),
        _ => Err(Fault::method_not_found(method)),
    }
}

fn start(params: &Value, incoming: &Incoming, mischief: &Mischief) -> Result<(Program, i64), Fault> {
    let handle = 7;
    let argv: Vec<&str> =
        params.get("argv").and_then(Value::as_array).unwrap_or_default().iter().filter_map(Value::as_str).collect();
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]);
    let terminal = params.get("pty").is_some();
    if terminal {
        // script(1) makes the terminal.
        let words: Vec<_> = argv.iter().map(|word| format!("'{word}'")).collect();
        command = Command::new("script");
        command.args(["-qefc", &words.join(" "), "/dev/null"]);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let fed = terminal || params.get("stdin").and_then(Value::as_bool) == Some(true);
    command.stdin(if fed { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| Fault::os(format!("start {}", argv[0]), &error))?;
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdin = Arc::new(Mutex::new(child.stdin.take()));
    let pid = child.id().unwrap() as i32;
    let (link, user, impostor) = (incoming.link().clone(), incoming.username.clone(), mischief.impostor);
    let end = tokio::spawn(async move {
        let seq = Arc::new(Mutex::new(0));
        if impostor {
            let output = output(handle, "stdout", 0, b"forged\n");
            let options = CallOptions { username: Some("mallory".to_owned()), ..CallOptions::default() };
            assert!(link.call("exec.output", vec![output], &options).await.is_err());
        }
        let out =
            push(link.clone(), user.clone(), handle, if terminal { "pty" } else { "stdout" }, stdout, Arc::clone(&seq));
        let err = push(link, user, handle, "stderr", stderr, seq);
        let ((), (), status) = tokio::join!(out, err, child.wait());
        let status = status.unwrap();
        match std::os::unix::process::ExitStatusExt::signal(&status) {
            Some(signal) => Value::object([("signal", Signal::try_from(signal).unwrap().as_str().into())]),
            None => Value::object([("exit_code", Value::Int(status.code().unwrap().into()))]),
        }
    });
    Ok((Program { pid, stdin, end: Some(end) }, handle))
}

fn output(handle: i64, stream: &str, seq: i64, data: &[u8]) -> Value {
    Value::object([
        ("handle", Value::Int(handle)),
        ("stream", stream.into()),
        ("seq", Value::Int(seq)),
        ("data", Value::Bytes(data.to_vec().into())),
        ("eof", data.is_empty().into()),
    ])
}

async fn push(
    link: Link,
    username: Option<String>,
    handle: i64,
    stream: &str,
    mut from: impl AsyncRead + Unpin,
    seq: Arc<Mutex<i64>>,
) {
    let options = CallOptions { username, ..CallOptions::default() };
    let mut buffer = vec![0; 65_536];
    loop {
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let number = {
            let mut seq = seq.lock().await;
            *seq += 1;
            *seq - 1
        };
        let block = output(handle, stream, number, &buffer[..length]);
        if link.call("exec.output", vec![block], &options).await.is_err() || length == 0 {
            return;
        }
    }
}
