//! One record as one readable line. Owns the words; a peer's text never reaches the terminal unescaped.

use std::fmt::Write;

use serde_json::{Map, Value as Json};

use super::summary::clip;

const PARAMS_MAX: usize = 120;

/// Appends the line, without a newline.
///
/// `2026-01-31T12:00:00.000000Z #7 host->alice exec.run argv=["id"] allow (default) ok 1.2 ms`
pub(super) fn record(out: &mut String, record: &Map<String, Json>, state: Option<&str>) {
    let mut line = String::new();
    compose(&mut line, record, state);
    escape_into(out, &line);
}

fn compose(out: &mut String, record: &Map<String, Json>, state: Option<&str>) {
    let text = |name: &str| record.get(name).and_then(Json::as_str).unwrap_or_default();
    // Writing to a String has no way to fail.
    let _ = write!(out, "{}", text("time"));
    match text("type") {
        "call" => call(out, record, state),
        "event" => {
            let _ = write!(out, " event {}", text("event"));
            if record.contains_key("user") {
                let _ = write!(out, " of {}", text("user"));
            }
            if let Some(data) = record.get("data") {
                let _ = write!(out, " {}", clip(&data.to_string(), PARAMS_MAX));
            }
        }
        "counted" => {
            let _ = write!(out, " counted since {}:", text("since"));
            for row in record.get("counts").and_then(Json::as_array).into_iter().flatten() {
                let text = |name: &str| row[name].as_str().unwrap_or_default();
                let of = if row["user"].is_null() { String::new() } else { format!(" of {}", text("user")) };
                let _ = write!(out, " {}{of} {} ok {} faults;", text("method"), row["ok"], row["fault"]);
            }
        }
        kind => {
            let _ = write!(out, " {kind}");
            let rest = record.iter().filter(|(name, _)| !matches!(&***name, "seq" | "time" | "type" | "prev"));
            for (name, value) in rest {
                let _ = write!(out, " {name}={value}");
            }
        }
    }
}

fn call(out: &mut String, record: &Map<String, Json>, state: Option<&str>) {
    let text = |name: &str| record.get(name).and_then(Json::as_str).unwrap_or_default();
    let number = |name: &str| record.get(name).and_then(Json::as_u64);
    let here = if record.contains_key("user") { text("user") } else { text("level") };
    let (from, to) = match text("direction") {
        "guest-to-host" => (if text("origin") == "daemon" { "daemon" } else { here }, "host"),
        _ => (text("origin"), here),
    };
    let _ = write!(out, " #{} {from}->{to} {}", number("id").unwrap_or_default(), text("method"));
    let params = params(record.get("params").unwrap_or(&Json::Null));
    if !params.is_empty() {
        let _ = write!(out, " {}", clip(&params, PARAMS_MAX));
    }
    let _ = write!(out, " {} ({})", text("verdict"), text("rule"));
    match (state, record.get("fault")) {
        (Some(state), _) => {
            let _ = write!(out, " {state}");
        }
        (None, Some(fault)) => {
            let part = |name: &str| fault[name].as_str().unwrap_or_default();
            let _ = write!(out, " {}: {}", part("name"), clip(part("message"), 2 * PARAMS_MAX));
        }
        (None, None) => out.push_str(" ok"),
    }
    if let Some(micros) = number("duration_us") {
        let _ = match micros {
            0..1_000 => write!(out, " {micros} µs"),
            1_000..1_000_000 => write!(out, " {}.{} ms", micros / 1000, micros % 1000 / 100),
            _ => write!(out, " {}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
        };
    }
}

/// `name=value` for each, the values as JSON.
fn params(params: &Json) -> String {
    match params {
        Json::Object(members) => {
            let pairs: Vec<String> = members.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(" ")
        }
        Json::Array(items) if items.is_empty() => String::new(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// Writes control characters, and those that turn a line around, as `\u{1b}`.
fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(json: Json) -> String {
        let mut out = String::new();
        record(&mut out, json.as_object().unwrap(), None);
        out
    }

    #[test]
    fn a_call_is_one_line_with_its_outcome() {
        let text = line(json!({
            "time": "T", "type": "call", "id": 7, "direction": "host-to-guest", "origin": "host", "level": "user",
            "user": "alice", "method": "exec.run", "params": {"argv": ["id"]}, "verdict": "allow",
            "rule": "default", "result": {}, "duration_us": 1234,
        }));
        assert_eq!(text, r#"T #7 host->alice exec.run argv=["id"] allow (default) ok 1.2 ms"#);
    }

    #[test]
    fn a_peers_control_characters_never_reach_the_terminal() {
        let evil = "\u{1b}[2J\n\u{9b}\u{202e}";
        let text = line(json!({
            "time": evil, "type": "call", "id": 7, "direction": evil, "user": evil, "method": evil,
            "params": {evil: evil}, "verdict": evil, "rule": evil, "fault": {"name": evil, "message": evil},
        }));
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
}
