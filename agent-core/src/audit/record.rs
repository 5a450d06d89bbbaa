//! The records: what is known of a call before it runs, what came of it, and what else happened. Owns their JSON; the
//! writer adds number, time and chain. Must never hold a value that was not summarised.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Uid;
use serde::Serialize;
use serde_json::Value as Json;

use super::journal;
use super::summary::{clip, summarise_result};
use crate::encoding::Encoding;
use crate::module::{CallId, Level, Origin};
use crate::rpc::{Fault, MethodName, Outcome, Tag};

const RULE_MAX: usize = 512;
const MESSAGE_MAX: usize = 1024;

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The host calls a method here.
    HostToGuest,
    /// This guest calls a method of the host.
    GuestToHost,
}

impl Direction {
    /// As records have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HostToGuest => "host-to-guest",
            Self::GuestToHost => "guest-to-host",
        }
    }
}

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The hypervisor.
    Host,
    /// This daemon or one of its modules.
    Daemon,
    /// A user of this guest.
    User,
}

impl Source {
    /// As records have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Daemon => "daemon",
            Self::User => "user",
        }
    }
}

impl From<&Origin> for Source {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Host => Self::Host,
            Origin::User { .. } => Self::User,
        }
    }
}

/// What policy said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The call may run.
    Allow,
    /// It may not.
    Deny,
}

impl Verdict {
    /// As records have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// What is known of a call before it runs.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The call's number, unique since this daemon started.
    pub id: CallId,
    /// Which way it goes.
    pub direction: Direction,
    /// Who called.
    pub origin: Source,
    /// Where it runs.
    pub level: Level,
    /// The user that it runs as, or the user that calls the host.
    pub user: Option<Arc<str>>,
    /// That user's UID.
    pub uid: Option<Uid>,
    /// The method.
    pub method: MethodName,
    /// The caller's tag.
    pub tag: Option<Tag>,
    /// How the call was written.
    pub encoding: Option<Encoding>,
    /// The parameters, by [`super::summarise`].
    pub params: Json,
    /// What policy said.
    pub verdict: Verdict,
    /// The rule that said so, with its file and line.
    pub rule: Cow<'static, str>,
}

/// What came of a call.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The result by [`super::summarise_result`], or the fault.
    pub outcome: Result<Json, Fault>,
    /// How long it took.
    pub duration: Duration,
    /// The bytes of the call's body.
    pub bytes_in: u64,
    /// The bytes of the reply's body.
    pub bytes_out: u64,
}

impl Closing {
    /// Of an outcome; the result is summarised, with what `secrets` names hidden.
    pub fn new(outcome: &Outcome, secrets: &[&str], duration: Duration, bytes_in: u64, bytes_out: u64) -> Self {
        let outcome = match outcome {
            Ok(result) => Ok(summarise_result(result, secrets)),
            Err(fault) => Err(fault.clone()),
        };
        Self { outcome, duration, bytes_in, bytes_out }
    }
}

/// Something that is no call: `session.connected`, `host.away`, `reply.dropped`, `frame.refused`.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened.
    pub event: Cow<'static, str>,
    /// Whom it is about.
    pub user: Option<Arc<str>>,
    /// That user's UID.
    pub uid: Option<Uid>,
    /// What else is to be said; summarised where it holds a peer's words.
    pub data: Json,
}

impl Event {
    /// An event about no user, without data.
    pub fn new(event: impl Into<Cow<'static, str>>) -> Self {
        Self { event: event.into(), user: None, uid: None, data: Json::Null }
    }

    /// The same about a user.
    #[must_use]
    pub fn of_user(mut self, name: Arc<str>, uid: Uid) -> Self {
        (self.user, self.uid) = (Some(name), Some(uid));
        self
    }

    /// The same with data.
    #[must_use]
    pub fn with(mut self, data: Json) -> Self {
        self.data = data;
        self
    }
}

/// A record before it has its number, time and place in the chain.
#[derive(Debug)]
pub(super) struct Line {
    pub kind: &'static str,
    /// The members of its JSON object, without the braces.
    pub body: String,
    /// The fields for journald, when it is to have them.
    pub journal: Option<Vec<u8>>,
}

impl Line {
    /// A record whose members are those of `body`, a JSON object.
    pub fn new(kind: &'static str, body: &impl Serialize) -> Self {
        // Serializing our own structs to memory has no way to fail.
        let text = serde_json::to_string(body).unwrap_or_default();
        let members = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or_default();
        Self { kind, body: members.to_owned(), journal: None }
    }

    /// The same with a journal entry of the fields and the message.
    pub fn with_journal(mut self, priority: u8, message: &str, fields: &[(&str, &str)]) -> Self {
        let mut entry = Vec::with_capacity(256 + message.len());
        journal::field(&mut entry, "MESSAGE", message);
        journal::field(&mut entry, "PRIORITY", &priority.to_string());
        journal::field(&mut entry, "SYSLOG_IDENTIFIER", "virtagentd");
        journal::field(&mut entry, "VIRTAGENT_TYPE", self.kind);
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            journal::field(&mut entry, name, value);
        }
        self.journal = Some(entry);
        self
    }

    /// About how long its line will be.
    pub fn size(&self) -> usize {
        self.body.len() + 192
    }
}

#[derive(Serialize)]
struct FaultBody<'a> {
    code: i64,
    name: &'a str,
    message: Cow<'a, str>,
}

