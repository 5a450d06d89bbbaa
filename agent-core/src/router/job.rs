//! One call on its way: recipient, paths, verdict, record, action, record, reply.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::Addr;
use nix::unistd::Uid;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::clock::Clock;
use super::modules::Entry;
use super::ration::Rations;
use super::session::{Deliver, SessionRef};
use super::{FindSession, Invoke, Reply, Request, Router, Via, builtin, caller, paths};
use crate::audit::{self, Audit, Closing, Direction, Opening, Recorded, summarise};
use crate::encoding::Encoding;
use crate::identity::{self, User};
use crate::link::{CallOptions, Link, Source};
use crate::module::{CallContext, CallId, Level, Origin, OwnerId, reply_units};
use crate::policy::{From, Policy, Query};
use crate::rpc::{Fault, FaultCode, Outcome, Struct, Value};

/// Where a call goes.
#[derive(Clone)]
pub(super) enum Target {
    /// To this daemon's own modules.
    Here,
    /// To a session.
    Session(SessionRef),
    /// To the session of a user that is yet to be looked up.
    Resolve(String),
    /// To the other end of the upstream link.
    Upstream(Link),
}

/// One call.
pub(super) struct Job {
    pub id: CallId,
    /// The daemon's own level.
    pub level: Level,
    pub target: Result<Target, Fault>,
    /// The method's entry in the catalogue, where it has one.
    pub entry: Option<Entry>,
    pub user: Arc<User>,
    pub policy: Arc<Policy>,
    pub audit: Audit,
    pub rations: Arc<Rations>,
    pub default_timeout: Duration,
    pub upstream_owner: Option<OwnerId>,
    pub router: Addr<Router>,
    pub clock: Clock,
    pub request: Request,
    pub began: Instant,
}

/// Path parameters as policy resolved them.
type Paths = BTreeMap<&'static str, PathBuf>;

/// What policy and the log need to know beyond the call itself.
struct Subject {
    level: Level,
    user: Option<Arc<str>>,
    uid: Option<Uid>,
    home: Option<PathBuf>,
    direction: Direction,
}

impl Job {
    pub(super) async fn run(mut self) {
        let cancel = self.request.cancel.clone();
        let timeout = self.request.timeout.unwrap_or(self.default_timeout);
        let deadline = (!timeout.is_zero()).then(|| self.began + timeout);
        let (outcome, recorded) = self.outcome(deadline, &cancel).await;
        let Job { request, entry, audit, began, .. } = self;
        let close = async |bytes_out: usize| {
            if let Some(recorded) = recorded {
                let secrets = entry.as_ref().map_or(&[][..], |entry| entry.spec.secrets);
                let (bytes_in, bytes_out) = (request.size as u64, bytes_out as u64);
                audit.close(recorded, Closing::new(&outcome, secrets, began.elapsed(), bytes_in, bytes_out)).await;
            }
        };
        match request.reply {
            Reply::Wire { responder, .. } => {
                let reply = responder.prepare(&outcome);
                close(reply.size()).await;
                reply.send().await;
            }
            Reply::Inside(reply) => {
                close(0).await;
                let _ = reply.send(outcome);
            }
        }
    }

    /// What came of the call, and its record if one was opened.
    async fn outcome(&mut self, deadline: Option<Instant>, cancel: &CancellationToken) -> (Outcome, Option<Recorded>) {
        let mut reached = std::pin::pin!(self.clock.reach(deadline));
        let admitted = tokio::select! {
            biased;
            admitted = self.admit() => Some(admitted),
            () = cancel.cancelled() => None,
            () = &mut reached => None,
        };
        let (target, resolved, recorded) = match admitted {
            Some(Ok(admitted)) => admitted,
            Some(Err(fault)) => return (Err(fault), None),
            None => {
                let fault = if cancel.is_cancelled() { cancelled() } else { timed_out(self.began) };
                let subject = self.subject(None);
                return (Err(self.refuse(&subject, "routing", fault).await), None);
            }
        };
        let acting = self.act(target, resolved, deadline, cancel.clone());
        let outcome = tokio::select! {
            biased;
            outcome = acting => outcome,
            () = cancel.cancelled() => Err(cancelled()),
            () = &mut reached => Err(timed_out(self.began)),
        };
        (outcome, Some(recorded))
    }

