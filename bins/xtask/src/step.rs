//! Running programs for all to see: each is printed before it runs, and a failure says what failed.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::tree;

/// A heading, so that a long run can be followed.
pub fn say(text: &str) {
    eprintln!("\n== {text}");
}

/// A remark below a heading.
pub fn note(text: &str) {
    eprintln!("   {text}");
}

/// The program with its arguments, to be run in the repository's root.
pub fn command<S: AsRef<std::ffi::OsStr>>(argv: &[S]) -> Command {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).current_dir(tree::root());
    command
}

/// `cargo` as it was called for us, with these words.
pub fn cargo(words: &str) -> Command {
    let mut command = Command::new("cargo");
    command.args(words.split_whitespace()).current_dir(tree::root());
    command
}

/// How a command looks in a shell.
pub fn shown(command: &Command) -> String {
    let envs = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy())))
    });
    let words = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()).replace('\n', "\\n"));
    envs.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    let word =
        if word.len() > 160 { format!("{}...", word.chars().take(150).collect::<String>()) } else { word.to_owned() };
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Prints the command, runs it, and fails when it does.
pub fn run(command: &mut Command) -> Result<()> {
    let text = shown(command);
    eprintln!("   $ {text}");
    let begin = Instant::now();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("can't start: {text}"))?;
    if !status.success() {
        bail!("failed ({status}): {text}");
    }
    let took = begin.elapsed();
    if took.as_secs() >= 5 {
        note(&format!("({} s)", took.as_secs()));
    }
    Ok(())
}

/// Runs the command and gives what it printed.
pub fn read(command: &mut Command) -> Result<Vec<u8>> {
    let text = shown(command);
    eprintln!("   $ {text}");
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("can't start: {text}"))?;
    if !output.status.success() {
        bail!("failed ({}): {text}", output.status);
    }
    Ok(output.stdout)
}

/// Whether the command runs and succeeds, with nothing shown.
pub fn works(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Whether a program of this name is on the path (or where Debian keeps an administrator's).
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    dirs.map(|dir| dir.join(program)).any(|file| file.is_file())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}
