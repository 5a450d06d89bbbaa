//! The methods that the router answers itself: `va.*`, `system.*`, `session.list`.

use std::sync::{Arc, LazyLock};

use actix::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::job::Job;
use super::modules::Entry;
use super::session::SessionRef;
use super::{Reply, Request, Router, Take};
use crate::config::Limits;
use crate::encoding::Encoding;
use crate::identity;
use crate::link::VERSION;
use crate::module::{Descriptor, Level, Levels, MethodSpec};
use crate::rpc::{Call, Fault, MethodName, Outcome, Struct, Tag, Value, from_value, to_value};

/// The version of the wire that 2011 peers speak, and ours extends.
const PROTOCOL: &str = "1.0";
/// How many calls one system.multicall may hold.
const MULTICALL: usize = 256;

/// No parameters.
#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct CancelParams {
    /// The tag of the call to end, as its caller named it on this link.
    tag: String,
}

#[derive(Deserialize, JsonSchema)]
struct MethodParams {
    /// The method's name.
    method: String,
}

/// For the schema only: the calls are taken as values, so that one bad call costs that call.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct MulticallParams {
    /// The calls, made one after the other.
    calls: Vec<SubCall>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct SubCall {
    /// The method's name.
    #[serde(rename = "methodName")]
    method: String,
    /// Its parameters: an array, or a struct by name.
    #[serde(default)]
    params: Vec<serde_json::Value>,
}

#[derive(Serialize, JsonSchema)]
struct Capabilities {
    /// The wire's version.
    version: &'static str,
    /// Ours.
    agent: Agent,
    /// Every method that is offered here.
    methods: Vec<String>,
    /// `xml`, `json`, `cbor`.
    encodings: Vec<String>,
    limits: LimitsInfo,
    /// The guest's boot.
    boot_id: String,
    /// This daemon's level.
    level: String,
    modules: Vec<ModuleInfo>,
}

#[derive(Serialize, JsonSchema)]
struct Agent {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize, JsonSchema)]
struct LimitsInfo {
    /// Bytes.
    head: u64,
    /// Bytes.
    body: u64,
    /// Calls in flight to a session.
    calls_per_session: u64,
    /// Calls in flight on the host's link.
    calls_host: u64,
    /// Milliseconds.
    frame_timeout_ms: u64,
    /// Milliseconds; 0 for none.
    default_timeout_ms: u64,
}

#[derive(Serialize, JsonSchema)]
struct ModuleInfo {
    name: String,
    /// `system`, `user` or `both`.
    level: &'static str,
    version: String,
}

#[derive(Serialize, JsonSchema)]
struct Description {
    method: String,
    help: String,
    /// `system`, `user` or `both`.
    level: &'static str,
    /// The module that offers it; nothing for the router's own.
    module: Option<String>,
    /// XML-RPC types: the result's, then each parameter's.
    signature: Vec<String>,
    /// Positional order of the parameters.
    order: Vec<String>,
    /// JSON schema of the parameters.
    params: serde_json::Value,
    /// JSON schema of the result.
    result: serde_json::Value,
}

#[derive(Serialize, JsonSchema)]
struct SessionList {
    sessions: Vec<SessionInfo>,
}

#[derive(Serialize, JsonSchema)]
struct SessionInfo {
    username: String,
    uid: u32,
    /// The user daemon's process.
    pid: i32,
    /// Since when it is connected, RFC 3339.
    since: String,
    /// The modules that run in it.
    modules: Vec<String>,
    /// logind's session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seat: Option<String>,
    /// `x11`, `wayland`, `tty`, ...
    #[serde(skip_serializing_if = "Option::is_none", rename = "type")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    active: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
}

