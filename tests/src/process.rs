//! Running programs with a limit, and the places of the programs under test.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wait;

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// `target/`, or wherever cargo puts it.
pub fn target() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A program of this workspace, of the same profile as the test that asks.
///
/// # Errors
/// When it is not built.
pub fn built(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // target/PROFILE/deps/TEST, or target/PROFILE/NAME for a program.
    let dirs = test.ancestors().skip(1).take(2);
    match dirs.map(|dir| dir.join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("{name} is not built beside {}: run `cargo build --workspace --bins`", test.display()),
    }
}

/// Runs the program with `input` on its standard input and gives what it wrote; ends it after `limit`.
///
/// # Errors
/// When it can't start or does not end in time; how it ended is the caller's matter.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let shown = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {shown}"))?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    // Not joined: a program that reads nothing would hold it. It ends with the pipe.
    std::thread::spawn(move || stdin.write_all(&input));
    let stdout = reader(child.stdout.take().context("no stdout")?);
    let stderr = reader(child.stderr.take().context("no stderr")?);
    let status = match wait::until(limit, "its end", || Ok(child.try_wait()?)) {
        Ok(status) => status,
        Err(_) => {
            child.kill()?;
            child.wait()?;
            let said = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
            bail!("{shown} did not end within {} s; it said: {said}", limit.as_secs());
        }
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    Ok(Output { status, stdout, stderr })
}

fn reader(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// The output of a program that succeeded.
///
/// # Errors
/// When it failed, with all that it said.
pub fn succeeded(what: &str, output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    bail!("{what} failed ({})\n--- stdout\n{stdout}--- stderr\n{stderr}", output.status);
}

/// A command as a line.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
