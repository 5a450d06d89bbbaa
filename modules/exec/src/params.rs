//! What each method takes and answers, as the wire has it. The comments are the JSON schema's descriptions.

use std::collections::BTreeMap;

use agent_core::rpc::Blob;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `exec.run`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RunParams {
    /// The program and its arguments; a name without a slash is searched in PATH. Either this or `script`.
    pub argv: Option<Vec<String>>,
    /// A script's text, which the interpreter reads from a private file; its standard input stays free.
    pub script: Option<String>,
    /// The program that runs the script, with its options: ["/bin/sh"] if not given.
    pub interpreter: Option<Vec<String>>,
    /// Environment variables to add or replace.
    pub env: Option<BTreeMap<String, String>>,
    /// Start with `env` alone rather than with the level's usual environment.
    pub clear_env: Option<bool>,
    /// The directory to start in: `/` at system level and the user's home at user level if not given.
    pub cwd: Option<String>,
    /// What the program reads on its standard input; nothing (/dev/null) if not given.
    pub stdin: Option<Blob>,
    /// Milliseconds after which the program is ended (SIGTERM, then SIGKILL) and `timed_out` is answered.
    pub timeout_ms: Option<u64>,
    /// Bytes to keep of each output, 512 KiB if not given; the rest is read and dropped, and `truncated` says so.
    pub output_limit: Option<usize>,
}

/// Result of `exec.run`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunResult {
    /// The program's exit code, unless a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the program, such as SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// What it wrote to its standard output.
    pub stdout: Blob,
    /// What it wrote to its standard error.
    pub stderr: Blob,
    /// Whether output beyond the limit was dropped.
    pub truncated: bool,
    /// Whether it was ended because `timeout_ms` had passed.
    pub timed_out: bool,
    /// From its start to its end, in milliseconds.
    pub duration_ms: u64,
    /// Its process number, while it ran.
    pub pid: i32,
}

/// Parameters of `exec.start`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StartParams {
    /// The program and its arguments; a name without a slash is searched in PATH. Either this or `script`.
    pub argv: Option<Vec<String>>,
    /// A script's text, which the interpreter reads from a private file; its standard input stays free.
    pub script: Option<String>,
    /// The program that runs the script, with its options: ["/bin/sh"] if not given.
    pub interpreter: Option<Vec<String>>,
    /// Environment variables to add or replace.
    pub env: Option<BTreeMap<String, String>>,
    /// Start with `env` alone rather than with the level's usual environment.
    pub clear_env: Option<bool>,
    /// The directory to start in: `/` at system level and the user's home at user level if not given.
    pub cwd: Option<String>,
    /// Whether standard input is a pipe for `exec.stdin`; nothing (/dev/null) if not. A terminal always takes input.
    pub stdin: Option<bool>,
    /// Give the program a terminal for all three of its streams.
    pub pty: Option<Terminal>,
}

/// A terminal to make.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terminal {
    /// Its height in characters.
    pub rows: u16,
    /// Its width in characters.
    pub cols: u16,
    /// The environment's TERM: xterm-256color if not given.
    #[serde(default)]
    pub term: Option<String>,
}

/// Result of `exec.start`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StartResult {
    /// Names the program in the other methods until `exec.wait` answered.
    pub handle: i64,
    /// Its process number.
    pub pid: i32,
}

/// Parameters of `exec.stdin`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StdinParams {
    /// What exec.start answered.
    pub handle: i64,
    /// What the program shall read, at most 1 MiB a call.
    pub data: Blob,
}

/// Parameters of the methods that take a handle alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandleParams {
    /// What exec.start answered.
    pub handle: i64,
}

/// Parameters of `exec.signal`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalParams {
    /// What exec.start answered.
    pub handle: i64,
    /// The signal's name (TERM, SIGTERM, SIGRTMIN+1) or number.
    pub signal: SignalName,
}

/// A signal by name or by number.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum SignalName {
    /// Its number, 1 to 64.
    Number(i64),
    /// Its name, with or without SIG.
    Name(String),
}

/// Parameters of `exec.resize`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResizeParams {
    /// What exec.start answered.
    pub handle: i64,
    /// The terminal's new height in characters.
    pub rows: u16,
    /// The terminal's new width in characters.
    pub cols: u16,
}

/// Result of `exec.wait`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct WaitResult {
    /// The program's exit code, unless a signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the program, such as SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// A method that has nothing to answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {}
