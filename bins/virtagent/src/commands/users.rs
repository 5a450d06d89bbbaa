//! `users`: the sessions that are connected.

use agent_core::rpc::{Struct, Value};

use crate::cli::Global;
use crate::client::Client;
use crate::desk::Desk;
use crate::failure::Result;
use crate::json::from_value;
use crate::output::{Table, cell, note, print, print_json};

pub async fn run(global: &Global) -> Result<()> {
    let client = Client::connect(global, Desk::new()).await?;
    // Sessions are the system daemon's to list, whoever -u names.
    let listed = client.acting_as(None).call("session.list", Struct::new()).await?;
    client.close().await;
    let sessions = listed.get("sessions").and_then(Value::as_array).unwrap_or_default();
    if global.json {
        return print_json(&from_value(&Value::Array(sessions.to_vec())));
    }
    if sessions.is_empty() {
        note("no user daemon is connected: nobody is logged in, or virtagent is not installed for users in the guest");
        return Ok(());
    }
    print(&table(sessions))
}

fn table(sessions: &[Value]) -> String {
    let mut table = Table::new(&["USER", ">UID", "SESSION", "SEAT", "TYPE", "STATE", "SINCE", "MODULES"]);
    for session in sessions {
        table.row([
            cell(session, "username"),
            cell(session, "uid"),
            cell(session, "session"),
            cell(session, "seat"),
            cell(session, "type"),
            state(session),
            cell(session, "since").replace('T', " "),
            cell(session, "modules"),
        ]);
    }
    table.render()
}

fn state(session: &Value) -> String {
    let is = |name| session.get(name).and_then(Value::as_bool);
    match (is("active"), is("locked")) {
        (Some(true), Some(true)) => "active, locked",
        (_, Some(true)) => "locked",
        (Some(true), _) => "active",
        (Some(false), _) => "inactive",
        _ => "-",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_a_seat_has_dashes() {
        let session = Value::object([
            ("username", "alice".into()),
            ("uid", Value::Int(1000)),
            ("since", "2026-01-02T03:04:05Z".into()),
            ("modules", Value::Array(vec!["exec".into(), "files".into()])),
        ]);
        let text = table(&[session]);
        let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["alice", "1000", "-", "-", "-", "-", "2026-01-02", "03:04:05Z", "exec,", "files"]);
    }
}