    /// Everything that comes before the action: recipient, parameters, paths, verdict, record.
    async fn admit(&mut self) -> Result<(Target, Paths, Recorded), Fault> {
        if let Via::User { uid, .. } = &self.request.via
            && !self.audit.counts(&self.request.call.method)
        {
            self.rations.take(*uid, self.request.size)?;
        }
        let target = match self.find_target().await {
            Ok(target) => target,
            Err(fault) => {
                let subject = self.subject(None);
                return Err(self.refuse(&subject, "routing", fault).await);
            }
        };
        let subject = self.subject(Some(&target));
        if let Err(fault) = self.bind() {
            return Err(self.refuse(&subject, "parameters", fault).await);
        }
        let resolved = match self.resolve_paths(&subject).await {
            Ok(resolved) => resolved,
            Err(fault) => return Err(self.refuse(&subject, "paths", fault).await),
        };
        let rule = match self.judge(&subject, &resolved) {
            Ok(rule) => rule,
            Err((rule, fault)) => return Err(self.refuse(&subject, &rule, fault).await),
        };
        let opening = self.opening(&subject, audit::Verdict::Allow, rule);
        let recorded = match self.audit.open(opening).await {
            Ok(recorded) => recorded,
            Err(error) => {
                tracing::error!(%error, method = %self.request.call.method, "refused a call that can't be recorded");
                return Err(Fault::unavailable(format!("the call can't be recorded, so it is refused: {error}")));
            }
        };
        Ok((target, resolved, recorded))
    }

    /// Looks a user up who has no session under the name that the host used.
    async fn find_target(&self) -> Result<Target, Fault> {
        let spec = match &self.target {
            Ok(Target::Resolve(spec)) => spec,
            other => return other.clone(),
        };
        let uid = if spec == ACTIVE {
            let active = identity::Logind::system().active_user("seat0").await?;
            active
                .ok_or_else(|| Fault::new(FaultCode::NoSession, "no user is active on seat0 (loginctl seat-status)"))?
        } else {
            identity::resolve_user(spec).await?.uid
        };
        match self.router.send(FindSession(uid)).await {
            Ok(Some(session)) => Ok(Target::Session(session)),
            _ => Err(Fault::new(
                FaultCode::NoSession,
                format!("{spec} has no user daemon connected (virtagent users lists who has)"),
            )),
        }
    }

    fn subject(&self, target: Option<&Target>) -> Subject {
        let own_user = || (self.level == Level::User).then(|| (Arc::clone(&self.user.name), self.user.uid));
        let (user, level, home) = match (&self.request.via, target) {
            (Via::User { uid, name, .. }, _) => (Some((Arc::clone(name), *uid)), Level::User, None),
            (Via::Upstream, Some(Target::Session(session))) => {
                let user = &session.user;
                (Some((Arc::clone(&user.name), user.uid)), Level::User, Some(user.home.clone()))
            }
            (Via::Upstream, None) if self.request.username.is_some() => (None, Level::User, None),
            _ => (own_user(), self.level, (self.level == Level::User).then(|| self.user.home.clone())),
        };
        let direction = match self.request.via {
            Via::Upstream => Direction::HostToGuest,
            _ => Direction::GuestToHost,
        };
        let (user, uid) = match user {
            Some((name, uid)) => (Some(name), Some(uid)),
            // Somebody the host named who could not be found.
            None => (self.request.username.as_deref().map(Arc::from), None),
        };
        Subject { level, user, uid, home, direction }
    }

    /// Gives the parameters their names, where the method is known here.
    fn bind(&mut self) -> Result<(), Fault> {
        if !matches!(self.request.via, Via::Upstream) {
            return Ok(());
        }
        let own = builtin::spec_to_bind(self.request.call.method.as_str());
        let Some(spec) = self.entry.as_ref().map(|entry| &*entry.spec).or(own) else { return Ok(()) };
        let params = std::mem::take(&mut self.request.call.params);
        self.request.call.params = vec![Value::Struct(spec.bind(params)?)];
        Ok(())
    }

    fn named(&self) -> Option<&Struct> {
        match self.request.call.params.as_slice() {
            [Value::Struct(named)] => Some(named),
            _ => None,
        }
    }