impl<'a> FaultBody<'a> {
    fn new(fault: &'a Fault) -> Self {
        Self { code: fault.code, name: outcome_name(Some(fault)), message: clipped(&fault.message, MESSAGE_MAX) }
    }
}

fn clipped(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max { text.into() } else { clip(text, max).into() }
}

fn outcome_name(fault: Option<&Fault>) -> &'static str {
    match fault.map(Fault::kind) {
        None => "ok",
        Some(Some(code)) => code.name(),
        Some(None) => "fault",
    }
}

#[derive(Serialize)]
struct CallBody<'a> {
    id: u64,
    direction: &'a str,
    origin: &'a str,
    level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'a str>,
    params: &'a Json,
    verdict: &'a str,
    rule: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultBody<'a>>,
}

/// The record of a call; with a fault it is also that of its outcome.
pub(super) fn call(opening: &Opening, fault: Option<&Fault>, journal: bool) -> Line {
    let level = match opening.level {
        Level::System => "system",
        Level::User => "user",
    };
    let body = CallBody {
        id: opening.id.0,
        direction: opening.direction.name(),
        origin: opening.origin.name(),
        level,
        user: opening.user.as_deref(),
        uid: opening.uid.map(Uid::as_raw),
        method: opening.method.as_str(),
        tag: opening.tag.as_ref().map(Tag::as_str),
        encoding: opening.encoding.map(Encoding::content_type),
        params: &opening.params,
        verdict: opening.verdict.name(),
        rule: clipped(&opening.rule, RULE_MAX),
        fault: fault.map(FaultBody::new),
    };
    let line = Line::new("call", &body);
    if !journal {
        return line;
    }
    let user = opening.user.as_deref().unwrap_or_default();
    let place = if user.is_empty() { level } else { user };
    let (priority, verb) = match opening.verdict {
        Verdict::Allow => (6, "calls"),
        Verdict::Deny => (5, "is denied"),
    };
    let (caller, target) = match opening.direction {
        Direction::HostToGuest => (opening.origin.name(), place),
        Direction::GuestToHost => (place, "host"),
    };
    let message = format!("#{} {caller} {verb} {} of {target}", body.id, body.method);
    let outcome = fault.map(|fault| outcome_name(Some(fault))).unwrap_or_default();
    line.with_journal(
        priority,
        &message,
        &[
            ("VIRTAGENT_ID", &body.id.to_string()),
            ("VIRTAGENT_DIRECTION", body.direction),
            ("VIRTAGENT_METHOD", body.method),
            ("VIRTAGENT_LEVEL", level),
            ("VIRTAGENT_USER", user),
            ("VIRTAGENT_VERDICT", body.verdict),
            ("VIRTAGENT_RULE", &body.rule),
            ("VIRTAGENT_OUTCOME", outcome),
        ],
    )
}

#[derive(Serialize)]
struct OutcomeBody<'a> {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<FaultBody<'a>>,
    duration_us: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// The record of a call's outcome.
pub(super) fn outcome(id: CallId, method: &str, user: &str, closing: &Closing, journal: bool) -> Line {
    let fault = closing.outcome.as_ref().err();
    let body = OutcomeBody {
        id: id.0,
        result: closing.outcome.as_ref().ok(),
        fault: fault.map(FaultBody::new),
        duration_us: u64::try_from(closing.duration.as_micros()).unwrap_or(u64::MAX),
        bytes_in: closing.bytes_in,
        bytes_out: closing.bytes_out,
    };
    let line = Line::new("outcome", &body);
    if !journal {
        return line;
    }
    let outcome = outcome_name(fault);
    let message = match fault {
        None => format!("#{} {method}: ok", id.0),
        Some(fault) => format!("#{} {method}: {outcome}: {}", id.0, clipped(&fault.message, MESSAGE_MAX)),
    };
    let fields = [
        ("VIRTAGENT_ID", &*id.0.to_string()),
        ("VIRTAGENT_METHOD", method),
        ("VIRTAGENT_USER", user),
        ("VIRTAGENT_OUTCOME", outcome),
        ("VIRTAGENT_DURATION_US", &body.duration_us.to_string()),
    ];
    line.with_journal(6, &message, &fields)
}

#[derive(Serialize)]
struct EventBody<'a> {
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Json::is_null")]
    data: &'a Json,
}

/// The record of an event.
pub(super) fn event(event: &Event, journal: bool) -> Line {
    let user = event.user.as_deref();
    let body = EventBody { event: &event.event, user, uid: event.uid.map(Uid::as_raw), data: &event.data };
    let line = Line::new("event", &body);
    if !journal {
        return line;
    }
    let about = user.map(|user| format!(" ({user})")).unwrap_or_default();
    let fields = [("VIRTAGENT_EVENT", &*event.event), ("VIRTAGENT_USER", user.unwrap_or_default())];
    line.with_journal(6, &format!("{}{about}", event.event), &fields)
}

/// Any other record: start, stop, rotate, recovered, counted.
pub(super) fn plain(kind: &'static str, body: &Json, priority: u8, journal: bool) -> Line {
    let line = Line::new(kind, body);
    if !journal {
        return line;
    }
    let message = format!("audit log: {kind} {}", clip(&body.to_string(), 2048));
    line.with_journal(priority, &message, &[])
}
