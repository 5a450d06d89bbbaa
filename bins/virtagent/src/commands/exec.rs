//! `exec`: a program of the guest with our streams.

use agent_core::rpc::{Struct, Value};

use crate::cli::{Exec, ExecOptions, Global};
use crate::client::Params;
use crate::failure::{Failure, Result};
use crate::process::{self, Input, Job};
use crate::terminal;

pub async fn run(global: &Global, options: Exec) -> Result<u8> {
    refuse_json(global)?;
    let params = Params::from(environment(&options.options)).with("argv", strings(options.argv)).done();
    let pass = options.interactive || options.tty || !terminal::stdin_is_terminal();
    let input = if pass { Input::Ours } else { Input::Nothing };
    process::run(global, Job { params, input, tty: options.tty }).await
}

/// What exec and script have in common.
pub fn environment(options: &ExecOptions) -> Struct {
    let variables: Struct = options.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    Params::new()
        .maybe("cwd", options.cwd.as_deref())
        .maybe("env", (!variables.is_empty()).then_some(Value::Struct(variables)))
        .flag("clear_env", options.clear_env)
        .done()
}

pub fn strings(texts: Vec<String>) -> Value {
    Value::Array(texts.into_iter().map(Value::String).collect())
}

/// A program's output is its own, and no JSON of ours.
pub fn refuse_json(global: &Global) -> Result<()> {
    match global.json {
        true => Err(Failure::usage(
            "--json does not fit a program's own output; `virtagent call --json exec.run 'argv=[..]'` gives it as JSON",
        )),
        false => Ok(()),
    }
}
