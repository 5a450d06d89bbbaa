//! Standard input to the program: read on a thread of its own, sent one block at a time, the reply being the credit.

use std::io::Read;

use agent_core::rpc::Value;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::client::{Client, Params};
use crate::failure::{Failure, Result};
use crate::terminal::Escape;

/// How much is read and sent at a time.
const BLOCK: usize = 64 * 1024;

/// What goes to a program's standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// Ours.
    Ours,
}

/// Sends until there is no more, or the program takes no more; true when the user typed the way out.
pub async fn feed(client: Client, handle: i64, input: Input, keys: bool) -> Result<bool> {
    if input == Input::Nothing {
        return Ok(false);
    }
    let mut blocks = read_stdin();
    let mut escape = keys.then(Escape::new);
    while let Some(block) = blocks.recv().await {
        let block = block.map_err(|error| Failure::local("read", std::path::Path::new("standard input"), &error))?;
        let (data, leave) = match &mut escape {
            Some(escape) => {
                let (passed, leave) = escape.filter(&block);
                (Bytes::from(passed), leave)
            }
            None => (block, false),
        };
        if leave {
            return Ok(true);
        }
        if data.is_empty() {
            continue;
        }
        let params = Params::new().with("handle", Value::Int(handle)).with("data", data).done();
        // How long the program takes to read is its own business.
        if client.within(std::time::Duration::ZERO).call("exec.stdin", params).await.is_err() {
            // It closed its input or ended; exec.wait says how.
            return Ok(false);
        }
    }
    let params = Params::new().with("handle", Value::Int(handle)).done();
    let _ = client.call("exec.close_stdin", params).await;
    Ok(false)
}

fn read_stdin() -> mpsc::Receiver<std::io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    // The thread may stay in read(2) when the command ends, and dies with it.
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; BLOCK];
        loop {
            let block = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = block.is_err();
            if sender.blocking_send(block).is_err() || failed {
                return;
            }
        }
    });
    receiver
}
