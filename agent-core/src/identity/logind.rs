//! Login sessions and the active seat's user, from systemd-logind over D-Bus (org.freedesktop.login1(5)). Owns a
//! connection for the length of one question; keeps nothing open in between, so that an idle daemon has no wake-ups.

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use nix::unistd::Uid;
use zbus::connection::{Builder, Connection};
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use crate::rpc::Fault;

/// How long logind may take for a whole answer.
const TIMEOUT: Duration = Duration::from_secs(2);

const SERVICE: &str = "org.freedesktop.login1";
const MANAGER_PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SESSION: &str = "org.freedesktop.login1.Session";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// One login, as logind knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginSession {
    /// logind's name for it: `2`, `c1`.
    pub id: String,
    /// Whose it is.
    pub uid: Uid,
    /// That user's name.
    pub user: String,
    /// Its seat: `seat0`; nothing for a remote one.
    pub seat: Option<String>,
    /// Its terminal: `tty2`, `pts/0`.
    pub tty: Option<String>,
    /// `x11`, `wayland`, `tty`, `mir`, `web` or `unspecified`.
    pub kind: String,
    /// `user`, `greeter`, `lock-screen`, `background`, `manager` and variants of them.
    pub class: String,
    /// Whether it is in the foreground of its seat.
    pub active: bool,
    /// Whether its screen is locked, as far as the desktop tells.
    pub locked: bool,
    /// Whether it came over the network.
    pub remote: bool,
    /// From which host, if it came over the network.
    pub remote_host: Option<String>,
    /// `online`, `active` or `closing`.
    pub state: String,
    /// When it began.
    pub since: Option<SystemTime>,
}

/// Asks logind. Holds an address, not a connection.
#[derive(Clone, Debug)]
pub struct Logind {
    address: Option<String>,
    timeout: Duration,
}

impl Logind {
    /// The system bus: `DBUS_SYSTEM_BUS_ADDRESS` or the well-known socket.
    pub fn system() -> Self {
        Self { address: None, timeout: TIMEOUT }
    }

    /// The bus at that D-Bus address.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: Some(address.into()), timeout: TIMEOUT }
    }

    /// Every login session, by id.
    ///
    /// # Errors
    /// [`crate::rpc::FaultCode::Unavailable`] when there is no bus or no logind, or it does not answer in two seconds.
    pub async fn sessions(&self) -> Result<Vec<LoginSession>, Fault> {
        self.ask(|connection| async move { sessions(&connection, |_| true).await }).await
    }

    /// The user in the foreground of that seat (`seat0`): nobody when there is no such seat, nobody is logged in there,
    /// or a greeter has it.
    ///
    /// # Errors
    /// As [`Logind::sessions`].
    pub async fn active_user(&self, seat: &str) -> Result<Option<Uid>, Fault> {
        let there =
            self.ask(|connection| async move { sessions(&connection, |listed| listed.3 == seat).await }).await?;
        let active = there.into_iter().find(|session| session.active && session.class.starts_with("user"));
        Ok(active.map(|session| session.uid))
    }

    async fn ask<T, F: Future<Output = zbus::Result<T>>>(
        &self,
        question: impl FnOnce(Connection) -> F,
    ) -> Result<T, Fault> {
        let answer = async {
            let builder = match &self.address {
                Some(address) => Builder::address(address.as_str()),
                None => Builder::system(),
            };
            let connection = builder
                .build()
                .await
                .map_err(|error| Fault::unavailable(format!("no D-Bus system bus here: {error}")))?;
            let answer = question(connection.clone()).await;
            let _ = connection.close().await;
            answer.map_err(|error| Fault::unavailable(format!("logind does not answer: {error}")))
        };
        // Dropping it at the timeout drops the connection and its reader.
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::unavailable(format!("logind did not answer in {:?}", self.timeout))),
        }
    }
}

/// A row of `ListSessions`: id, UID, user, seat, path.
type Listed = (String, u32, String, String, OwnedObjectPath);

async fn sessions(connection: &Connection, wanted: impl Fn(&Listed) -> bool) -> zbus::Result<Vec<LoginSession>> {
    let reply = connection.call_method(Some(SERVICE), MANAGER_PATH, Some(MANAGER), "ListSessions", &()).await?;
    let listed: Vec<Listed> = reply.body().deserialize()?;
    let details = listed.into_iter().filter(|listed| wanted(listed)).map(|listed| details(connection, listed));
    // A session that ended in between has no details; it is no session any more.
    let mut sessions: Vec<LoginSession> = join_all(details).await.into_iter().filter_map(Result::ok).collect();
    sessions.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(sessions)
}

