//! One file a command. Each takes what the command line says and returns the exit code.

mod call;
mod events;
mod exec;
mod file;
mod info;
mod methods;
mod ping;
mod power;
mod script;
mod serve;
mod shell;
mod users;

use crate::cli::{Cli, Command, ToHostCommand};
use crate::failure::Result;

/// Runs the command.
pub async fn run(cli: Cli) -> Result<u8> {
    let Cli { global, command } = cli;
    match command {
        Command::Ping(options) => ping::run(&global, &options).await,
        Command::Info => info::run(&global).await.map(|()| 0),
        Command::Users => users::run(&global).await.map(|()| 0),
        Command::Methods { method } => methods::run(&global, method.as_deref()).await.map(|()| 0),
        Command::Call(options) => call::run(&global, options).await.map(|()| 0),
        Command::File(command) => file::run(&global, command).await.map(|()| 0),
        Command::Exec(options) => exec::run(&global, options).await,
        Command::Script(options) => script::run(&global, options).await,
        Command::Shell { argv } => shell::run(&global, argv).await,
        Command::Power(command) => power::run(&global, command).await.map(|()| 0),
        Command::Events(options) => events::run(&global, &options).await,
        Command::Serve(options) => serve::run(&global, options).await,
        Command::ToHost(ToHostCommand::Call(options)) => call::to_host(&global, options).await.map(|()| 0),
    }
}
