//! `policy test`, `audit verify` and `audit show`: what a guest's administrator asks.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent_core::audit::{self, Filter, Show};
use agent_core::config::Config;
use agent_core::identity::lookup_user;
use agent_core::module::{Descriptor, Level};
use agent_core::policy::{From, Query, explain};
use agent_core::router::resolve_for_policy;
use agent_core::rpc::{Struct, Value};
use anyhow::{Context, anyhow};

use crate::cli::{AuditTool, FromArg, LevelArg, PolicyTest, PolicyTool, Tool};
use crate::print;

/// Runs the tool.
pub fn run(tool: Tool) -> anyhow::Result<ExitCode> {
    match tool {
        Tool::Policy(PolicyTool::Test(test)) => policy_test(&test),
        Tool::Audit(AuditTool::Verify { config, log }) => {
            let report = audit::verify(&log_file(config.as_deref(), log)?)?;
            print(report.to_string().trim_end());
            Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Tool::Audit(AuditTool::Show { config, log, follow, user, method, json }) => {
            let log = log_file(config.as_deref(), log)?;
            let filter = Filter { user, method, since: None };
            let how = if json { Show::Json } else { Show::Text };
            let mut out = std::io::stdout().lock();
            match follow {
                true => audit::follow(&log, &filter, how, &mut out)?,
                false => audit::show(&log, &filter, how, &mut out)?,
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn log_file(config: Option<&Path>, log: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match log {
        Some(log) => Ok(log),
        None => Ok(Config::load(config).context("configuration")?.audit.file),
    }
}

fn policy_test(test: &PolicyTest) -> anyhow::Result<ExitCode> {
    let mut params = Struct::new();
    for pair in &test.params {
        let (name, value) = pair.split_once('=').ok_or_else(|| anyhow!("{pair:?}: a parameter is NAME=VALUE"))?;
        params.insert(name.to_owned(), Value::from(value));
    }
    let level = match test.level {
        Some(LevelArg::System) => Level::System,
        Some(LevelArg::User) => Level::User,
        None if test.user.is_some() => Level::User,
        None => Level::System,
    };
    // A user who asks about themselves is judged by their own policy too, as their daemon does; root can't vouch for what
    // a user may change, so for anybody else it is the owner's alone.
    // A user who does not exist yet may be asked about all the same.
    let user = test.user.as_deref().map(|name| (name, lookup_user(name).ok()));
    let own = user.as_ref().and_then(|(_, user)| user.as_ref()).filter(|user| user.uid == nix::unistd::geteuid());
    let config = match own {
        Some(user) if level == Level::User => Config::load_user(test.config.as_deref(), &user.home),
        _ => Config::load(test.config.as_deref()),
    };
    let policy = config.context("configuration")?.policy;
    let home = user.as_ref().and_then(|(_, user)| user.as_ref()).map(|user| user.home.clone());
    let spec = Descriptor::all().into_iter().flat_map(|module| (module.specs)()).find(|spec| spec.name == test.method);
    let mut paths = Vec::new();
    if let Some(spec) = &spec {
        paths = resolve_for_policy(spec, &params, home.as_deref()).map_err(|fault| anyhow!(fault.message))?;
    }
    for path in &test.path {
        let path = std::path::absolute(path)?;
        paths.push(path.canonicalize().unwrap_or(path));
    }
    let from = match test.from {
        FromArg::Host => From::Host,
        FromArg::User => From::User,
    };
    let name = user.as_ref().map(|(spec, user)| user.as_ref().map_or(*spec, |user| &*user.name));
    let uid = user.as_ref().and_then(|(_, user)| user.as_ref()).map(|user| user.uid.as_raw());
    let query = Query { user: name, uid, paths: &paths, ..Query::new(&test.method, level, from, &params) };
    let explanation = explain(&policy, &query);
    match test.json {
        true => print(&serde_json::to_string_pretty(&explanation)?),
        false => print(explanation.to_string().trim_end()),
    }
    Ok(if explanation.allow { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
