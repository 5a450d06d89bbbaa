//! What a feature module implements, and how it registers.
//!
//! A module is a crate: a type that implements [`Module`], and one [`inventory::submit!`] of its [`Descriptor`]. When the
//! daemon starts, each enabled module of its level is built and runs as a handler actor; the actor is this crate's own
//! business and no module sees it. `modules/template` is the example to copy, `docs/writing-a-module.md` the walk-through.
//!
//! Owns: the interface, the binding of parameters (by position or by name) and the schemas. Must never: know a module by
//! name, or do I/O.

mod context;
mod descriptor;
mod methods;
mod schema;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub(crate) use self::context::{BUDGET_UNITS, reply_units};
pub use self::context::{CallContext, CallId, HostCaller, Level, ModuleEnv, Origin, OwnerId};
pub(crate) use self::descriptor::Instance;
pub use self::descriptor::{BuildError, Descriptor, Levels, Placement};
pub use self::methods::{Handler, MethodSpec, Methods};

use std::future::Future;
use std::rc::Rc;

/// A feature: power, files, clipboard, ...
///
/// One instance runs on one event loop, so it needs neither `Send` nor locks: keep state in `Cell` and `RefCell`. Its
/// methods run concurrently, each as a future that is dropped when its call is cancelled or its deadline passes.
///
/// A method must not block: blocking work belongs in `tokio::task::spawn_blocking`. A module that declares
/// [`Placement::Own`] (the default) has a thread of its own, so that even one which does block harms no other.
pub trait Module: Sized + 'static {
    /// Makes the module when the daemon starts, or again after it panicked.
    ///
    /// # Errors
    /// Why it can't run here; the daemon then starts without it, says so, and its methods answer
    /// [`crate::rpc::FaultCode::Unavailable`].
    fn build(env: &ModuleEnv) -> Result<Self, BuildError>;

    /// The methods that it offers.
    fn methods() -> Methods<Self>;

    /// The owner of handles, processes or whatever the module keeps for a caller is gone (the host disconnected, the
    /// session closed): let go of what was its.
    fn owner_gone(self: Rc<Self>, _owner: OwnerId) {}

    /// The daemon stops: end what runs. Bounded by the daemon to five seconds.
    fn stop(self: Rc<Self>) -> impl Future<Output = ()> + 'static {
        async {}
    }
}

/// What most modules need: `use agent_core::module::prelude::*`.
pub mod prelude {
    pub use super::{BuildError, CallContext, Descriptor, Levels, Methods, Module, ModuleEnv, OwnerId, Placement};
    pub use crate::rpc::{Blob, Fault, FaultCode, Value};
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use std::rc::Rc;
}
