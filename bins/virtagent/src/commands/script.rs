//! `script`: a local script, run in the guest by its interpreter.

use std::io::Read;

use super::exec::{environment, refuse_json, strings};
use crate::cli::{Global, Script};
use crate::client::Params;
use crate::failure::{Failure, Result};
use crate::process::{self, Input, Job};
use crate::terminal;

/// The longest script: the guest takes 2 MiB in one call, whatever the encoding makes of it.
const LONGEST: u64 = 1 << 20;

pub async fn run(global: &Global, options: Script) -> Result<u8> {
    refuse_json(global)?;
    let from_stdin = options.file.as_os_str() == "-";
    let text = read(&options)?;
    let interpreter = interpreter(&options, &text)?;
    let params = Params::from(environment(&options.options))
        .with("script", text)
        .maybe("interpreter", interpreter.map(strings))
        .done();
    let pass = !from_stdin && !terminal::stdin_is_terminal();
    let input = if pass { Input::Ours } else { Input::Nothing };
    process::run(global, Job { params, input, tty: false }).await
}

fn read(options: &Script) -> Result<String> {
    let path = &options.file;
    let failed = |error: std::io::Error| Failure::local("read", path, &error);
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes)).map_err(failed)?;
    }
    if bytes.len() as u64 > LONGEST {
        let shown = path.display();
        return Err(Failure::usage(format!(
            "{shown} is longer than a script may be (1 MiB); `file put` it, then exec it"
        )));
    }
    String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{} is no text; `file put` it, then exec it", path.display())))
}

/// What runs the script, or nothing for the guest's default.
fn interpreter(options: &Script, text: &str) -> Result<Option<Vec<String>>> {
    let line = match &options.interpreter {
        Some(command) => Some(command.as_str()),
        None => text.strip_prefix("#!").map(|rest| rest.lines().next().unwrap_or_default()),
    };
    let mut words: Vec<String> = line.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if words.is_empty() && options.interpreter.is_some() {
        return Err(Failure::usage("--interpreter is empty: leave it away for the #! line or /bin/sh"));
    }
    if options.args.is_empty() {
        return Ok((!words.is_empty()).then_some(words));
    }
    if words.is_empty() {
        words.push("/bin/sh".to_owned());
    }
    Ok(Some(with_arguments(&words, &options.args)))
}

/// The guest appends the script's file to the interpreter's words, so the arguments come before it: a shell turns them
/// around until the file is the first.
fn with_arguments(words: &[String], args: &[String]) -> Vec<String> {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let turn = "n=$#; while [ \"$n\" -gt 1 ]; do set -- \"$@\" \"$1\"; shift; n=$((n-1)); done";
    let program = format!("{turn}; exec {} \"$@\"", quoted.join(" "));
    ["/bin/sh".to_owned(), "-c".to_owned(), program, "sh".to_owned()].into_iter().chain(args.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn script(line: &[&str]) -> Script {
        match Cli::try_parse_from(["virtagent", "script"].iter().chain(line)).unwrap().command {
            Command::Script(script) => script,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_line_names_the_interpreter() {
        let python = interpreter(&script(&["x"]), "#!/usr/bin/env python3\nprint(1)\n").unwrap().unwrap();
        assert_eq!(python, ["/usr/bin/env", "python3"]);
        assert_eq!(interpreter(&script(&["x"]), "echo hi\n").unwrap(), None);
        let chosen = interpreter(&script(&["--interpreter", "bash -e", "x"]), "#!/bin/sh\n").unwrap().unwrap();
        assert_eq!(chosen, ["bash", "-e"]);
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn arguments_reach_the_script_in_order_whatever_is_in_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "printf '<%s>' \"$@\"").unwrap();
        let words = interpreter(&script(&["x", "--", "a b", "", "it's", "-n"]), "").unwrap().unwrap();
        let output = std::process::Command::new(&words[0]).args(&words[1..]).arg(file.path()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "<a b><><it's><-n>");
    }
}
