//! A module's method table: names, help, schemas, and the functions behind them.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CallContext, Levels, schema};
use crate::rpc::{Fault, Outcome, Struct, Value, from_value, to_value};

/// A method as the outside sees it.
#[derive(Clone)]
pub struct MethodSpec {
    /// Its name on the wire.
    pub name: &'static str,
    /// One sentence or two: what it does.
    pub help: &'static str,
    /// Where it is offered; narrower than its module's levels if the module says so.
    pub levels: Levels,
    /// Its parameters' names in positional order.
    pub params: &'static [&'static str],
    /// Parameters that the audit log hides.
    pub secrets: &'static [&'static str],
    /// Parameters that hold paths, for rules with `path`.
    pub paths: &'static [&'static str],
    /// The same for a method that acts on a symlink itself: the last component is not followed.
    pub link_paths: &'static [&'static str],
    /// The boolean parameter that, when false, makes every path one of `link_paths`.
    pub follow_flag: Option<&'static str>,
    /// The JSON schema of the parameters, an object.
    pub params_schema: fn() -> Schema,
    /// The JSON schema of the result.
    pub result_schema: fn() -> Schema,
    first_is_struct: fn() -> bool,
}

impl MethodSpec {
    /// The specification of a method that takes `P` and answers `R`.
    pub fn new<P: DeserializeOwned + JsonSchema, R: JsonSchema>(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            levels: Levels::Both,
            params: schema::field_names::<P>(),
            secrets: &[],
            paths: &[],
            link_paths: &[],
            follow_flag: None,
            params_schema: schema::of::<P>,
            result_schema: schema::of::<R>,
            first_is_struct: || schema::first_property_is_object(&schema::of::<P>()),
        }
    }

    /// Binds positional parameters to their names; one struct stands for named ones, unless the method's only way to
    /// take a struct there is its first parameter.
    ///
    /// # Errors
    /// [`crate::rpc::FaultCode::InvalidParams`] for too many parameters.
    pub fn bind(&self, mut params: Vec<Value>) -> Result<Struct, Fault> {
        if let [Value::Struct(members)] = params.as_mut_slice() {
            let names_fit = members.keys().all(|name| self.params.contains(&name.as_str()));
            if names_fit || !(self.first_is_struct)() {
                return Ok(std::mem::take(members));
            }
        }
        if params.len() > self.params.len() {
            let (name, takes, came) = (self.name, self.params.len(), params.len());
            return Err(Fault::invalid_params(format!("{name} takes at most {takes} parameters, {came} came")));
        }
        Ok(self.params.iter().map(|name| (*name).to_owned()).zip(params).filter(|(_, v)| *v != Value::Nil).collect())
    }

    /// XML-RPC introspection's signature: the result's type, then each parameter's.
    pub fn signature(&self) -> Vec<&'static str> {
        let result = schema::xmlrpc_type((self.result_schema)().as_value());
        std::iter::once(result).chain(schema::property_types(&(self.params_schema)())).collect()
    }
}

/// What runs a method: bound to a module, parameters checked on the way in.
pub type Handler<M> = Rc<dyn Fn(Rc<M>, CallContext, Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome>>>>;

/// A module's methods.
///
/// ```ignore
/// Methods::new()
///     .add("file.open", "Opens a file and answers a handle", Files::open).path("path")
///     .add("file.close", "Closes a handle", Files::close)
/// ```
pub struct Methods<M> {
    entries: Vec<(MethodSpec, Handler<M>)>,
}

impl<M: 'static> Methods<M> {
    /// No methods yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// A method: `async fn(self: Rc<Self>, CallContext, P) -> Result<R, Fault>`.
    ///
    /// `P` is a struct whose fields are the parameters, in positional order, each with a documentation comment.
    #[must_use]
    pub fn add<P, R, F, Fut>(mut self, name: &'static str, help: &'static str, function: F) -> Self
    where
        P: DeserializeOwned + JsonSchema + 'static,
        R: Serialize + JsonSchema + 'static,
        F: Fn(Rc<M>, CallContext, P) -> Fut + 'static,
        Fut: Future<Output = Result<R, Fault>> + 'static,
    {
        let spec = MethodSpec::new::<P, R>(name, help);
        let binding = spec.clone();
        let handler: Handler<M> = Rc::new(move |module, context, params| {
            let bound = binding.bind(params).and_then(|named| from_value::<P>(Value::Struct(named)));
            match bound {
                Err(fault) => Box::pin(std::future::ready(Err(fault))),
                Ok(params) => {
                    let running = function(module, context, params);
                    Box::pin(async move { to_value(&running.await?) })
                }
            }
        });
        self.entries.push((spec, handler));
        self
    }

    /// The last method's parameter of that name never reaches a log.
    #[must_use]
    pub fn secret(mut self, names: &'static [&'static str]) -> Self {
        if let Some((spec, _)) = self.entries.last_mut() {
            spec.secrets = names;
        }
        self
    }

    /// The last method's parameters of these names are paths.
    #[must_use]
    pub fn paths(mut self, names: &'static [&'static str]) -> Self {
        if let Some((spec, _)) = self.entries.last_mut() {
            spec.paths = names;
        }
        self
    }

    /// The last method's parameters of these names are paths whose last component it does not follow.
    #[must_use]
    pub fn link_paths(mut self, names: &'static [&'static str]) -> Self {
        if let Some((spec, _)) = self.entries.last_mut() {
            spec.link_paths = names;
        }
        self
    }

    /// The last method's paths are followed to their end unless its parameter of this name is false.
    #[must_use]
    pub fn follow_flag(mut self, name: &'static str) -> Self {
        if let Some((spec, _)) = self.entries.last_mut() {
            spec.follow_flag = Some(name);
        }
        self
    }

    /// The last method is offered at these levels only.
    #[must_use]
    pub fn only(mut self, levels: Levels) -> Self {
        if let Some((spec, _)) = self.entries.last_mut() {
            spec.levels = levels;
        }
        self
    }

    pub(crate) fn into_specs(self) -> Vec<MethodSpec> {
        self.entries.into_iter().map(|(spec, _)| spec).collect()
    }

    pub(crate) fn call(
        &self,
        method: usize,
        module: Rc<M>,
        context: CallContext,
        params: Vec<Value>,
    ) -> Pin<Box<dyn Future<Output = Outcome>>> {
        match self.entries.get(method) {
            Some((_, handler)) => handler(module, context, params),
            None => Box::pin(std::future::ready(Err(Fault::internal("a method outside the module's table")))),
        }
    }
}
