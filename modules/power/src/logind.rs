//! systemd-logind, which stops everything in order: org.freedesktop.login1(5).

use std::future::Future;
use std::time::Duration;

use zbus::connection::{Builder, Connection};

use crate::error::Error;
use crate::machine::Mode;

const SERVICE: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks whether logind can do it here.
pub(crate) async fn check(bus: Option<&str>, mode: Mode) -> Result<(), Error> {
    let method = match mode {
        Mode::Powerdown => "CanPowerOff",
        Mode::Halt => "CanHalt",
        Mode::Reboot => "CanReboot",
    };
    let answer: String = within(async {
        let reply = connect(bus).await?.call_method(Some(SERVICE), PATH, Some(MANAGER), method, &()).await?;
        reply.body().deserialize()
    })
    .await?;
    match answer.as_str() {
        "yes" => Ok(()),
        _ => Err(Error::LogindUnable(answer)),
    }
}

/// Has it done.
pub(crate) async fn bring_down(bus: Option<&str>, mode: Mode, message: Option<&str>) -> Result<(), Error> {
    let method = match mode {
        Mode::Powerdown => "PowerOff",
        Mode::Halt => "Halt",
        Mode::Reboot => "Reboot",
    };
    within(async {
        let connection = connect(bus).await?;
        if let Some(message) = message {
            let wall = (message, true);
            let told = connection.call_method(Some(SERVICE), PATH, Some(MANAGER), "SetWallMessage", &wall).await;
            if let Err(error) = told {
                tracing::warn!("users are not told {message:?}: {error}");
            }
        }
        let interactive = false;
        connection.call_method(Some(SERVICE), PATH, Some(MANAGER), method, &interactive).await.map(drop)
    })
    .await
}

async fn connect(bus: Option<&str>) -> zbus::Result<Connection> {
    match bus {
        Some(address) => Builder::address(address).build().await,
        None => Builder::system().build().await,
    }
}

async fn within<T>(question: impl Future<Output = zbus::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::LogindSilent(TIMEOUT)),
    }
}
