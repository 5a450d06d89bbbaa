//! `cargo xtask man`: manual pages and completions, generated from the very command lines that the programs parse.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

use crate::{step, tree};

#[allow(dead_code, unused_imports, reason = "only the command line's definition is used here")]
#[path = "../../virtagent/src/cli.rs"]
mod virtagent_cli;

#[allow(dead_code, unused_imports, reason = "only the command line's definition is used here")]
#[path = "../../virtagentd/src/cli.rs"]
mod virtagentd_cli;

/// Writes `target/assets/{guest,host}/{man,bash,zsh,fish}`.
pub fn run() -> Result<()> {
    step::say("manual pages and completions");
    let assets = tree::assets();
    generate(virtagentd_cli::Cli::command(), "8", &assets.join("guest"))?;
    generate(virtagent_cli::Cli::command(), "1", &assets.join("host"))
}

fn generate(command: clap::Command, section: &str, out: &Path) -> Result<()> {
    if out.exists() {
        fs::remove_dir_all(out)?;
    }
    let name = command.get_name().to_owned();
    let pages = out.join("man");
    fs::create_dir_all(&pages)?;
    let mut whole = command.clone();
    whole.build();
    let count = page(&whole, &name, section, &pages)?;
    for (shell, dir) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
        let dir = out.join(dir);
        fs::create_dir_all(&dir)?;
        let file = generate_to(shell, &mut command.clone(), &name, &dir)?;
        if shell == Shell::Bash {
            // bash-completion looks for the command's plain name.
            fs::rename(&file, dir.join(&name)).with_context(|| format!("can't rename {}", file.display()))?;
        }
    }
    step::note(&format!("{count} manual pages and the completions of bash, zsh and fish: {}", out.display()));
    Ok(())
}

/// The page of this command and, named `virtagent-file-get`, those of its subcommands. Gives how many.
fn page(command: &clap::Command, name: &str, section: &str, dir: &Path) -> Result<usize> {
    let file = dir.join(format!("{name}.{section}"));
    let titled = command.clone().display_name(name.to_owned());
    let mut roff = Vec::new();
    clap_mangen::Man::new(titled).section(section).render(&mut roff)?;
    fs::write(&file, roff).with_context(|| format!("can't write {}", file.display()))?;
    let mut count = 1;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        count += page(sub, &format!("{name}-{}", sub.get_name()), section, dir)?;
    }
    Ok(count)
}