static SPECS: LazyLock<Vec<MethodSpec>> = LazyLock::new(|| {
    let mut specs = vec![
        MethodSpec::new::<Nothing, String>("va.ping", "Answers \"pong\"; takes and ignores any parameters"),
        MethodSpec::new::<Nothing, Capabilities>(
            "va.capabilities",
            "What this daemon is and offers: version, methods, encodings, limits, boot id, modules",
        ),
        MethodSpec::new::<CancelParams, bool>(
            "va.cancel",
            "Ends one of the caller's calls on this link early; false when no such call runs",
        ),
        MethodSpec::new::<MethodParams, Description>(
            "va.describe",
            "A method's help, levels, and the JSON schemas of its parameters and result",
        ),
        MethodSpec::new::<Nothing, Vec<String>>("system.listMethods", "The names of the methods that are offered here"),
        MethodSpec::new::<MethodParams, String>("system.methodHelp", "What a method does"),
        MethodSpec::new::<MethodParams, Vec<Vec<String>>>(
            "system.methodSignature",
            "A method's signatures: the result's type, then each parameter's",
        ),
        MethodSpec::new::<MulticallParams, Vec<serde_json::Value>>(
            "system.multicall",
            "Makes several calls in order; each answers an array of one result, or a fault's struct",
        ),
        MethodSpec::new::<Nothing, SessionList>(
            "session.list",
            "The connected user daemons, with what logind knows of their users' sessions",
        ),
    ];
    for spec in &mut specs {
        spec.levels = if spec.name == "session.list" { Levels::System } else { Levels::Both };
    }
    specs
});

fn spec(method: &str, level: Level) -> Option<&'static MethodSpec> {
    SPECS.iter().find(|spec| spec.name == method && spec.levels.contains(level))
}

/// What the parameters of one of the router's own methods are bound by before policy looks at them. A ping takes any.
pub(super) fn spec_to_bind(method: &str) -> Option<&'static MethodSpec> {
    SPECS.iter().find(|spec| spec.name == method && method != "va.ping")
}

fn levels_name(levels: Levels) -> &'static str {
    match levels {
        Levels::System => "system",
        Levels::User => "user",
        Levels::Both => "both",
    }
}

/// Answers a call to one of the router's own methods; nothing for any other method.
pub(super) async fn answer(job: &mut Job, cancel: CancellationToken) -> Option<Outcome> {
    let method = job.request.call.method.clone();
    if method == "va.ping" {
        return Some(Ok("pong".into()));
    }
    let spec = spec(method.as_str(), job.level)?;
    let params = std::mem::take(&mut job.request.call.params);
    Some(match spec.bind(params) {
        Ok(params) => run(job, method.as_str(), params, cancel).await,
        Err(fault) => Err(fault),
    })
}

async fn run(job: &mut Job, method: &str, params: Struct, cancel: CancellationToken) -> Outcome {
    match method {
        "va.capabilities" => to_value(&capabilities(job).await?),
        "va.cancel" => {
            let CancelParams { tag } = from_value(Value::Struct(params))?;
            let tag: Tag = tag.parse().map_err(|error| Fault::invalid_params(format!("tag: {error}")))?;
            match &job.request.reply {
                Reply::Wire { responder, .. } => Ok(responder.link().cancel_incoming(&tag).into()),
                Reply::Inside(_) => Err(Fault::invalid_params("va.cancel can't be part of a multicall")),
            }
        }
        "va.describe" => to_value(&describe(job, params).await?),
        "system.listMethods" => to_value(&state(job).await?.methods),
        "system.methodHelp" => Ok(describe(job, params).await?.help.into()),
        "system.methodSignature" => to_value(&vec![describe(job, params).await?.signature]),
        "system.multicall" => multicall(job, params, cancel).await,
        "session.list" => to_value(&sessions(job).await?),
        _ => Err(Fault::internal("a built-in method without an answer")),
    }
}

async fn state(job: &Job) -> Result<State, Fault> {
    job.router.send(GetState).await.map_err(|_| Fault::unavailable("the daemon is stopping"))
}

