//! Every kind of channel that needs no virtual machine carries calls; and a user's daemon with a channel of its own.

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent_core::rpc::{FaultCode, Value};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use virtagent_tests::local::{Daemon, Guest, Host, HostDouble, LIMIT, Raw, Setup, account, is_root};
use virtagent_tests::wait;

use crate::support::{blob, refused, text};

fn accept(listener: &UnixListener) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    wait::until(LIMIT, "the guest to connect", || Ok(listener.accept().ok()))
        .and_then(|(stream, _)| stream.set_nonblocking(true).map(|()| stream).map_err(Into::into))
}

async fn host_over(stream: UnixStream) -> Result<Host> {
    stream.set_nonblocking(true)?;
    Host::over(tokio::net::UnixStream::from_std(stream)?, HostDouble::that_pongs()).await
}

/// Calls both ways, with a body that no buffer holds at once.
async fn carries_calls(guest: &Guest, host: &Host) -> Result<()> {
    assert_eq!(host.call("va.ping", json!(null)).await?, "pong");
    let path = guest.path("carried");
    let bytes: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let open = host.call("file.open", json!({"path": path, "mode": "create"})).await?;
    host.call("file.write", json!({"handle": open["handle"], "data": blob(&bytes)})).await?;
    host.call("file.close", json!({"handle": open["handle"]})).await?;
    let open = host.call("file.open", json!({"path": path, "mode": "read"})).await?;
    let read = host.call("file.read", json!({"handle": open["handle"], "length": bytes.len()})).await?;
    assert!(read["data"] == blob(&bytes), "the bytes came back otherwise");
    host.call("file.close", json!({"handle": open["handle"]})).await?;
    std::fs::remove_file(path)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unix_connect_carries_calls_and_connects_again_when_the_host_is_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("far.sock");
    let listener = UnixListener::bind(&path)?;
    let mut guest = Setup::default().channel("unix-connect", &path.display().to_string()).start()?;
    for round in 0..2 {
        let host = host_over(accept(&listener)?).await?;
        carries_calls(&guest, &host).await?;
        drop(host);
        assert!(guest.system().runs()?, "round {round}");
    }
    // The far end's program restarts.
    drop(listener);
    std::fs::remove_file(&path)?;
    let listener = UnixListener::bind(&path)?;
    let host = host_over(accept(&listener)?).await?;
    carries_calls(&guest, &host).await
}

#[test]
fn the_guest_says_hello_alone_with_its_boot_and_a_fresh_nonce_to_each_host() -> Result<()> {
    let guest = Guest::start()?;
    let mut nonces = Vec::new();
    for _ in 0..3 {
        let mut host = guest.raw()?;
        let (hello, call) = host.next_call()?;
        assert_eq!((call.method.as_str(), call.params.len()), ("va.hello", 0));
        assert_eq!(
            hello.heads.boot_id.as_deref(),
            Some(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim())
        );
        nonces.push(hello.heads.nonce.context("a nonce")?);
        host.reply(hello.tag.as_str(), Ok(Value::Nil))?;
        host.ask("after-the-hello0", "va.ping", json!([]))??;
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
    Ok(())
}

/// A program that carries bytes, ended with this value.
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs socat with one end here.
fn socat_to(address: &str) -> Result<(UnixStream, Relay)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut socat = Command::new("socat");
    socat.arg("-").arg(address).stdin(OwnedFd::from(theirs.try_clone()?)).stdout(OwnedFd::from(theirs));
    let relay = Relay(socat.stderr(Stdio::null()).spawn().context("can't start socat")?);
    drop(socat);
    Ok((ours, relay))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn isa_serial_carries_calls_over_a_serial_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let line = folder.path().join("ttyS9");
    // A pair of terminals stands in for the line; the guest's end is an ordinary one that echoes, until the guest opens it.
    let (ours, _relay) = socat_to(&format!("PTY,link={},wait-slave", line.display()))?;
    wait::until(LIMIT, "the serial line", || Ok(line.exists().then_some(())))?;
    let guest = Setup::default().channel("isa-serial", &line.display().to_string()).start()?;
    let host = host_over(ours).await?;
    carries_calls(&guest, &host).await
}

