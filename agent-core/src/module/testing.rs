//! A harness for a module's own tests: the real method table and the real binding of parameters, without a router.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::context::BUDGET_UNITS;
use super::descriptor::Instance;
use super::{CallContext, CallId, Descriptor, HostCaller, Level, Levels, Module, ModuleEnv, Origin, OwnerId};
use crate::rpc::{Fault, MethodName, Outcome, Value};

/// The calls that a module made to the host.
pub type HostCalls = mpsc::UnboundedReceiver<(MethodName, Vec<Value>)>;

/// One built module and a host that takes its calls.
pub struct Harness<M> {
    descriptor: Descriptor,
    instance: Box<dyn Instance>,
    level: Level,
    host: Arc<TestHost>,
    calls: RefCell<Option<HostCalls>>,
    module: PhantomData<M>,
}

/// Answers every call of the module with what [`Harness::host_answers`] set, nil at first; at once, unless
/// [`Harness::host_holds`] said otherwise.
struct TestHost {
    calls: mpsc::UnboundedSender<(MethodName, Vec<Value>)>,
    answer: Arc<Mutex<Outcome>>,
    held: Mutex<Option<Arc<Semaphore>>>,
}

impl HostCaller for TestHost {
    fn call_host(&self, method: MethodName, params: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let _ = self.calls.send((method, params));
        let answer = Arc::clone(&self.answer);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            if let Some(held) = held
                && let Ok(permit) = held.acquire_owned().await
            {
                permit.forget();
            }
            answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
        })
    }
}

impl<M: Module> Harness<M> {
    /// Builds the module with the given home (what relative paths mean) and settings.
    ///
    /// # Panics
    /// When it can't be built.
    pub fn new(level: Level, home: impl Into<PathBuf>, settings: toml::Table) -> Self {
        let (calls, received) = mpsc::unbounded_channel();
        let host = Arc::new(TestHost { calls, answer: Arc::new(Mutex::new(Ok(Value::Nil))), held: Mutex::new(None) });
        let descriptor = Descriptor::new::<M>("under-test", "0", Levels::Both);
        let env = ModuleEnv { level, uid: nix::unistd::getuid(), home: home.into(), host: host.clone(), settings };
        let instance = (descriptor.build)(&env).unwrap_or_else(|error| panic!("the module does not build: {error}"));
        Self { descriptor, instance, level, host, calls: RefCell::new(Some(received)), module: PhantomData }
    }

    /// Calls a method as the host's first conversation, with positional parameters.
    pub async fn call(&self, method: &str, params: Vec<Value>) -> Outcome {
        self.call_as(OwnerId(1), method, params).await
    }

    /// Calls a method with named parameters.
    pub async fn call_named<const N: usize>(&self, method: &str, params: [(&str, Value); N]) -> Outcome {
        self.call(method, vec![Value::object(params)]).await
    }

    /// Calls a method as that owner.
    pub async fn call_as(&self, owner: OwnerId, method: &str, params: Vec<Value>) -> Outcome {
        self.call_with(self.context(owner), method, params).await
    }

    /// A context to change before [`Harness::call_with`].
    pub fn context(&self, owner: OwnerId) -> CallContext {
        CallContext {
            id: CallId(1),
            origin: Origin::Host,
            owner,
            level: self.level,
            deadline: None,
            cancel: CancellationToken::new(),
            host: self.host.clone(),
            paths: Arc::new(BTreeMap::new()),
            budget: Arc::new(Semaphore::new(BUDGET_UNITS as usize)),
            held: Arc::default(),
        }
    }

    /// A context whose path parameter policy has resolved.
    pub fn context_with_path(&self, parameter: &'static str, path: impl Into<PathBuf>) -> CallContext {
        let mut context = self.context(OwnerId(1));
        context.paths = Arc::new(BTreeMap::from([(parameter, path.into())]));
        context
    }

    /// Calls a method with a context of one's own.
    pub async fn call_with(&self, context: CallContext, method: &str, params: Vec<Value>) -> Outcome {
        let specs = (self.descriptor.specs)();
        let index = specs.iter().position(|spec| spec.name == method && spec.levels.contains(self.level));
        match index {
            Some(index) => self.instance.call(index, context, params).await,
            None => Err(Fault::method_not_found(method)),
        }
    }

    /// Tells the module that an owner is gone.
    pub fn owner_gone(&self, owner: OwnerId) {
        self.instance.owner_gone(owner);
    }

    /// Stops the module.
    pub async fn stop(&self) {
        self.instance.stop().await;
    }

    /// What the host answers from now on.
    pub fn host_answers(&self, outcome: Outcome) {
        *self.host.answer.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    /// From now on the host leaves every call unanswered until [`Harness::host_releases`].
    pub fn host_holds(&self) {
        *self.host.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Semaphore::new(0)));
    }

    /// Lets a host that holds its answers give that many, oldest call first.
    pub fn host_releases(&self, answers: usize) {
        if let Some(held) = &*self.host.held.lock().unwrap_or_else(PoisonError::into_inner) {
            held.add_permits(answers);
        }
    }

    /// The calls that the module made to the host; can be taken once.
    ///
    /// # Panics
    /// When taken twice.
    pub fn host_calls(&self) -> HostCalls {
        self.calls.borrow_mut().take().unwrap_or_else(|| panic!("the host's calls were taken before"))
    }
}