    async fn resolve_paths(&self, subject: &Subject) -> Result<Paths, Fault> {
        let (Some(entry), Some(named)) = (&self.entry, self.named()) else { return Ok(Paths::new()) };
        let names_paths = !entry.spec.paths.is_empty() || !entry.spec.link_paths.is_empty();
        if !names_paths || !self.judged() || !self.policy.wants_paths(&self.query(subject, named, &[])) {
            return Ok(Paths::new());
        }
        let given = paths::given(&entry.spec, named, subject.home.as_deref())?;
        let resolving = tokio::task::spawn_blocking(move || {
            given.into_iter().map(|(name, path, follow)| Ok((name, paths::resolve(&path, follow)?))).collect()
        });
        resolving.await.unwrap_or_else(|_| Err(Fault::internal("resolving paths stopped")))
    }

    fn query<'q>(&'q self, subject: &'q Subject, params: &'q Struct, paths: &'q [PathBuf]) -> Query<'q> {
        let from = if matches!(self.request.via, Via::Upstream) { From::Host } else { From::User };
        let (user, uid) = (subject.user.as_deref(), subject.uid.map(Uid::as_raw));
        Query { user, uid, paths, ..Query::new(self.request.call.method.as_str(), subject.level, from, params) }
    }

    /// Whether policy has a say: a module's own call to the host is part of the call that it works on.
    fn judged(&self) -> bool {
        !matches!(self.request.via, Via::Module)
    }

    fn judge(&self, subject: &Subject, resolved: &Paths) -> Result<String, (String, Fault)> {
        if !self.judged() {
            return Ok("the daemon's own".to_owned());
        }
        let (empty, paths) = (Struct::new(), resolved.values().cloned().collect::<Vec<_>>());
        let verdict = self.policy.judge(&self.query(subject, self.named().unwrap_or(&empty), &paths));
        if verdict.allow {
            return Ok(verdict.decided_by);
        }
        let fault = verdict.fault(self.request.call.method.as_str());
        Err((verdict.decided_by, fault))
    }

    fn opening(&self, subject: &Subject, verdict: audit::Verdict, rule: String) -> Opening {
        let (names, secrets) =
            self.entry.as_ref().map_or((&[][..], &[][..]), |entry| (entry.spec.params, entry.spec.secrets));
        let (tag, encoding) = match &self.request.reply {
            Reply::Wire { tag, encoding, .. } => (Some(tag.clone()), Some(*encoding)),
            Reply::Inside(_) => (None, None),
        };
        Opening {
            id: self.id,
            direction: subject.direction,
            origin: match self.request.via {
                Via::Upstream => audit::Source::Host,
                Via::User { .. } => audit::Source::User,
                Via::Module => audit::Source::Daemon,
            },
            level: subject.level,
            user: subject.user.clone(),
            uid: subject.uid,
            method: self.request.call.method.clone(),
            tag,
            encoding,
            params: match builtin::names_of_multicall(&self.request.call) {
                // Each of its calls has a record of its own, in which that method's secrets are hidden.
                Some(methods) => summarise(&[methods], &["methods"], &[]),
                None => summarise(&self.request.call.params, names, secrets),
            },
            verdict,
            rule: rule.into(),
        }
    }

    /// Records a call that does not run.
    async fn refuse(&self, subject: &Subject, rule: &str, fault: Fault) -> Fault {
        let opening = self.opening(subject, audit::Verdict::Deny, rule.to_owned());
        self.audit.refuse(opening, &fault).await;
        fault
    }

    async fn act(
        &mut self,
        target: Target,
        resolved: Paths,
        deadline: Option<Instant>,
        cancel: CancellationToken,
    ) -> Outcome {
        // The remaining time, for whoever acts: a little less than ours would only make two clocks race.
        let timeout = Some(deadline.map_or(Duration::ZERO, |deadline| {
            deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
        }));
        match target {
            Target::Here => self.act_here(resolved, deadline, cancel).await,
            Target::Session(session) => {
                let call = self.request.call.clone();
                let username = Some(session.user.name.to_string());
                let options = CallOptions { username, timeout, encoding: Some(Encoding::Cbor) };
                if let Reply::Wire { responder, .. } = &mut self.request.reply {
                    responder.on_account_of(Source::User(session.user.uid.as_raw()));
                    if responder.holds_inbound() {
                        // From the link's account to the session's: the host's other calls are read on.
                        let room = session.room.admit(self.request.size).await?;
                        responder.hold_inbound(room);
                    }
                }
                // Whatever ends this job ends the call in the session.
                let cancel = cancel.child_token();
                let _ends_it = cancel.clone().drop_guard();
                let delivered = session.address.send(Deliver { call, options, cancel }).await;
                let gone = |_| Fault::new(FaultCode::SessionClosed, "the session closed");
                let (value, held) = delivered.map_err(gone)??;
                self.hold(held);
                Ok(value)
            }
            Target::Upstream(link) => {
                let (username, source) = match &self.request.via {
                    Via::User { uid, name, .. } if self.level == Level::System => {
                        (Some(name.as_ref().to_owned()), Source::User(uid.as_raw()))
                    }
                    // A user daemon says nothing of who it is: the system daemon knows. It may name a recipient.
                    _ => (self.request.username.clone(), Source::System),
                };
                let encoding = None;
                let options = CallOptions { username, timeout, encoding };
                // A module's push waits for its turn: what it pushes is lost otherwise.
                let patient = matches!(self.request.via, Via::Module);
                let (value, held) = link.forward(self.request.call.clone(), &options, source, patient).await?;
                // A user who reads no replies must not hold the host's link up: what waits for them is bounded by the calls
                // that they may have in flight, and no longer by the link's budget.
                if !matches!(self.request.via, Via::User { .. }) {
                    self.hold(held);
                }
                Ok(value)
            }
            Target::Resolve(_) => Err(Fault::internal("the recipient was not looked up")),
        }
    }

