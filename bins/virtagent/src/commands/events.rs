//! `events`: what the guest tells the host, as it comes.

use std::time::Duration;

use agent_core::link::Incoming;
use agent_core::rpc::Value;
use serde_json::{Map, Value as Json, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Events, Global};
use crate::client::Client;
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::json::from_value;
use crate::output::{clean, note, now, print_json_line, println};

/// How long `--reconnect` waits between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

pub async fn run(global: &Global, options: &Events) -> Result<u8> {
    stay(global, options.reconnect, Vec::new(), async |incoming| {
        let event = Event::of(&incoming);
        incoming.answer(Ok(Value::Nil)).await;
        match event {
            Some(event) if options.topic.as_deref().is_none_or(|glob| matches(glob, &event.topic)) => {
                event.print(global.json)
            }
            _ => Ok(()),
        }
    })
    .await
}

/// Stays connected and hands on what the guest calls, until Ctrl-C; connects again when asked to.
pub async fn stay(
    global: &Global,
    reconnect: bool,
    methods: Vec<String>,
    mut take: impl AsyncFnMut(Incoming) -> Result<()>,
) -> Result<u8> {
    let take_signal = |kind| signal(kind).map_err(|error| Failure::usage(format!("can't take signals: {error}")));
    let mut interrupt = take_signal(SignalKind::interrupt())?;
    let mut terminate = take_signal(SignalKind::terminate())?;
    let mut told = false;
    loop {
        let (desk, mut calls) = Desk::with_calls(methods.clone());
        let connecting = tokio::select! {
            connecting = Client::connect(global, desk) => connecting,
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
        };
        let lost = match connecting {
            Ok(client) => {
                note(&format!("virtagent: connected to {}; Ctrl-C ends", client.target().name));
                told = false;
                let reason = loop {
                    tokio::select! {
                        // A guest that floods must not keep the user from leaving; what came is taken before the end.
                        biased;
                        _ = interrupt.recv() => return Ok(0),
                        _ = terminate.recv() => return Ok(0),
                        Some(incoming) = calls.recv() => take(incoming).await?,
                        reason = client.closed() => break reason,
                    }
                };
                Failure::NoConnection(format!("{}: the link ended: {reason}", client.target().name))
            }
            Err(failure) => failure,
        };
        if !reconnect || !matches!(lost, Failure::NoConnection(_)) {
            return Err(lost);
        }
        if !told {
            note(&format!("virtagent: {lost}; trying again every second"));
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = interrupt.recv() => return Ok(0),
            _ = terminate.recv() => return Ok(0),
        }
    }
}

/// An event of the guest.
pub struct Event {
    user: Option<String>,
    topic: String,
    data: Json,
}

impl Event {
    /// The event that a call is, if it is one.
    pub fn of(incoming: &Incoming) -> Option<Self> {
        if incoming.call.method != *"host.event" {
            return None;
        }
        let (topic, data) = match incoming.call.params.as_slice() {
            [only @ Value::Struct(_)] => (only.get("topic"), only.get("data")),
            params => (params.first(), params.get(1)),
        };
        let topic = topic.and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { user: incoming.username.clone(), topic, data: data.map_or(Json::Null, from_value) })
    }

    /// Prints it, one line.
    pub fn print(&self, json: bool) -> Result<()> {
        let time = now();
        if json {
            let mut line = Map::new();
            line.insert("time".to_owned(), json!(time));
            if let Some(user) = &self.user {
                line.insert("user".to_owned(), json!(user));
            }
            line.insert("topic".to_owned(), json!(self.topic));
            line.insert("data".to_owned(), self.data.clone());
            return print_json_line(&Json::Object(line));
        }
        let user = self.user.as_deref().unwrap_or("system");
        println(&clean(&format!("{time}  {user}  {}  {}", self.topic, self.data)))
    }
}

/// Whether a topic matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, topic: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| topic.strip_prefix(first)) else { return false };
    let mut parts: Vec<_> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("session.*", "session.connected"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "a--b--c"));
        assert!(!matches("session", "session.connected"));
        assert!(!matches("a*bc*c", "abc"));
        assert!(matches("session.connected", "session.connected"));
    }
}
