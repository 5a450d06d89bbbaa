//! A guest for the host command's own tests: a real socket and the real link, in front of the few methods that the command
//! leans on, and the ways a guest can misbehave. The end-to-end tests have the real daemon.

mod files;
mod programs;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use agent_core::config::Limits;
use agent_core::link::{Incoming, Link, LinkOptions, Serve};
use agent_core::rpc::{Fault, FaultCode, Outcome, Value};
use tokio_util::sync::CancellationToken;

use self::files::Files;

/// What the guest does wrong.
#[derive(Clone, Debug, Default)]
pub struct Mischief {
    /// Closes the link instead of answering the file.read or file.write with this number.
    pub vanish_at: Option<i64>,
    /// Gives at most so many bytes a read, and takes at most so many a write.
    pub short: Option<usize>,
    /// Changes a byte of every read.
    pub corrupt: bool,
    /// Refuses these methods.
    pub denied: Vec<&'static str>,
    /// Says nothing of itself.
    pub silent: bool,
    /// Sends a block of output in another user's name first.
    pub impostor: bool,
}

/// The guest, until it is dropped.
pub struct ScriptedGuest {
    dir: tempfile::TempDir,
    mischief: Arc<Mutex<Mischief>>,
    calls: Arc<Mutex<Vec<String>>>,
    links: Arc<Mutex<Vec<Link>>>,
    runtime: tokio::runtime::Handle,
    stop: CancellationToken,
}

impl ScriptedGuest {
    pub fn start() -> Self {
        Self::that(Mischief::default())
    }

    pub fn that(mischief: Mischief) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let (mischief, calls) = (Arc::new(Mutex::new(mischief)), Arc::<Mutex<Vec<String>>>::default());
        let links = Arc::<Mutex<Vec<Link>>>::default();
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("va.sock")).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (wrong, log, all) = (Arc::clone(&mischief), Arc::clone(&calls), Arc::clone(&links));
        let serve = async move {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let guest = Guest { mischief: Arc::clone(&wrong), calls: Arc::clone(&log), ..Guest::default() };
                let served = Arc::new(Served(Arc::new(guest)));
                let link = Link::start(stream, LinkOptions::outer(&Limits::default()), served);
                all.lock().unwrap().push(link);
            }
        };
        let stopped = stop.clone();
        std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve => {}
                    () = stopped.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { dir, mischief, calls, links, runtime: handle, stop }
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("va.sock")
    }

    /// A directory for the guest's files and for the host's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Behaves otherwise from now on.
    pub fn becomes(&self, mischief: Mischief) {
        *self.mischief.lock().unwrap() = mischief;
    }

    /// The methods that were called.
    pub fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// Calls the host that connected last; waits for one.
    pub fn calls_host(&self, username: Option<&str>, method: &str, params: Vec<Value>) -> Outcome {
        let link = eventually(|| {
            let link = self.links.lock().unwrap().last().cloned();
            link.filter(Link::is_ours)
        });
        let options = agent_core::link::CallOptions { username: username.map(str::to_owned), ..Default::default() };
        self.runtime.block_on(link.call(method, params, &options))
    }

    /// The command, ready to run against this guest.
    pub fn command(&self, arguments: &[&str]) -> Command {
        #[allow(clippy::disallowed_methods)]
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtagent"));
        command.arg("-s").arg(self.socket()).args(arguments).current_dir(self.dir.path());
        command.env_remove("VIRTAGENT_SOCKET").stdin(Stdio::null());
        command
    }

    /// Runs the command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

impl Drop for ScriptedGuest {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits for a condition.
pub fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        if let Some(met) = condition() {
            return met;
        }
        assert!(std::time::Instant::now() < deadline, "waited for a minute");
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}

/// One conversation.
#[derive(Default)]
struct Guest {
    mischief: Arc<Mutex<Mischief>>,
    calls: Arc<Mutex<Vec<String>>>,
    blocks: AtomicI64,
    files: Files,
    programs: Mutex<BTreeMap<i64, programs::Program>>,
}

struct Served(Arc<Guest>);

impl Serve for Served {
    fn incoming(&self, incoming: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let guest = Arc::clone(&self.0);
        Box::pin(async move {
            let method = incoming.call.method.to_string();
            guest.calls.lock().unwrap().push(method.clone());
            let mischief = guest.mischief.lock().unwrap().clone();
            if mischief.silent {
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(incoming);
                });
                return;
            }
            if matches!(method.as_str(), "file.read" | "file.write") {
                let block = guest.blocks.fetch_add(1, Ordering::Relaxed);
                if mischief.vanish_at == Some(block) {
                    incoming.link().close("vanished");
                    return;
                }
            }
            if let Some(method) = mischief.denied.iter().find(|denied| **denied == method) {
                let fault = Fault::new(FaultCode::Denied, format!("policy refuses {method}: rule 3, /etc/v.toml:12"));
                tokio::spawn(incoming.answer(Err(fault)));
                return;
            }
            // Files one after another, so that digests see them in order.
            if method.starts_with("file.") {
                let outcome = guest.files.call(&method, &incoming.call.params, &mischief);
                tokio::spawn(incoming.answer(outcome));
                return;
            }
            tokio::spawn(async move {
                let outcome = guest.answer(&method, &incoming, &mischief).await;
                incoming.answer(outcome).await;
            });
        })
    }
}

impl Guest {
    async fn answer(&self, method: &str, incoming: &Incoming, mischief: &Mischief) -> Outcome {
        let params = incoming.call.params.first().cloned().unwrap_or_default();
        match method {
            "va.ping" => Ok("pong".into()),
            "va.capabilities" => Ok(Value::object([("version", "1.0".into()), ("methods", Value::Array(Vec::new()))])),
            "session.list" => Ok(Value::object([(
                "sessions",
                Value::Array(vec![Value::object([
                    ("username", "alice".into()),
                    ("uid", Value::Int(1000)),
                    ("active", true.into()),
                ])]),
            )])),
            _ if method.starts_with("exec.") => programs::call(self, method, &params, incoming, mischief).await,
            _ => Err(Fault::method_not_found(format!("no such method: {method}"))),
        }
    }
}

/// A path parameter.
fn path(params: &Value, name: &str) -> Result<PathBuf, Fault> {
    let text = params.get(name).and_then(Value::as_str).ok_or_else(|| Fault::invalid_params(format!("no {name}")))?;
    Ok(Path::new(text).to_owned())
}