    /// Takes room for a large result out of the link's budget, until the reply is written.
    pub(super) async fn reserve(&self, bytes: usize) {
        if let Reply::Wire { responder, .. } = &self.request.reply {
            self.hold(responder.budget().acquire_many_owned(reply_units(bytes)).await.ok());
        }
    }

    fn hold(&self, permit: Option<OwnedSemaphorePermit>) {
        if let (Reply::Wire { responder, .. }, Some(permit)) = (&self.request.reply, permit) {
            responder.held.lock().unwrap_or_else(PoisonError::into_inner).push(permit);
        }
    }

    async fn act_here(&mut self, resolved: Paths, deadline: Option<Instant>, cancel: CancellationToken) -> Outcome {
        if let Some(outcome) = builtin::answer(self, cancel.clone()).await {
            return outcome;
        }
        let Some(entry) = self.entry.clone().filter(|entry| entry.offered_at(self.level)) else {
            return Err(self.not_offered());
        };
        let (budget, held) = match &self.request.reply {
            Reply::Wire { responder, .. } => (responder.budget(), Arc::clone(&responder.held)),
            Reply::Inside(_) => (Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)), Arc::<Mutex<Vec<_>>>::default()),
        };
        let origin = match &self.request.via {
            Via::User { uid, name, .. } => Origin::User { uid: *uid, name: Arc::clone(name) },
            _ => Origin::Host,
        };
        let owner = match &self.request.via {
            Via::User { owner, .. } => Some(*owner),
            _ => self.upstream_owner,
        };
        let owner = owner.ok_or_else(|| Fault::unavailable("the host is not connected"))?;
        let host = caller::from_module(self.router.clone());
        let level = self.level;
        let paths = Arc::new(resolved);
        let context = CallContext { id: self.id, origin, owner, level, deadline, cancel, host, paths, budget, held };
        let params = std::mem::take(&mut self.request.call.params);
        let module = entry.module.name;
        let invoked = self.router.send(Invoke { entry, context, params }).await;
        let outcome = invoked.map_err(|_| Fault::unavailable("the daemon is stopping"))??;
        outcome.await.unwrap_or_else(|_| Err(Fault::unavailable(format!("module {module} stopped in mid-call"))))
    }

    /// Why nobody here answers that method, and what to do.
    fn not_offered(&self) -> Fault {
        let (method, level) = (&self.request.call.method, self.level);
        match &self.entry {
            None => Fault::method_not_found(format!(
                "no such method here: {method}; the module that offers it may not be compiled in"
            )),
            Some(entry) if level == Level::System && entry.offered_at(Level::User) => Fault::method_not_found(format!(
                "{method} is offered at user level only: name a user (X-Virtagent-Username, virtagent --user)"
            )),
            Some(_) => Fault::method_not_found(format!("{method} is offered at system level only: name no user")),
        }
    }
}

/// The user that logind calls active on seat0.
const ACTIVE: &str = "@active";

fn cancelled() -> Fault {
    Fault::new(FaultCode::Cancelled, "the caller cancelled the call or went away")
}

fn timed_out(began: Instant) -> Fault {
    let waited = Duration::from_millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
    Fault::new(FaultCode::TimedOut, format!("no result within {}", humantime::format_duration(waited)))
}
