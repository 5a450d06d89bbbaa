//! `call`: any method of the guest; `to-host call`: any method of the host, from inside.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use agent_core::rpc::{Fault, FaultCode, MethodName, Value};

use crate::cli::{Call, Global};
use crate::client::Client;
use crate::connect::{Address, Target};
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::json::from_value;
use crate::output::{print, print_json, println};
use crate::params;

pub async fn run(global: &Global, options: Call) -> Result<()> {
    let params = prepare(&options)?;
    let client = Client::connect(global, Desk::new()).await?;
    let result = client.call_with(&options.method, params).await?;
    client.close().await;
    show(global, &result)
}

/// Through one's own user daemon to the host.
pub async fn to_host(global: &Global, options: Call) -> Result<()> {
    if global.vm.is_some() || global.user.is_some() {
        return Err(Failure::usage("to-host runs inside the guest, as yourself: leave --vm and -u away"));
    }
    let params = prepare(&options)?;
    let path = global.socket.clone().unwrap_or_else(control_socket);
    if !path.exists() {
        return Err(Failure::NoConnection(format!(
            "no socket {}: is this the guest, and does your user daemon run (systemctl --user status virtagentd)?",
            path.display()
        )));
    }
    let target = Target { name: "your user daemon".to_owned(), address: Address::Unix(path) };
    let client = Client::connect_to(target, global, Desk::new()).await?;
    let result = match client.call_with(&options.method, params).await {
        Err(Failure::Fault { what, fault }) => return Err(hostward(what, *fault)),
        other => other?,
    };
    client.close().await;
    show(global, &result)
}

/// The guest's hints do not fit a call to the host.
fn hostward(what: String, fault: Fault) -> Failure {
    let hint = match fault.kind() {
        Some(FaultCode::MethodNotFound) => "; on the host, `virtagent serve --handler` answers methods",
        Some(FaultCode::Unavailable) => "; the host answers while a virtagent command is connected (`virtagent serve`)",
        _ => return Failure::fault(what, fault),
    };
    let known = fault.message.contains("virtagent serve");
    Failure::guest(format!("{what}: {}{}", fault.message, if known { "" } else { hint }))
}

fn control_socket() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let runtime = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/user/{}", nix::unistd::getuid())));
    runtime.join("virtagent/control.sock")
}

fn prepare(options: &Call) -> Result<Vec<Value>> {
    options.method.parse::<MethodName>().map_err(|error| Failure::usage(error.to_string()))?;
    params::parse(&options.params, read)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let outcome = match path == Path::new("-") {
        true => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
        false => std::fs::read(path).map(|all| bytes = all),
    };
    outcome.map_err(|error| Failure::local("read", path, &error))?;
    Ok(bytes)
}

/// Text and bytes as they are, everything else as JSON.
fn show(global: &Global, result: &Value) -> Result<()> {
    if global.json {
        return print_json(&from_value(result));
    }
    let to_terminal = std::io::stdout().is_terminal();
    match result {
        Value::Nil => Ok(()),
        Value::String(text) if to_terminal => println(&crate::output::escape_controls(text)),
        Value::String(text) => print(&if text.ends_with('\n') { text.clone() } else { format!("{text}\n") }),
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).ok();
            match text.filter(|text| !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'))) {
                _ if !to_terminal => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::stdout)
                }
                Some(text) => print(text),
                None => print_json(&from_value(result)),
            }
        }
        other => print_json(&from_value(other)),
    }
}
