//! What a method is told about the call that it answers.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use nix::unistd::Uid;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::rpc::{Fault, MethodName, Outcome, Value};

/// Where a module's methods run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// As root, in the system daemon.
    System,
    /// As one user, in their user daemon.
    User,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
        })
    }
}

/// Names one call in this daemon's audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Who owns what a module keeps between calls: one conversation of the host, or one session.
///
/// A new one is made whenever the other end connects; [`super::Module::owner_gone`] tells when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u64);

/// Where a call came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The hypervisor.
    Host,
    /// A user of this guest, by the kernel's word.
    User {
        /// The peer's UID.
        uid: Uid,
        /// Its name.
        name: Arc<str>,
    },
}

/// Calls the host on behalf of a module. Every such call passes the router, its policy and its audit log.
pub trait HostCaller: Send + Sync {
    /// Calls a method of the host and waits for its outcome.
    fn call_host(&self, method: MethodName, params: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

/// One call, as the module that answers it sees it. Cheap to clone.
#[derive(Clone)]
pub struct CallContext {
    /// The call's number in the audit log.
    pub id: CallId,
    /// Who called.
    pub origin: Origin,
    /// To whom whatever outlives this call belongs.
    pub owner: OwnerId,
    /// Where this runs.
    pub level: Level,
    /// When the call times out, if it does. The call's future is dropped then.
    pub deadline: Option<Instant>,
    /// Fires when the call's future is about to be dropped, for work that was handed to another thread.
    pub cancel: CancellationToken,
    pub(crate) host: Arc<dyn HostCaller>,
    pub(crate) paths: Arc<BTreeMap<&'static str, PathBuf>>,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) held: Arc<std::sync::Mutex<Vec<OwnedSemaphorePermit>>>,
}

impl CallContext {
    /// Calls the host back (`exec.output`, `host.event`).
    ///
    /// # Errors
    /// The host's fault, or ours when policy refuses, the host is away or takes no more.
    pub async fn call_host(&self, method: &str, params: Value) -> Outcome {
        let method = method.parse().map_err(|error| Fault::internal(format!("{error}")))?;
        self.host.call_host(method, vec![params]).await
    }

    /// A handle that calls the host and outlives this call.
    pub fn host(&self) -> Arc<dyn HostCaller> {
        Arc::clone(&self.host)
    }

    /// The path parameter of that name as policy resolved it: absolute, without symlinks or `..`, its last component
    /// perhaps not yet there. Open exactly this, with `RESOLVE_NO_SYMLINKS`, so that nobody can swap what policy judged.
    ///
    /// Nothing when no rule asked for paths; the module then resolves by itself.
    pub fn resolved_path(&self, parameter: &str) -> Option<&Path> {
        self.paths.get(parameter).map(PathBuf::as_path)
    }

    /// Takes `bytes` of the link's budget for replies and keeps them until this call's reply has been written.
    ///
    /// A method that makes a large result asks first, so that a peer which pipelines a thousand reads and takes no
    /// answer costs the budget and not a thousand buffers.
    pub async fn reserve(&self, bytes: usize) {
        if let Ok(permit) = Arc::clone(&self.budget).acquire_many_owned(reply_units(bytes)).await {
            self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(permit);
        }
    }
}

/// The link's budget for replies under way, in KiB: 32 MiB.
pub(crate) const BUDGET_UNITS: u32 = 32 * 1024;

/// What a result of that many bytes takes of it; never more than there is.
pub(crate) fn reply_units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(BUDGET_UNITS)
}

/// What a module is built with.
#[derive(Clone)]
pub struct ModuleEnv {
    /// Where it will run.
    pub level: Level,
    /// As whom.
    pub uid: Uid,
    /// That user's home: what relative paths and `~` mean at user level.
    pub home: PathBuf,
    /// Calls the host outside any call.
    pub host: Arc<dyn HostCaller>,
    /// The module's own table of the configuration: `[module.NAME]`.
    pub settings: toml::Table,
}

impl ModuleEnv {
    /// The module's settings as its own type; give the type `#[serde(default, deny_unknown_fields)]`.
    ///
    /// # Errors
    /// What in `[module.NAME]` does not fit.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, super::BuildError> {
        self.settings
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| super::BuildError::Settings(error.to_string()))
    }
}