/// A vsock port that nothing else uses, different in each process of the tests.
fn vsock_port() -> u32 {
    200_000 + std::process::id()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vsock_listen_carries_calls_where_the_kernel_has_a_loopback() -> Result<()> {
    if !Path::new("/dev/vsock").exists() {
        eprintln!("skipped: this kernel has no vsock");
        return Ok(());
    }
    let port = vsock_port();
    let guest = match Setup::default().channel("vsock-listen", &port.to_string()).start() {
        Ok(guest) => guest,
        Err(error) => {
            // Some sandboxes have the device and refuse the socket.
            ensure!(error.to_string().contains("vsock"), "{error}");
            eprintln!("skipped: {error}");
            return Ok(());
        }
    };
    let (ours, mut relay) = socat_to(&format!("VSOCK-CONNECT:1:{port}"))?;
    let mut raw = Raw::new(ours.try_clone()?);
    if raw.next().ok().flatten().is_none() {
        relay.0.wait()?;
        eprintln!("skipped: this kernel has no vsock loopback (the module vsock_loopback)");
        return Ok(());
    }
    drop((ours, raw, relay));
    for _ in 0..2 {
        let (ours, _relay) = socat_to(&format!("VSOCK-CONNECT:1:{port}"))?;
        let host = host_over(ours).await?;
        carries_calls(&guest, &host).await?;
    }
    Ok(())
}

#[test]
fn a_channel_that_can_not_be_opened_is_named_with_the_reason() -> Result<()> {
    for (kind, path, word) in [
        ("virtio-serial", "/no/such/port", "virtserialport"),
        ("unix-listen", "/no/such/folder/port.sock", "/no/such/folder/port.sock"),
        ("vsock-listen", "not-a-number", "port number"),
    ] {
        let error = Setup::default().channel(kind, path).start().err().context("it started")?;
        assert!(error.to_string().contains(word), "{kind}: {error}");
    }
    Ok(())
}

/// A user's daemon that has the host's channel to itself.
struct Direct {
    guest: Guest,
    _daemon: Daemon,
    port: PathBuf,
}

fn direct() -> Result<Direct> {
    let guest = Setup::default().homes().prepare()?;
    let folder = guest.path("direct");
    guest.folder_of("nobody", &folder)?;
    let port = folder.join("port.sock");
    let mut command = guest.user_command("nobody", &["-c", "unix-listen", "-p"])?;
    command.arg(&port);
    let daemon = Daemon::start("nobody", guest.dir(), command)?;
    Ok(Direct { guest, _daemon: daemon, port })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_daemon_on_a_channel_of_its_own_needs_no_router_and_keeps_its_own_log() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    if !is_root() {
        return Ok(());
    }
    let Direct { guest, _daemon, port } = direct()?;
    let mut raw = Raw::new(UnixStream::connect(&port)?);
    assert_eq!(raw.next_call()?.1.method.as_str(), "va.hello");
    drop(raw);
    let host = Host::connect(&port, HostDouble::that_pongs()).await?;
    assert_eq!(virtagent_tests::local::json(&host.capabilities.all["level"]), "user");
    let whoami = json!({"argv": ["id", "-un"]});
    for user in [None, Some("nobody"), Some("65534")] {
        let done = match user {
            Some(user) => host.call_as(user, "exec.run", whoami.clone()).await?,
            None => host.call("exec.run", whoami.clone()).await?,
        };
        assert_eq!(text(&done["stdout"]), "nobody\n");
    }
    for other in ["games", "root", "no-such-user-here"] {
        refused(host.call_as(other, "va.ping", json!(null)).await, FaultCode::NoSession);
    }
    for (method, params) in [("session.list", json!(null)), ("va.getfile", json!(["/etc/hostname"]))] {
        refused(host.call(method, params).await, FaultCode::MethodNotFound);
    }
    for method in ["session.replaced", "session.host_left", "session.hello"] {
        assert!(host.call(method, json!({"reason": "x"})).await.is_err(), "{method} is not the host's to say");
    }
    assert_eq!(host.call("exec.run", whoami).await?["exit_code"], 0, "it still runs");
    let log = guest.home("nobody").join(".local/state/virtagent/audit.jsonl");
    let meta = std::fs::metadata(&log)?;
    assert_eq!((meta.uid(), meta.mode() & 0o777), (account("nobody")?.uid.as_raw(), 0o600));
    let text = std::fs::read_to_string(&log)?;
    assert!(text.lines().filter(|line| line.contains("\"exec.run\"")).count() >= 4, "{text}");
    assert!(!guest.audit_file().exists(), "the machine's log is not a user's to write");
    let output = guest.tool_of("audit", &["verify", "--log", &log.display().to_string()])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
