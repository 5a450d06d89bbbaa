//! `cargo xtask bench` starts this: virtagent and qemu-ga side by side, here on unix sockets and in a guest on two ports.
//! It prints a table, and leaves it as JSON with one SVG chart. It must never ask an agent for more than pings, files of its
//! own and harmless programs.
#![forbid(unsafe_code)]
#![allow(
    clippy::disallowed_methods,
    reason = "a tool that starts programs and waits for them, outside of any event loop"
)]

mod agent;
mod chart;
mod guest;
mod local;
mod qga;
mod raw;
mod rounds;
mod sample;
mod table;
mod va;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::rounds::{Effort, Only};

const HERE: Effort = Effort {
    rounds: 9,
    pings: 3_000,
    windows: 200,
    file: 32 << 20,
    runs: 60,
    idle: Duration::from_secs(10),
    only: None,
};
const GUEST: Effort =
    Effort { rounds: 5, pings: 500, windows: 10, file: 4 << 20, runs: 10, idle: Duration::from_secs(10), only: None };
const QUICK: Effort =
    Effort { rounds: 3, pings: 40_000, windows: 50, file: 8 << 20, runs: 20, idle: Duration::from_secs(5), only: None };

fn main() -> Result<()> {
    let (mut vm, mut quick, mut only_vm, mut only, mut out) = (false, false, false, None, PathBuf::from("."));
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--vm" => vm = true,
            "--only-vm" => (vm, only_vm) = (true, true),
            "--quick" => quick = true,
            "--only" => {
                only = Some(match words.next().as_deref() {
                    Some("pings") => Only::Pings,
                    Some("files") => Only::Files,
                    Some("runs") => Only::Runs,
                    _ => bail!("--only takes pings, files or runs"),
                });
            }
            "--out" => out = words.next().context("--out needs a directory")?.into(),
            _ => bail!("not an option: {word} (started by `cargo xtask bench [--vm] [--quick]`)"),
        }
    }
    let mut tables = Vec::new();
    if !only_vm {
        eprintln!("== on this machine");
        tables.push(local::run(Effort { only, ..if quick { QUICK } else { HERE } })?);
    }
    if vm {
        eprintln!("== in a guest");
        let rounds = if quick { 2 } else { GUEST.rounds };
        tables.push(guest::run(Effort { rounds, only, ..GUEST })?);
    }
    for table in &tables {
        println!("\n{}", table.to_text());
    }
    let json = serde_json::Value::Array(tables.iter().map(table::Table::to_json).collect());
    std::fs::create_dir_all(&out)?;
    for (name, text) in [("bench.json", format!("{json:#}\n")), ("bench.svg", chart::draw(&tables))] {
        let file = out.join(name);
        std::fs::write(&file, text).with_context(|| format!("can't write {}", file.display()))?;
        println!("{}", file.display());
    }
    Ok(())
}
