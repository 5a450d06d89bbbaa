//! `file`: copy, list and change files of the guest.

use std::path::Path;

use agent_core::rpc::{Struct, Value};
use serde_json::{Value as Json, json};

use crate::cli::{FileCommand, Global};
use crate::client::{Client, Params};
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::json::from_value;
use crate::output::{Table, cell, clean, date, human_size, mode, pairs, print, print_json, println};
use crate::transfer::{self, Put};

pub async fn run(global: &Global, command: FileCommand) -> Result<()> {
    if let FileCommand::Put { local, .. } = &command
        && local.as_os_str() != "-"
        && !local.exists()
    {
        // Said before anything is asked of the guest.
        let error = std::io::Error::from_raw_os_error(nix::errno::Errno::ENOENT as i32);
        return Err(Failure::local("read", local, &error));
    }
    let client = Client::connect(global, Desk::new()).await?.pinned().await?;
    let outcome = act(global, &client, command).await;
    client.close().await;
    outcome
}

async fn act(global: &Global, client: &Client, command: FileCommand) -> Result<()> {
    match command {
        FileCommand::Get { remote, local } if local.as_os_str() == "-" => cat(client, &[remote], global.json).await,
        FileCommand::Get { remote, local } => get(global, client, &remote, &local).await,
        FileCommand::Put { local, remote, mode, resume } => {
            let put = Put { local: &local, remote: &remote, mode, resume, quiet: global.json };
            let done = transfer::put(client, &put).await?;
            copied(global, &done.path, done.bytes, done.resumed_at, Some(&done.digest))
        }
        FileCommand::Cat { remote } => cat(client, &remote, false).await,
        FileCommand::Ls { remote, names } => ls(global, client, remote.as_deref(), names).await,
        FileCommand::Stat { remote, no_follow } => stat(global, client, &remote, no_follow).await,
        FileCommand::Rm { remote, recursive } => {
            each(client, "file.remove", &remote, |path| path.flag("recursive", recursive)).await
        }
        FileCommand::Mkdir { remote, parents, mode } => {
            let mode = mode.map(|mode| Value::Int(mode.into()));
            each(client, "file.mkdir", &remote, |path| path.flag("parents", parents).maybe("mode", mode.clone())).await
        }
        FileCommand::Mv { from, to, force } => {
            let params = Params::new().with("from", from).with("to", to).flag("overwrite", force);
            client.call("file.rename", params.done()).await.map(drop)
        }
        FileCommand::Digest { remote, algorithm } => digest(global, client, &remote, &algorithm).await,
    }
}

async fn get(global: &Global, client: &Client, remote: &str, local: &Path) -> Result<()> {
    let got = transfer::get(client, remote, local, global.json).await?;
    copied(global, &got.path.display().to_string(), got.bytes, got.resumed_at, got.digest.as_deref())
}

fn copied(global: &Global, path: &str, bytes: u64, resumed_at: u64, digest: Option<&str>) -> Result<()> {
    if global.json {
        return print_json(&json!({ "path": path, "bytes": bytes, "resumed_at": resumed_at, "digest": digest }));
    }
    let size = human_size(bytes.cast_signed());
    let resumed = match resumed_at {
        0 => String::new(),
        at => format!(" (resumed at {})", human_size(at.cast_signed())),
    };
    println(&clean(&format!("{path}: {size}{resumed}, {}", digest.unwrap_or("not verified"))))
}

async fn cat(client: &Client, paths: &[String], quiet: bool) -> Result<()> {
    use std::io::IsTerminal;
    // A bar between the lines of a text helps nobody.
    let quiet = quiet || std::io::stdout().is_terminal();
    for path in paths {
        transfer::cat(client, path, std::io::stdout(), quiet).await?;
    }
    Ok(())
}

async fn each(client: &Client, method: &str, paths: &[String], with: impl Fn(Params) -> Params) -> Result<()> {
    for path in paths {
        client
            .call(method, with(Params::new().with("path", path.as_str())).done())
            .await
            .map_err(|failure| named(path, failure))?;
    }
    Ok(())
}

/// Of several files, the one that failed is named.
fn named(path: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Fault { what, fault } if !fault.message.contains(path) => {
            Failure::Fault { what: format!("{what} {path}"), fault }
        }
        other => other,
    }
}

