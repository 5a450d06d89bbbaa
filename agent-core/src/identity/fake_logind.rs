//! The test double of systemd-logind: a few sessions on a private dbus-daemon. The only one.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use futures_util::StreamExt;
use zbus::connection::{Builder, Connection};
use zbus::{MessageStream, ObjectPath, Variant};

/// A private message bus that ends with the test.
pub struct Bus {
    daemon: Child,
    address: String,
    _dir: tempfile::TempDir,
}

impl Bus {
    /// Starts it; nothing, and it says so, without the program dbus-daemon.
    #[allow(clippy::disallowed_methods, reason = "a test's own bus")]
    pub fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("bus.conf");
        let text = format!(
            r#"<busconfig><type>custom</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>
               <policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/><allow user="*"/></policy></busconfig>"#,
            dir.path().join("socket").display()
        );
        std::fs::write(&config, text).unwrap();
        let daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .arg(format!("--config-file={}", config.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut daemon) = daemon else {
            println!("skipped: no dbus-daemon (apt install dbus)");
            return None;
        };
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Some(Self { daemon, address: address.trim().to_owned(), _dir: dir })
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[derive(Clone)]
pub struct FakeSession {
    pub id: &'static str,
    pub uid: u32,
    pub user: &'static str,
    pub seat: &'static str,
    pub class: &'static str,
    pub active: bool,
    pub locked: bool,
}

impl FakeSession {
    /// The id of a session that is listed, but gone when asked about.
    pub const GONE: &'static str = "gone";

    fn path(&self) -> ObjectPath<'static> {
        format!("/org/freedesktop/login1/session/_3{}", self.id).try_into().unwrap()
    }

    fn properties(&self) -> HashMap<&'static str, Variant<'_>> {
        HashMap::from([
            ("Type", "wayland".into()),
            ("Class", self.class.into()),
            ("TTY", "tty2".into()),
            ("Active", self.active.into()),
            ("LockedHint", self.locked.into()),
            ("Remote", false.into()),
            ("State", if self.active { "active" } else { "online" }.into()),
            ("Timestamp", 1_700_000_000_000_000_u64.into()),
        ])
    }
}

/// Serves sessions under logind's name until it is dropped.
pub struct FakeLogind {
    connection: Connection,
    serving: tokio::task::JoinHandle<()>,
}

impl FakeLogind {
    pub async fn serve(bus: &Bus, sessions: Vec<FakeSession>) -> Self {
        let connection = Builder::address(bus.address()).build().await.unwrap();
        let mut calls = MessageStream::from(&connection);
        // Queues behind a predecessor that is being dropped.
        connection.request_name_with_flags("org.freedesktop.login1", Default::default()).await.unwrap();
        let served = connection.clone();
        let serving = tokio::spawn(async move {
            while let Some(Ok(message)) = calls.next().await {
                let header = message.header();
                let member = header.member().map(|member| member.to_string()).unwrap_or_default();
                match &*member {
                    "ListSessions" => {
                        let rows: Vec<_> = sessions.iter().map(|s| (s.id, s.uid, s.user, s.seat, s.path())).collect();
                        served.reply(&header, &rows).await.unwrap();
                    }
                    "GetAll" => {
                        let asked =
                            sessions.iter().find(|s| header.path() == Some(&s.path()) && s.id != FakeSession::GONE);
                        match asked {
                            Some(session) => served.reply(&header, &session.properties()).await.unwrap(),
                            None => {
                                let name = "org.freedesktop.DBus.Error.UnknownObject";
                                served.reply_error(&header, name, &"no such session").await.unwrap();
                            }
                        }
                    }
                    _ => {}
                }
            }
        });
        Self { connection, serving }
    }

    /// Connections to the bus other than this one.
    pub async fn others_on_the_bus(&self) -> usize {
        let bus = "org.freedesktop.DBus";
        let reply = self.connection.call_method(Some(bus), "/org/freedesktop/DBus", Some(bus), "ListNames", &()).await;
        let names: Vec<String> = reply.unwrap().body().deserialize().unwrap();
        names.iter().filter(|name| name.starts_with(':')).count() - 1
    }
}

impl Drop for FakeLogind {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
