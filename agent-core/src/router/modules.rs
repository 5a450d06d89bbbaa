//! The enabled modules as handler actors, and the catalogue of all that were compiled in.
//!
//! A call is tried into the actor's mailbox: a full one is the fault Busy, a dead actor is rebuilt with back-off.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::config::Limits;
use crate::module::{CallContext, Descriptor, Instance, Level, MethodSpec, ModuleEnv, OwnerId, Placement};
use crate::rpc::{Fault, FaultCode, Outcome, Value};

/// The first and the longest wait before a module that panicked is built again.
const REBUILD_FIRST: Duration = Duration::from_millis(100);
const REBUILD_LAST: Duration = Duration::from_secs(30);

/// Every method of every module that was compiled in, enabled or not.
pub(super) struct Catalogue {
    methods: HashMap<&'static str, Entry>,
}

/// Where a method is found.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) module: &'static Descriptor,
    pub(crate) index: usize,
    pub(crate) spec: Arc<MethodSpec>,
}

/// Two modules that can't live in one daemon.
#[derive(Debug, thiserror::Error)]
#[error("modules {0} and {1} both offer {2}; compile in one of them")]
pub struct Collision(&'static str, &'static str, &'static str);

impl Catalogue {
    /// Collects what `inventory` holds.
    pub(super) fn collect() -> Result<Self, Collision> {
        let mut methods = HashMap::<_, Entry>::new();
        let mut names = HashMap::new();
        for module in Descriptor::all() {
            if names.insert(module.name, ()).is_some() {
                return Err(Collision(module.name, module.name, "modules of one name"));
            }
            for (index, spec) in (module.specs)().into_iter().enumerate() {
                let name = spec.name;
                let entry = Entry { module, index, spec: Arc::new(spec) };
                if let Some(other) = methods.insert(name, entry) {
                    return Err(Collision(other.module.name, module.name, name));
                }
            }
        }
        Ok(Self { methods })
    }

    pub(super) fn get(&self, method: &str) -> Option<&Entry> {
        self.methods.get(method)
    }

    /// The methods of that level, whether enabled or not, unsorted.
    pub(super) fn at(&self, level: Level) -> impl Iterator<Item = &Entry> {
        self.methods.values().filter(move |entry| entry.offered_at(level))
    }
}

impl Entry {
    pub(super) fn offered_at(&self, level: Level) -> bool {
        self.module.levels.contains(level) && self.spec.levels.contains(level)
    }
}

/// The modules that run in this daemon.
pub(super) struct Modules {
    slots: HashMap<&'static str, Slot>,
    mailbox: usize,
}

struct Slot {
    descriptor: &'static Descriptor,
    env: ModuleEnv,
    actor: Addr<ModuleActor>,
    /// The thread of a module that does not share the router's.
    arbiter: Option<Arbiter>,
    built: Instant,
    back_off: Duration,
}

impl Modules {
    /// Builds the enabled modules of a level. A name that is not compiled in is an error of the configuration, which
    /// [`super::check_modules`] has refused before.
    pub(super) fn start(enabled: &[String], limits: &Limits, env: impl Fn(&'static Descriptor) -> ModuleEnv) -> Self {
        let mailbox = limits.calls_host.max(limits.calls_per_session);
        let mut slots = HashMap::new();
        for descriptor in Descriptor::all() {
            let env = env(descriptor);
            if !enabled.iter().any(|name| name == descriptor.name) || !descriptor.levels.contains(env.level) {
                continue;
            }
            let arbiter = (descriptor.placement == Placement::Own).then(Arbiter::new);
            let actor = spawn(descriptor, &env, arbiter.as_ref(), mailbox);
            let slot = Slot { descriptor, env, actor, arbiter, built: Instant::now(), back_off: REBUILD_FIRST };
            slots.insert(descriptor.name, slot);
        }
        Self { slots, mailbox }
    }

    pub(super) fn runs(&self, module: &str) -> bool {
        self.slots.contains_key(module)
    }

    /// The modules that run, sorted by name.
    pub(super) fn running(&self) -> Vec<&'static Descriptor> {
        let mut running: Vec<_> = self.slots.values().map(|slot| slot.descriptor).collect();
        running.sort_by_key(|descriptor| descriptor.name);
        running
    }

    /// Hands a call to its module's actor.
    pub(super) fn call(
        &mut self,
        entry: &Entry,
        context: CallContext,
        params: Vec<Value>,
    ) -> Result<oneshot::Receiver<Outcome>, Fault> {
        let name = entry.module.name;
        let Some(slot) = self.slots.get_mut(name) else {
            return Err(Fault::method_not_found(format!("module {name} is not enabled")));
        };
        let (reply, outcome) = oneshot::channel();
        let invoke = Invoke { method: entry.index, context, params, reply };
        let invoke = match slot.actor.try_send(invoke) {
            Ok(()) => return Ok(outcome),
            Err(SendError::Full(_)) => {
                return Err(Fault::new(FaultCode::Busy, format!("module {name} has too much to do; try again later")));
            }
            Err(SendError::Closed(invoke)) => invoke,
        };
        slot.rebuild(self.mailbox)?;
        match slot.actor.try_send(invoke) {
            Ok(()) => Ok(outcome),
            Err(_) => Err(Fault::unavailable(format!("module {name} does not start"))),
        }
    }

    pub(super) fn owner_gone(&self, owner: OwnerId) {
        for slot in self.slots.values() {
            // Waits for room in the mailbox if need be: an owner's end must not be lost.
            let sending = slot.actor.send(OwnerGone(owner));
            actix::spawn(async move {
                let _ = sending.await;
            });
        }
    }

    /// Stops every module, all at once; each thread ends with its module.
    pub(super) fn stop(&mut self) -> impl Future<Output = ()> + 'static {
        let stopping: Vec<_> =
            self.slots.drain().map(|(_, slot)| (slot.actor.send(StopModule), slot.arbiter)).collect();
        async move {
            let stopping = stopping.into_iter().map(|(stopped, arbiter)| async move {
                let _ = stopped.await;
                if let Some(arbiter) = arbiter {
                    arbiter.stop();
                }
            });
            futures_util::future::join_all(stopping).await;
        }
    }
}

