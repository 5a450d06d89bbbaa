//! `methods`: what the guest offers, and what a method takes.

use std::collections::BTreeMap;

use agent_core::rpc::{FaultCode, Struct, Value};
use serde_json::{Value as Json, json};

use crate::cli::Global;
use crate::client::{Client, Params};
use crate::desk::Desk;
use crate::failure::Result;
use crate::json::from_value;
use crate::output::{Table, escape_controls, print, print_json};

pub async fn run(global: &Global, method: Option<&str>) -> Result<()> {
    let client = Client::connect(global, Desk::new()).await?;
    let text = match method {
        Some(method) => one(global, &client, method).await,
        None => all(global, &client).await,
    };
    client.close().await;
    text
}

/// A line of the table.
#[derive(Default)]
struct Entry {
    system: bool,
    user: bool,
    help: String,
}

async fn all(global: &Global, client: &Client) -> Result<()> {
    let mut entries = BTreeMap::<String, Entry>::new();
    collect(client, &mut entries).await?;
    if client.user().is_none() && client.is_ours() {
        // The user level's methods, seen in whichever session there is; that none is there, or that policy hides
        // them, leaves the system's.
        let listed = client.call("session.list", Struct::new()).await.unwrap_or_default();
        let sessions = listed.get("sessions").and_then(Value::as_array).unwrap_or_default();
        if let Some(name) = sessions.first().and_then(|session| session.get("username")).and_then(Value::as_str) {
            let _ = collect(&client.acting_as(Some(name)), &mut entries).await;
        }
    }
    if global.json {
        let list =
            entries.iter().map(|(name, entry)| json!({ "method": name, "level": level(entry), "help": entry.help }));
        return print_json(&Json::Array(list.collect()));
    }
    let mut table = Table::new(&["METHOD", "LEVEL", "WHAT IT DOES"]);
    for (name, entry) in &entries {
        table.row([name.clone(), level(entry).to_owned(), first_sentence(&entry.help).to_owned()]);
    }
    print(&table.render())
}

fn level(entry: &Entry) -> &'static str {
    match (entry.system, entry.user) {
        (true, true) => "both",
        (false, true) => "user",
        _ => "system",
    }
}

fn first_sentence(help: &str) -> &str {
    let line = help.lines().next().unwrap_or_default();
    line.split_once(". ").map_or(line, |(sentence, _)| sentence).trim_end_matches('.')
}

