//! `power`: off, reboot, halt, and taking that back.

use std::time::Duration;

use agent_core::rpc::{Struct, Value};

use crate::cli::{Global, PowerCommand, PowerOptions};
use crate::client::{Client, Params};
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::json::from_value;
use crate::output::{cell, print_json, println};

pub async fn run(global: &Global, command: PowerCommand) -> Result<()> {
    if global.user.is_some() {
        return Err(Failure::usage("power is the whole machine's business: leave -u away"));
    }
    let (mode, verb, options) = match command {
        PowerCommand::Off(options) => ("powerdown", "powers off", options),
        PowerCommand::Reboot(options) => ("reboot", "restarts", options),
        PowerCommand::Halt(options) => ("halt", "halts", options),
        PowerCommand::Cancel => return cancel(global).await,
    };
    let client = Client::connect(global, Desk::new()).await?;
    let result = match client.is_ours() {
        true => client.call("power.shutdown", params(mode, &options)).await?,
        false => old(&client, mode, &options).await?,
    };
    client.close().await;
    if global.json {
        return print_json(&from_value(&result));
    }
    let at = cell(&result, "at").replace('T', " ");
    let when = if at == "-" { String::new() } else { format!(" at {at}") };
    let revoke = if options.delay.is_some_and(|delay| !delay.is_zero()) {
        "; `virtagent power cancel` takes it back"
    } else {
        ""
    };
    println(&format!("{} {verb}{when}{revoke}", client.target().name))
}

fn params(mode: &str, options: &PowerOptions) -> Struct {
    Params::new()
        .with("mode", mode)
        .maybe("delay", options.delay.map(|delay| Value::Int(whole_seconds(delay))))
        .maybe("message", options.message.as_deref())
        .done()
}

/// Rounded up: nobody is given less time than asked for.
fn whole_seconds(delay: Duration) -> i64 {
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// The method of 2011 takes a mode alone.
async fn old(client: &Client, mode: &str, options: &PowerOptions) -> Result<Value> {
    if options.delay.is_some() || options.message.is_some() {
        return Err(Failure::guest(
            "the guest's agent is of 2011 and takes neither --delay nor --message: leave them away",
        ));
    }
    client.call_with("va.shutdown", vec![mode.into()]).await
}

async fn cancel(global: &Global) -> Result<()> {
    let client = Client::connect(global, Desk::new()).await?;
    let result = client.call("power.cancel_shutdown", Struct::new()).await?;
    client.close().await;
    if global.json {
        return print_json(&from_value(&result));
    }
    let cancelled = result.get("cancelled").and_then(Value::as_bool).unwrap_or_default();
    println(if cancelled { "cancelled" } else { "nothing was scheduled" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_to_whole_seconds() {
        let options = PowerOptions { delay: Some(Duration::from_millis(1001)), message: None };
        assert_eq!(params("halt", &options)["delay"], Value::Int(2));
    }
}
