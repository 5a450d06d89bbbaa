//! From a call's parameters to a program that can be launched. Checks; touches no file.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::environment::{Base, DEFAULT_PATH};
use crate::error::ExecError;
use crate::params::{RunParams, StartParams, Terminal};

/// What to execute, checked.
pub(crate) struct Command {
    /// The program's name, for messages.
    pub name: String,
    pub candidates: Vec<CString>,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    pub directory: CString,
    /// The caller named no directory, so any will do.
    pub directory_or_root: bool,
    pub script: Option<Script>,
}

/// A script's text; its file's name becomes the last argument.
pub(crate) struct Script {
    pub text: String,
    pub directories: Vec<PathBuf>,
}

/// The parameters that `exec.run` and `exec.start` share.
pub(crate) struct Wanted {
    argv: Option<Vec<String>>,
    script: Option<String>,
    interpreter: Option<Vec<String>>,
    env: BTreeMap<String, String>,
    clear_env: bool,
    cwd: Option<String>,
}

impl Wanted {
    pub(crate) fn of_run(params: &mut RunParams) -> Self {
        Self {
            argv: params.argv.take(),
            script: params.script.take(),
            interpreter: params.interpreter.take(),
            env: params.env.take().unwrap_or_default(),
            clear_env: params.clear_env.unwrap_or(false),
            cwd: params.cwd.take(),
        }
    }

    pub(crate) fn of_start(params: &mut StartParams) -> Self {
        Self {
            argv: params.argv.take(),
            script: params.script.take(),
            interpreter: params.interpreter.take(),
            env: params.env.take().unwrap_or_default(),
            clear_env: params.clear_env.unwrap_or(false),
            cwd: params.cwd.take(),
        }
    }

    /// The command, with TERM in its environment when it gets a terminal.
    pub(crate) fn command(self, base: &Base, terminal: Option<&Terminal>) -> Result<Command, ExecError> {
        let wrong = |text: &str| Err(ExecError::Params(text.to_owned()));
        let (argv, script) = match (self.argv, self.script) {
            (Some(_), Some(_)) => return wrong("both argv and script were given: give one of them"),
            (None, None) => return wrong("neither argv nor script was given: give one of them"),
            (Some(_), None) if self.interpreter.is_some() => {
                return wrong("interpreter goes with script, and argv was given");
            }
            (Some(argv), None) => (argv, None),
            (None, Some(text)) => {
                let interpreter = self.interpreter.unwrap_or_else(|| vec!["/bin/sh".to_owned()]);
                (interpreter, Some(Script { text, directories: base.script_directories() }))
            }
        };
        let Some(name) = argv.first().filter(|name| !name.is_empty()).cloned() else {
            return wrong("no program: the first string of argv (or interpreter) must name one");
        };
        for variable in self.env.keys() {
            if variable.is_empty() || variable.contains('=') {
                return wrong(&format!("env has the name {:?}: a name is not empty and has no '='", shown(variable)));
            }
        }

        let mut env = base.variables(self.clear_env, &self.env);
        if let Some(terminal) = terminal {
            let term = terminal.term.as_deref().unwrap_or("xterm-256color");
            env.insert("TERM".into(), term.into());
        }
        let directory = match &self.cwd {
            Some(cwd) => base.resolve(cwd),
            None => base.directory().to_owned(),
        };
        Ok(Command {
            candidates: candidates(&name, env.get(OsStr::new("PATH")))?,
            argv: argv.into_iter().map(|argument| c_string("argv", argument)).collect::<Result<_, _>>()?,
            env: env.into_iter().map(assignment).collect::<Result<_, _>>()?,
            directory: c_string("cwd", directory.into_os_string().into_vec())?,
            directory_or_root: self.cwd.is_none(),
            name: shown(&name),
            script,
        })
    }
}

/// A name for a message of one line: neither long nor with control characters.
pub(crate) fn shown(name: &str) -> String {
    const MOST: usize = 200;
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut text: String = name.chars().take(MOST).map(clean).collect();
    if name.chars().nth(MOST).is_some() {
        text.push('…');
    }
    text
}

fn c_string(parameter: &str, text: impl Into<Vec<u8>>) -> Result<CString, ExecError> {
    CString::new(text)
        .map_err(|_| ExecError::Params(format!("{parameter} has a NUL character, which no program can take")))
}

fn assignment((name, value): (OsString, OsString)) -> Result<CString, ExecError> {
    let mut text = name.into_vec();
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    c_string("env", text)
}

/// Where a program may be. Unlike the C library's search, an empty entry of PATH does not mean the working directory.
fn candidates(name: &str, path: Option<&OsString>) -> Result<Vec<CString>, ExecError> {
    if name.contains('/') {
        return Ok(vec![c_string("argv", name)?]);
    }
    let path = path.map_or(OsStr::new(DEFAULT_PATH), OsString::as_os_str).as_bytes();
    let directories = path.split(|byte| *byte == b':').filter(|directory| !directory.is_empty());
    directories.map(|directory| c_string("argv", [directory, b"/", name.as_bytes()].concat())).collect()
}