async fn details(connection: &Connection, listed: Listed) -> zbus::Result<LoginSession> {
    let (id, uid, user, seat, path) = listed;
    let reply = connection.call_method(Some(SERVICE), &path, Some(PROPERTIES), "GetAll", &(SESSION)).await?;
    let properties: HashMap<String, OwnedVariant> = reply.body().deserialize()?;
    let text = |name: &str| match properties.get(name).map(|variant| &**variant) {
        Some(Variant::Str(text)) => text.as_str().to_owned(),
        _ => String::new(),
    };
    let truth = |name: &str| matches!(properties.get(name).map(|variant| &**variant), Some(Variant::Bool(true)));
    let since = match properties.get("Timestamp").map(|variant| &**variant) {
        Some(Variant::U64(micros)) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(*micros)),
        _ => None,
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(LoginSession {
        id,
        uid: Uid::from_raw(uid),
        user,
        seat: some(seat),
        tty: some(text("TTY")),
        kind: text("Type"),
        class: text("Class"),
        active: truth("Active"),
        locked: truth("LockedHint"),
        remote: truth("Remote"),
        remote_host: some(text("RemoteHost")),
        state: text("State"),
        since,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake_logind::{Bus, FakeLogind, FakeSession};
    use super::*;
    use crate::rpc::FaultCode;

    fn alice() -> FakeSession {
        FakeSession { id: "2", uid: 1000, user: "alice", seat: "seat0", class: "user", active: true, locked: true }
    }

    #[tokio::test]
    async fn sessions_are_told_with_what_logind_knows_of_them() {
        let Some(bus) = Bus::start() else { return };
        let ssh = FakeSession { id: "c1", uid: 1001, user: "bob", seat: "", active: false, locked: false, ..alice() };
        let _logind = FakeLogind::serve(&bus, vec![ssh, alice()]).await;
        let sessions = Logind::at(bus.address()).sessions().await.unwrap();
        let expected = LoginSession {
            id: "2".into(),
            uid: Uid::from_raw(1000),
            user: "alice".into(),
            seat: Some("seat0".into()),
            tty: Some("tty2".into()),
            kind: "wayland".into(),
            class: "user".into(),
            active: true,
            locked: true,
            remote: false,
            remote_host: None,
            state: "active".into(),
            since: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
        };
        assert_eq!(sessions[0], expected);
        assert_eq!((sessions[1].user.as_str(), &sessions[1].seat, sessions[1].active), ("bob", &None, false));
    }

    #[tokio::test]
    async fn the_active_user_is_the_seats_and_never_a_greeter() {
        let Some(bus) = Bus::start() else { return };
        let behind = FakeSession { id: "3", uid: 1001, user: "bob", active: false, ..alice() };
        let logind = FakeLogind::serve(&bus, vec![behind.clone(), alice()]).await;
        let ask = Logind::at(bus.address());
        assert_eq!(ask.active_user("seat0").await.unwrap(), Some(Uid::from_raw(1000)));
        assert_eq!(ask.active_user("seat1").await.unwrap(), None);
        drop(logind);
        let greeter = FakeSession { id: "c1", uid: 110, user: "gdm", class: "greeter", ..alice() };
        let _logind = FakeLogind::serve(&bus, vec![behind, greeter]).await;
        assert_eq!(ask.active_user("seat0").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_session_that_ends_while_it_is_asked_about_is_left_out() {
        let Some(bus) = Bus::start() else { return };
        let gone = FakeSession { id: FakeSession::GONE, ..alice() };
        let _logind = FakeLogind::serve(&bus, vec![gone, alice()]).await;
        let sessions = Logind::at(bus.address()).sessions().await.unwrap();
        assert_eq!(sessions.iter().map(|session| &*session.id).collect::<Vec<_>>(), ["2"]);
    }

    #[tokio::test]
    async fn without_a_bus_or_without_logind_the_fault_says_which() {
        let fault = Logind::at("unix:path=/nonexistent/bus").sessions().await.unwrap_err();
        assert!(fault.is(FaultCode::Unavailable) && fault.message.starts_with("no D-Bus system bus here"), "{fault}");
        let Some(bus) = Bus::start() else { return };
        let fault = Logind::at(bus.address()).sessions().await.unwrap_err();
        assert!(fault.is(FaultCode::Unavailable) && fault.message.starts_with("logind does not answer"), "{fault}");
    }

    #[tokio::test]
    async fn a_bus_that_never_answers_costs_the_time_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bus");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let logind =
            Logind { timeout: Duration::from_millis(50), ..Logind::at(format!("unix:path={}", path.display())) };
        let fault = logind.active_user("seat0").await.unwrap_err();
        assert!(fault.is(FaultCode::Unavailable) && fault.message == "logind did not answer in 50ms", "{fault}");
    }

    #[tokio::test]
    async fn nothing_stays_connected_after_an_answer() {
        let Some(bus) = Bus::start() else { return };
        let logind = FakeLogind::serve(&bus, vec![alice()]).await;
        Logind::at(bus.address()).sessions().await.unwrap();
        let left = async {
            while logind.others_on_the_bus().await > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), left).await.unwrap();
    }
}
