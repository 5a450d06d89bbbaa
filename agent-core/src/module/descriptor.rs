//! How a module makes itself known.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{CallContext, Level, MethodSpec, Module, ModuleEnv, OwnerId};
use crate::rpc::{Outcome, Value};

/// The levels a module runs at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// In the system daemon only.
    System,
    /// In user daemons only.
    User,
    /// In both.
    Both,
}

impl Levels {
    /// Whether that level is among them.
    pub fn contains(self, level: Level) -> bool {
        matches!((self, level), (Self::Both, _) | (Self::System, Level::System) | (Self::User, Level::User))
    }
}

/// Which thread a module runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// A thread of its own: 41 microseconds a call, and whatever it does there harms no other module.
    Own,
    /// The router's thread: half a microsecond a call, for modules that provably never block.
    Shared,
}

/// Why a module can't run here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Its table of the configuration is wrong.
    #[error("its settings: {0}")]
    Settings(String),
    /// Something that it needs is not there.
    #[error("{0}")]
    Unavailable(String),
}

/// A module's entry in the registry; submit one with [`inventory::submit!`].
pub struct Descriptor {
    /// The name in `enabled`, and of its settings: `[module.NAME]`.
    pub name: &'static str,
    /// The module's own version.
    pub version: &'static str,
    /// Where it runs.
    pub levels: Levels,
    /// Which thread it gets.
    pub placement: Placement,
    /// Its methods, without building it.
    pub specs: fn() -> Vec<MethodSpec>,
    pub(crate) build: fn(&ModuleEnv) -> Result<Box<dyn Instance>, BuildError>,
}

impl Descriptor {
    /// A module on a thread of its own.
    pub const fn new<M: Module>(name: &'static str, version: &'static str, levels: Levels) -> Self {
        Self { name, version, levels, placement: Placement::Own, specs: specs::<M>, build: build::<M> }
    }

    /// The same module on the router's thread; only for one that never blocks.
    #[must_use]
    pub const fn shared(mut self) -> Self {
        self.placement = Placement::Shared;
        self
    }

    /// Every registered module, sorted by name (the linker's order differs between builds).
    pub fn all() -> Vec<&'static Self> {
        let mut all: Vec<_> = inventory::iter::<Self>.into_iter().collect();
        all.sort_by_key(|descriptor| descriptor.name);
        all
    }
}

inventory::collect!(Descriptor);

/// A built module, its type erased.
pub(crate) trait Instance {
    /// Starts the method of that index in [`Descriptor::specs`].
    fn call(&self, method: usize, context: CallContext, params: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome>>>;
    fn owner_gone(&self, owner: OwnerId);
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()>>>;
}

struct Built<M: Module> {
    module: Rc<M>,
    methods: super::Methods<M>,
}

impl<M: Module> Instance for Built<M> {
    fn call(&self, method: usize, context: CallContext, params: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome>>> {
        self.methods.call(method, Rc::clone(&self.module), context, params)
    }

    fn owner_gone(&self, owner: OwnerId) {
        Rc::clone(&self.module).owner_gone(owner);
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(Rc::clone(&self.module).stop())
    }
}

fn specs<M: Module>() -> Vec<MethodSpec> {
    M::methods().into_specs()
}

fn build<M: Module>(env: &ModuleEnv) -> Result<Box<dyn Instance>, BuildError> {
    Ok(Box::new(Built { module: Rc::new(M::build(env)?), methods: M::methods() }))
}