impl Slot {
    fn rebuild(&mut self, mailbox: usize) -> Result<(), Fault> {
        let name = self.descriptor.name;
        let lived = self.built.elapsed();
        if lived > REBUILD_LAST * 2 {
            self.back_off = REBUILD_FIRST;
        }
        if let Some(wait) = self.back_off.checked_sub(lived) {
            return Err(Fault::unavailable(format!(
                "module {name} stopped after a panic (see the log); it is built again in {} ms",
                wait.as_millis()
            )));
        }
        self.back_off = (self.back_off * 2).min(REBUILD_LAST);
        self.built = Instant::now();
        tracing::warn!(module = name, "building the module again after a panic");
        self.actor = spawn(self.descriptor, &self.env, self.arbiter.as_ref(), mailbox);
        Ok(())
    }
}

fn spawn(
    descriptor: &'static Descriptor,
    env: &ModuleEnv,
    arbiter: Option<&Arbiter>,
    mailbox: usize,
) -> Addr<ModuleActor> {
    let env = env.clone();
    let make = move |context: &mut Context<ModuleActor>| {
        context.set_mailbox_capacity(mailbox);
        let instance = match std::panic::catch_unwind(AssertUnwindSafe(|| (descriptor.build)(&env))) {
            Ok(Ok(instance)) => Ok(Rc::from(instance)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("it panicked: {}", panic_text(&*panic))),
        };
        if let Err(error) = &instance {
            tracing::error!(module = descriptor.name, error, "the module can't run here");
        }
        ModuleActor { name: descriptor.name, instance }
    };
    match arbiter {
        Some(arbiter) => ModuleActor::start_in_arbiter(&arbiter.handle(), make),
        None => ModuleActor::create(make),
    }
}

/// One module at work.
struct ModuleActor {
    name: &'static str,
    instance: Result<Rc<dyn Instance>, String>,
}

impl Actor for ModuleActor {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Invoke {
    method: usize,
    context: CallContext,
    params: Vec<Value>,
    reply: oneshot::Sender<Outcome>,
}

impl Handler<Invoke> for ModuleActor {
    type Result = ();

    fn handle(&mut self, invoke: Invoke, actor: &mut Context<Self>) {
        let Invoke { method, context, params, mut reply } = invoke;
        let name = self.name;
        let instance = match &self.instance {
            Ok(instance) => Rc::clone(instance),
            Err(error) => {
                let _ = reply.send(Err(Fault::unavailable(format!("module {name} can't run here: {error}"))));
                return;
            }
        };
        let address = actor.address();
        actix::spawn(async move {
            let cancel = context.cancel.clone();
            let running = AssertUnwindSafe(async { instance.call(method, context, params).await }).catch_unwind();
            let outcome = tokio::select! {
                outcome = running => outcome,
                // The caller is gone or its time is up: the method's future is dropped.
                () = reply.closed() => { cancel.cancel(); return }
            };
            let outcome = outcome.unwrap_or_else(|panic| {
                let text = panic_text(&*panic);
                tracing::error!(module = name, panic = text, "the module panicked");
                // What it left of its state is not to be trusted.
                let _ = address.try_send(Die);
                Err(Fault::internal(format!("module {name} panicked: {text}")))
            });
            let _ = reply.send(outcome);
        });
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

#[derive(Message)]
#[rtype(result = "()")]
struct OwnerGone(OwnerId);

impl Handler<OwnerGone> for ModuleActor {
    type Result = ();

    fn handle(&mut self, OwnerGone(owner): OwnerGone, _: &mut Context<Self>) {
        if let Ok(instance) = &self.instance {
            instance.owner_gone(owner);
        }
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Die;

impl Handler<Die> for ModuleActor {
    type Result = ();

    fn handle(&mut self, _: Die, context: &mut Context<Self>) {
        context.stop();
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct StopModule;

impl Handler<StopModule> for ModuleActor {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: StopModule, _: &mut Context<Self>) -> Self::Result {
        match &self.instance {
            Ok(instance) => instance.stop(),
            Err(_) => Box::pin(std::future::ready(())),
        }
    }
}