/// The methods at the client's level, with their help in one more call.
async fn collect(client: &Client, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let listed = match client.call_with("system.listMethods", Vec::new()).await {
        Ok(listed) => {
            listed.as_array().unwrap_or_default().iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Err(_) if client.user().is_none() => client.capabilities().methods.clone(),
        Err(failure) => return Err(failure),
    };
    let listed: Vec<String> = listed;
    let help = helps(client, &listed).await;
    for (index, name) in listed.into_iter().enumerate() {
        let entry = entries.entry(name).or_default();
        match client.user() {
            Some(_) => entry.user = true,
            None => entry.system = true,
        }
        if entry.help.is_empty() {
            entry.help = help.get(index).cloned().unwrap_or_default();
        }
    }
    Ok(())
}

/// `system.methodHelp` of each, by one `system.multicall`; none where that is not offered.
async fn helps(client: &Client, methods: &[String]) -> Vec<String> {
    let call = |method: &String| {
        Value::object([
            ("methodName", "system.methodHelp".into()),
            ("params", Value::Array(vec![method.as_str().into()])),
        ])
    };
    let calls = methods.iter().map(call).collect::<Vec<_>>();
    match client.call_with("system.multicall", vec![Value::Array(calls)]).await {
        Ok(Value::Array(results)) => results
            .iter()
            .map(|result| {
                result.as_array().and_then(|one| one.first()).and_then(Value::as_str).unwrap_or_default().to_owned()
            })
            .collect(),
        _ => Vec::new(),
    }
}

async fn one(global: &Global, client: &Client, method: &str) -> Result<()> {
    let described = client.call("va.describe", Params::new().with("method", method).done()).await;
    match described {
        Ok(description) => {
            if global.json {
                return print_json(&from_value(&description));
            }
            print(&escape_controls(&explain(method, &from_value(&description))))
        }
        Err(failure) if failure.is(FaultCode::MethodNotFound) || !client.is_ours() => {
            // An agent without va.describe has XML-RPC's introspection; whether the method is there, it says too.
            let help = client.call_with("system.methodHelp", vec![method.into()]).await?;
            let signature = client.call_with("system.methodSignature", vec![method.into()]).await.unwrap_or_default();
            if global.json {
                return print_json(
                    &json!({ "method": method, "help": from_value(&help), "signature": from_value(&signature) }),
                );
            }
            let signature = from_value(&signature);
            print(&escape_controls(&format!(
                "{method}\n  {}\n  signature: {signature}\n",
                help.as_str().unwrap_or("-")
            )))
        }
        Err(failure) => Err(failure),
    }
}

/// A description of `va.describe` as text.
fn explain(method: &str, description: &Json) -> String {
    let mut text = method.to_owned();
    let level = ["levels", "level"].into_iter().find_map(|name| description.get(name));
    match level {
        Some(Json::String(level)) => text += &format!("  ({level})"),
        Some(Json::Array(levels)) => {
            let levels: Vec<_> = levels.iter().filter_map(Json::as_str).collect();
            text += &format!("  ({})", levels.join(" and "));
        }
        _ => {}
    }
    text += "\n";
    if let Some(help) = description.get("help").and_then(Json::as_str) {
        text += &format!("  {help}\n");
    }
    let schema = |names: &[&str]| names.iter().find_map(|name| description.get(name)).map(parsed);
    if let Some(params) = schema(&["params", "parameters", "params_schema"]) {
        let order =
            params.get("x-order").or_else(|| description.get("order")).or_else(|| description.get("positional"));
        text += "\nParameters, by name or in this order:\n";
        text += &properties(&params, &params, order);
    }
    if let Some(result) = schema(&["result", "result_schema"]) {
        text += "\nResult:\n";
        text += &properties(&result, &result, None);
    }
    text
}

/// A schema may travel as JSON text, whose order of members is the positional one.
fn parsed(schema: &Json) -> Json {
    match schema {
        Json::String(text) => serde_json::from_str(text).unwrap_or(Json::Null),
        other => other.clone(),
    }
}

fn properties(schema: &Json, root: &Json, order: Option<&Json>) -> String {
    let schema = resolve(schema, root);
    let Some(Json::Object(members)) = schema.get("properties") else {
        return match schema.get("type") {
            Some(_) => format!("  {}\n", type_of(schema, root)),
            None => "  none\n".to_owned(),
        };
    };
    if members.is_empty() {
        return "  none\n".to_owned();
    }
    let required: Vec<_> =
        schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    let ordered: Vec<&str> = match order.and_then(Json::as_array) {
        Some(names) => names.iter().filter_map(Json::as_str).collect(),
        None => members.keys().map(String::as_str).collect(),
    };
    let mut table = Table::new(&["  NAME", "TYPE", "", "WHAT IT IS"]);
    for name in ordered {
        let Some(member) = members.get(name) else { continue };
        let mut what = member.get("description").and_then(Json::as_str).unwrap_or_default().replace('\n', " ");
        if let Some(default) = member.get("default").filter(|default| !default.is_null()) {
            what += &format!(" [default: {default}]");
        }
        let need = if required.contains(&name) { "required" } else { "optional" };
        table.row([format!("  {name}"), type_of(member, root), need.to_owned(), what]);
    }
    table.render()
}

fn resolve<'a>(schema: &'a Json, root: &'a Json) -> &'a Json {
    let pointer = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// The type in a few words.
fn type_of(schema: &Json, root: &Json) -> String {
    let schema = resolve(schema, root);
    if schema.get("contentEncoding").is_some() {
        return "bytes".to_owned();
    }
    let choices =
        schema.get("enum").and_then(Json::as_array).map(|choices| choices.iter().map(Json::to_string).collect());
    if let Some(choices) = choices {
        let choices: Vec<String> = choices;
        return choices.join(" | ");
    }
    if let Some(constant) = schema.get("const") {
        return constant.to_string();
    }
    for several in ["oneOf", "anyOf"] {
        if let Some(choices) = schema.get(several).and_then(Json::as_array) {
            let kinds = choices.iter().map(|choice| type_of(choice, root)).filter(|kind| kind != "null");
            return kinds.collect::<Vec<_>>().join(" | ");
        }
    }
    let kinds: Vec<_> = match schema.get("type") {
        Some(Json::String(kind)) => vec![kind.as_str()],
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).filter(|kind| *kind != "null").collect(),
        _ => vec!["any"],
    };
    let kinds = kinds.into_iter().map(|kind| match (kind, schema.get("items"), schema.get("additionalProperties")) {
        ("array", Some(items), _) => format!("array of {}", type_of(items, root)),
        ("object", _, Some(members @ Json::Object(_))) => format!("object of {}", type_of(members, root)),
        ("integer", ..) => "int".to_owned(),
        _ => kind.to_owned(),
    });
    kinds.collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_becomes_a_table_of_parameters() {
        let params = json!({
            "type": "object",
            "properties": {
                "path": { "type": "string", "description": "which file" },
                "mode": { "$ref": "#/$defs/Mode" },
                "argv": { "type": ["array", "null"], "items": { "type": "string" } },
                "data": { "type": "string", "contentEncoding": "base64" },
            },
            "required": ["path"],
            "$defs": { "Mode": { "enum": ["read", "write"] } },
        });
        let description = json!({ "help": "Opens a file.", "levels": ["system", "user"], "params": params.to_string(),
            "result": { "type": "object", "properties": {} } });
        let text = explain("file.open", &description);
        assert!(text.starts_with("file.open  (system and user)\n  Opens a file.\n"), "{text}");
        assert!(text.contains("  path  string"), "{text}");
        assert!(text.contains("\"read\" | \"write\""), "{text}");
        assert!(text.contains("array of string"), "{text}");
        assert!(text.contains("bytes"), "{text}");
        assert!(text.ends_with("Result:\n  none\n"), "{text}");
    }

    #[test]
    fn the_table_shows_the_first_sentence() {
        assert_eq!(first_sentence("Opens a file. Answers a handle."), "Opens a file");
        assert_eq!(first_sentence(""), "");
    }
}