async fn capabilities(job: &Job) -> Result<Capabilities, Fault> {
    let State { methods, modules, limits, boot_id, .. } = state(job).await?;
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(Capabilities {
        version: PROTOCOL,
        agent: Agent { name: "virtagent", version: VERSION },
        methods: methods.into_iter().map(str::to_owned).collect(),
        encodings: Encoding::ALL.iter().map(Encoding::to_string).collect(),
        limits: LimitsInfo {
            head: limits.head as u64,
            body: limits.body as u64,
            calls_per_session: limits.calls_per_session as u64,
            calls_host: limits.calls_host as u64,
            frame_timeout_ms: millis(limits.frame_timeout),
            default_timeout_ms: millis(limits.default_timeout),
        },
        boot_id: boot_id.to_string(),
        level: job.level.to_string(),
        modules: modules
            .into_iter()
            .map(|module| ModuleInfo {
                name: module.name.to_owned(),
                level: levels_name(module.levels),
                version: module.version.to_owned(),
            })
            .collect(),
    })
}

async fn describe(job: &Job, params: Struct) -> Result<Description, Fault> {
    let MethodParams { method } = from_value(Value::Struct(params))?;
    let described = |spec: &MethodSpec, module: Option<String>, levels: Levels| Description {
        method: spec.name.to_owned(),
        help: spec.help.to_owned(),
        level: levels_name(levels),
        module,
        signature: spec.signature().into_iter().map(str::to_owned).collect(),
        order: spec.params.iter().map(|name| (*name).to_owned()).collect(),
        params: (spec.params_schema)().to_value(),
        result: (spec.result_schema)().to_value(),
    };
    if let Some(spec) = spec(&method, job.level) {
        return Ok(described(spec, None, spec.levels));
    }
    let found = job.router.send(FindEntry(method.clone())).await;
    match found.map_err(|_| Fault::unavailable("the daemon is stopping"))? {
        Some(entry) => {
            let levels = match (entry.offered_at(Level::System), entry.offered_at(Level::User)) {
                (true, true) => Levels::Both,
                (true, false) => Levels::System,
                _ => Levels::User,
            };
            Ok(described(&entry.spec, Some(entry.module.name.to_owned()), levels))
        }
        None => Err(Fault::method_not_found(format!("no such method here: {method}"))),
    }
}

async fn multicall(job: &Job, params: Struct, cancel: CancellationToken) -> Outcome {
    let many = || Fault::limit(format!("system.multicall takes at most {MULTICALL} calls"));
    if job.request.nested {
        return Err(Fault::invalid_params("system.multicall does not nest"));
    }
    let mut params = params;
    let (Some(Value::Array(calls)), true) = (params.remove("calls"), params.is_empty()) else {
        return Err(Fault::invalid_params("calls, and nothing else: an array of {methodName, params} is expected"));
    };
    if calls.len() > MULTICALL {
        return Err(many());
    }
    // All results wait here for the last one, so together they are as large as one reply may be.
    let limit = state(job).await?.limits.body;
    let mut size = 0;
    job.reserve(limit).await;
    let mut results = Vec::with_capacity(calls.len());
    for call in calls {
        if size > limit {
            return Err(Fault::limit(format!("the results of this multicall take over limits.body = {limit} bytes")));
        }
        let outcome = match sub_call(call) {
            Ok(call) => one_of_many(job, call, &cancel).await,
            Err(fault) => Err(fault),
        };
        // As the convention has it: a result in an array of one, a fault as its struct.
        size += outcome.as_ref().map_or(0, weight);
        results.push(match outcome {
            Ok(value) => Value::Array(vec![value]),
            Err(fault) => {
                Value::object([("faultCode", Value::Int(fault.code)), ("faultString", Value::String(fault.message))])
            }
        });
    }
    Ok(Value::Array(results))
}

/// What a value takes of a reply, near enough.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Struct(members) => members.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        _ => 8,
    }
}

/// What a multicall asks for, without the parameters; nothing for any other call.
pub(super) fn names_of_multicall(call: &Call) -> Option<Value> {
    if call.method != "system.multicall" {
        return None;
    }
    let calls = match call.params.as_slice() {
        [Value::Array(calls)] => calls.as_slice(),
        [Value::Struct(named)] => named.get("calls").and_then(Value::as_array).unwrap_or_default(),
        _ => &[],
    };
    let name = |call: &Value| call.get("methodName").and_then(Value::as_str).unwrap_or("?").into();
    Some(Value::Array(calls.iter().map(name).collect()))
}