async fn ls(global: &Global, client: &Client, path: Option<&str>, names: bool) -> Result<()> {
    let path = path.unwrap_or(if client.user().is_some() { "." } else { "/" });
    let mut entries = Vec::new();
    loop {
        let params = Params::new().with("path", path).with("offset", Value::Int(entries.len() as i64));
        let listed = client.call("file.list", params.done()).await.map_err(|failure| named(path, failure))?;
        let page = listed.get("entries").and_then(Value::as_array).unwrap_or_default();
        entries.extend_from_slice(page);
        if page.is_empty() || listed.get("more").and_then(Value::as_bool) != Some(true) {
            break;
        }
    }
    if global.json {
        return print_json(&Json::Array(entries.iter().map(from_value).collect()));
    }
    if names {
        return print(&entries.iter().fold(String::new(), |text, entry| text + &clean(&cell(entry, "name")) + "\n"));
    }
    let mut table = Table::new(&["MODE", "OWNER", "GROUP", ">SIZE", "MODIFIED", "NAME"]);
    for entry in &entries {
        let target = entry.get("target").and_then(Value::as_str).map(|target| format!(" -> {target}"));
        table.row([
            mode(&cell(entry, "type"), entry.get("mode").and_then(Value::as_int).unwrap_or(0)),
            either(entry, "user", "uid"),
            either(entry, "group", "gid"),
            entry.get("size").and_then(Value::as_int).map_or_else(|| "-".to_owned(), human_size),
            modified(entry),
            cell(entry, "name") + &target.unwrap_or_default(),
        ]);
    }
    print(&table.render())
}

fn either(entry: &Value, name: &str, number: &str) -> String {
    match cell(entry, name) {
        missing if missing == "-" => cell(entry, number),
        found => found,
    }
}

fn modified(entry: &Value) -> String {
    match entry.get("mtime") {
        Some(Value::Double(seconds)) => date(*seconds),
        Some(Value::Int(seconds)) => date(*seconds as f64),
        _ => "-".to_owned(),
    }
}

async fn stat(global: &Global, client: &Client, paths: &[String], no_follow: bool) -> Result<()> {
    let mut all = Vec::new();
    for path in paths {
        let params = Params::new().with("path", path.as_str());
        let params = if no_follow { params.with("follow", false) } else { params };
        let stat = client.call("file.stat", params.done()).await.map_err(|failure| named(path, failure))?;
        if !global.json {
            print(&pairs(&lines(path, &stat)))?;
            continue;
        }
        let mut members = Struct::from([("path".to_owned(), path.as_str().into())]);
        members.extend(stat.as_struct().cloned().unwrap_or_default());
        all.push(from_value(&Value::Struct(members)));
    }
    match global.json {
        true => print_json(&Json::Array(all)),
        false => Ok(()),
    }
}

fn lines(path: &str, stat: &Value) -> Vec<(&'static str, String)> {
    let bits = stat.get("mode").and_then(Value::as_int).unwrap_or(0);
    let kind = cell(stat, "type");
    let owner = |name: &str, number: &str| match stat.get(name).and_then(Value::as_str) {
        Some(name) => format!("{name} ({})", cell(stat, number)),
        None => cell(stat, number),
    };
    let mut lines = vec![
        ("File", path.to_owned()),
        ("Size", cell(stat, "size")),
        ("Mode", format!("{} ({bits:04o})", mode(&kind, bits))),
        ("Owner", owner("user", "uid")),
        ("Group", owner("group", "gid")),
        ("Modified", modified(stat)),
    ];
    lines.insert(1, ("Type", kind));
    if let Some(target) = stat.get("target").and_then(Value::as_str) {
        lines.insert(1, ("Points to", target.to_owned()));
    }
    lines
}

async fn digest(global: &Global, client: &Client, paths: &[String], algorithm: &str) -> Result<()> {
    let client = client.patient();
    let mut all = Vec::new();
    for path in paths {
        let params = Params::new().with("path", path.as_str()).with("algorithm", algorithm);
        let digest = client.call("file.digest", params.done()).await.map_err(|failure| named(path, failure))?;
        match global.json {
            true => all.push(json!({ "path": path, "digest": from_value(digest.get("digest").unwrap_or(&Value::Nil)), "size": from_value(digest.get("size").unwrap_or(&Value::Nil)) })),
            false => println(&format!("{}  {}", clean(&cell(&digest, "digest")), clean(path)))?,
        }
    }
    match global.json {
        true => print_json(&Json::Array(all)),
        false => Ok(()),
    }
}
