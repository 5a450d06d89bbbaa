//! `shell`: a terminal in the guest.

use super::exec::{refuse_json, strings};
use crate::cli::Global;
use crate::client::Params;
use crate::failure::{Failure, Result};
use crate::process::{self, Input, Job};
use crate::terminal;

/// Starts the login shell of whoever the daemon runs as: a service's environment need not name one.
const LOGIN: &str = r#"s=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f7); s=${s:-${SHELL:-/bin/sh}}; SHELL=$s; export SHELL; exec "$s" -l"#;

pub async fn run(global: &Global, argv: Vec<String>) -> Result<u8> {
    refuse_json(global)?;
    if !terminal::stdin_is_terminal() {
        return Err(Failure::usage(
            "shell needs a terminal; for input from a file or a pipe there is `virtagent exec -- sh`",
        ));
    }
    let argv = match argv.is_empty() {
        true => ["/bin/sh", "-c", LOGIN].map(str::to_owned).to_vec(),
        false => argv,
    };
    let params = Params::new().with("argv", strings(argv)).done();
    process::run(global, Job { params, input: Input::Ours, tty: true }).await
}
