//! `info`: what runs in the guest.

use agent_core::rpc::{FaultCode, Struct, Value};
use serde_json::json;

use crate::cli::Global;
use crate::client::Client;
use crate::desk::Desk;
use crate::failure::Result;
use crate::json::from_value;
use crate::output::{cell, pairs, plain, print, print_json};

pub async fn run(global: &Global) -> Result<()> {
    let client = Client::connect(global, Desk::new()).await?;
    let agent = Value::Struct(client.capabilities().all.clone());
    let info = match client.call("info.get", Struct::new()).await {
        Ok(info) => Some(info),
        // An old agent, or one without that module: what it said of itself must do.
        Err(failure) if failure.is(FaultCode::MethodNotFound) || !client.is_ours() => None,
        Err(failure) => return Err(failure),
    };
    client.close().await;
    if global.json {
        return print_json(&json!({ "agent": from_value(&agent), "guest": info.as_ref().map(from_value) }));
    }
    print(&pairs(&lines(info.as_ref(), &agent, client.is_ours())))
}

fn lines(info: Option<&Value>, agent: &Value, ours: bool) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let mut add = |name, text: String| {
        if !text.is_empty() && text != "-" {
            lines.push((name, text));
        }
    };
    if let Some(info) = info {
        add("Host name", cell(info, "hostname"));
        if let Some(os) = info.get("os") {
            let pretty = ["pretty_name", "name", "id"].into_iter().map(|name| cell(os, name)).find(|text| text != "-");
            add("System", pretty.unwrap_or_default());
        }
        if let Some(kernel) = info.get("kernel") {
            add("Kernel", format!("{} {}", cell(kernel, "release"), cell(kernel, "machine")));
        }
        add("Virtualization", cell(info, "virtualization"));
        if let Some(uptime) = info.get("uptime").and_then(number) {
            add("Uptime", duration(uptime));
        }
        if let Some(zone) = info.get("timezone") {
            let offset = zone.get("offset").map_or_else(String::new, |offset| match offset.as_int() {
                Some(seconds) => format!(" (UTC{})", utc_offset(seconds)),
                None => format!(" ({})", plain(offset)),
            });
            add("Time zone", format!("{}{offset}", cell(zone, "name")));
        }
        add("Boot", cell(info, "boot_id"));
    }
    let name = if ours { "virtagentd" } else { "virtagent of 2011, version" };
    // Of our own peers `version` is the wire's; the daemon's own stands beside it.
    let version = agent.get("agent").unwrap_or(agent);
    add("Agent", format!("{name} {}", cell(version, "version")));
    if let Some(modules) = agent.get("modules").and_then(Value::as_array) {
        let names: Vec<_> =
            modules.iter().map(|module| module.as_str().map_or_else(|| cell(module, "name"), str::to_owned)).collect();
        add("Modules", names.join(", "));
    }
    lines
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        _ => None,
    }
}

/// `3 days 4 h 5 min`, or seconds when it is short.
fn duration(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds:.0} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (1, hours, minutes) => format!("1 day {hours} h {minutes} min"),
        (days, hours, minutes) => format!("{days} days {hours} h {minutes} min"),
    }
}

fn utc_offset(seconds: i64) -> String {
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.unsigned_abs() / 60;
    format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_described_in_lines() {
        let info = Value::object([
            ("hostname", "web1".into()),
            ("os", Value::object([("pretty_name", "Debian 12".into()), ("id", "debian".into())])),
            ("uptime", Value::Double(93_784.2)),
            ("timezone", Value::object([("name", "CET".into()), ("offset", Value::Int(3600))])),
        ]);
        let daemon = Value::object([("name", "virtagent".into()), ("version", "0.1.0".into())]);
        let agent = Value::object([("version", "1.0".into()), ("agent", daemon)]);
        let lines = lines(Some(&info), &agent, true);
        assert!(lines.contains(&("System", "Debian 12".to_owned())));
        assert!(lines.contains(&("Uptime", "1 day 2 h 3 min".to_owned())));
        assert!(lines.contains(&("Time zone", "CET (UTC+01:00)".to_owned())));
        assert!(lines.contains(&("Agent", "virtagentd 0.1.0".to_owned())));
    }
}