fn sub_call(call: Value) -> Result<Call, Fault> {
    let Value::Struct(mut members) = call else {
        return Err(Fault::invalid_params("each call is a struct {methodName, params}"));
    };
    let method: MethodName = match members.get("methodName").and_then(Value::as_str) {
        Some(name) => name.parse().map_err(|error| Fault::invalid_params(format!("methodName: {error}")))?,
        None => return Err(Fault::invalid_params("methodName: a string is expected")),
    };
    let params = match members.remove("params") {
        None | Some(Value::Nil) => Vec::new(),
        Some(Value::Array(params)) => params,
        Some(named @ Value::Struct(_)) => vec![named],
        Some(_) => return Err(Fault::invalid_params("params: an array or a struct is expected")),
    };
    Ok(Call { method, params })
}

async fn one_of_many(job: &Job, call: Call, cancel: &CancellationToken) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    let request = Request {
        call,
        via: job.request.via.clone(),
        username: job.request.username.clone(),
        timeout: job.request.timeout,
        cancel: cancel.child_token(),
        size: 0,
        reply: Reply::Inside(reply),
        nested: true,
    };
    let stopping = || Fault::unavailable("the daemon is stopping");
    job.router.send(Take(request)).await.map_err(|_| stopping())?;
    outcome.await.map_err(|_| stopping())?
}

async fn sessions(job: &Job) -> Result<SessionList, Fault> {
    let mut sessions = state(job).await?.sessions;
    sessions.sort_by(|a, b| a.user.name.cmp(&b.user.name));
    // Without logind there is less to say, and no reason to fail.
    let logins = identity::Logind::system().sessions().await.unwrap_or_else(|fault| {
        tracing::debug!(%fault, "no word from logind");
        Vec::new()
    });
    let describe = |session: SessionRef| {
        // A seat's session says more than a background one, and an active one more than an idle one.
        let login = logins.iter().filter(|login| login.uid == session.user.uid);
        let login = login.max_by_key(|login| (login.active, login.seat.is_some()));
        SessionInfo {
            username: session.user.name.to_string(),
            uid: session.user.uid.as_raw(),
            pid: session.pid.as_raw(),
            since: humantime::format_rfc3339_seconds(session.since).to_string(),
            modules: session.modules,
            session: login.map(|login| login.id.clone()),
            seat: login.and_then(|login| login.seat.clone()),
            kind: login.map(|login| login.kind.clone()),
            active: login.map(|login| login.active),
            locked: login.map(|login| login.locked),
        }
    };
    Ok(SessionList { sessions: sessions.into_iter().map(describe).collect() })
}

/// What the router knows, for the methods that tell it.
struct State {
    methods: Vec<&'static str>,
    modules: Vec<&'static Descriptor>,
    sessions: Vec<SessionRef>,
    limits: Limits,
    boot_id: Arc<str>,
}

#[derive(Message)]
#[rtype(result = "State")]
struct GetState;

impl Handler<GetState> for Router {
    type Result = MessageResult<GetState>;

    fn handle(&mut self, _: GetState, _: &mut Context<Self>) -> Self::Result {
        let own = SPECS.iter().filter(|spec| spec.levels.contains(self.level)).map(|spec| spec.name);
        let running = self.catalogue.at(self.level).filter(|entry| self.modules.runs(entry.module.name));
        let mut methods: Vec<_> = own.chain(running.map(|entry| entry.spec.name)).collect();
        methods.sort_unstable();
        MessageResult(State {
            methods,
            modules: self.modules.running(),
            sessions: self.sessions.values().cloned().collect(),
            limits: self.limits.clone(),
            boot_id: Arc::clone(&self.boot_id),
        })
    }
}

#[derive(Message)]
#[rtype(result = "Option<Entry>")]
struct FindEntry(String);

impl Handler<FindEntry> for Router {
    type Result = Option<Entry>;

    fn handle(&mut self, FindEntry(method): FindEntry, _: &mut Context<Self>) -> Self::Result {
        let entry = self.catalogue.get(&method)?;
        (entry.offered_at(self.level) && self.modules.runs(entry.module.name)).then(|| entry.clone())
    }
}
