//! virtagent module: info, at system level. What this guest is, what its kernel said, who is logged in.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `lib.rs` | the descriptor, the methods and their parameters |
//! | `os.rs` | the operating system's name, kernel, boot and uptime |
//! | `timezone.rs` | the time zone's name and offset |
//! | `virtualization.rs` | what this guest runs on |
//! | `kmsg.rs` | the kernel's messages |
//!
//! Reads only; nothing here changes anything. Everything that blocks runs in `spawn_blocking`.
#![forbid(unsafe_code)]

mod error;
mod kmsg;
mod os;
mod timezone;
mod virtualization;

use std::collections::BTreeMap;
use std::path::Path;

use agent_core::identity::Logind;
use agent_core::module::prelude::*;

use crate::error::Error;

inventory::submit! {
    Descriptor::new::<Info>("info", env!("CARGO_PKG_VERSION"), Levels::System).shared()
}

/// What this guest tells of itself.
pub struct Info {
    logind: Logind,
}

/// `[module.info]`: nothing is set by default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// The D-Bus address of the bus that logind is on; the system bus if unset.
    bus: Option<String>,
}

const DEFAULT_DMESG: usize = 64 << 10;
/// More than the kernel's own buffer has by default, and below the default limit of a body.
const MAX_DMESG: usize = 1 << 20;
/// What a 2011 host expects at most.
const DMESG_2011: usize = 16_384;

/// No parameters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Debug, Serialize, JsonSchema)]
struct Guest {
    /// os-release(5), its keys in lower case: `id`, `version_id`, `pretty_name` and so on.
    os: BTreeMap<String, String>,
    /// The kernel.
    kernel: os::Kernel,
    /// The host name.
    hostname: String,
    /// Another at every boot.
    boot_id: String,
    /// Seconds since the boot.
    uptime: f64,
    /// The time zone.
    timezone: timezone::Timezone,
    /// What it runs on, in the words of systemd-detect-virt(1): kvm, qemu, vmware and so on; absent on bare metal.
    #[serde(skip_serializing_if = "Option::is_none")]
    virtualization: Option<&'static str>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Dmesg {
    /// The most bytes to answer, the newest; without it 65536, at most 1048576.
    max_bytes: Option<u64>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct DmesgResult {
    /// The messages, a line each: `[   12.345678] text`.
    text: String,
    /// Whether older messages were left out.
    truncated: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Logins {
    /// Who is logged in, by logind.
    logins: Vec<Login>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Login {
    /// The user's name.
    user: String,
    /// The terminal, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    tty: Option<String>,
    /// The host that it came from, if it came over the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// When it began (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

impl Module for Info {
    fn build(env: &ModuleEnv) -> Result<Self, BuildError> {
        let settings: Settings = env.settings()?;
        Ok(Self { logind: settings.bus.map_or_else(Logind::system, Logind::at) })
    }

    fn methods() -> Methods<Self> {
        Methods::new()
            .add(
                "info.get",
                "Tells the guest's operating system, kernel, name, boot, time zone and hypervisor.",
                Self::get,
            )
            .add("info.dmesg", "Answers the newest of the kernel's messages.", Self::dmesg)
            .add("info.logins", "Lists who is logged in.", Self::logins)
            .add("va.getdmesg", "Answers the newest 16384 bytes of the kernel's messages.", Self::get_dmesg)
    }
}

impl Info {
    async fn get(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<Guest, Fault> {
        blocking(|| {
            let root = Path::new("/");
            Ok(Guest {
                os: os::release(root)?,
                kernel: os::kernel()?,
                hostname: os::hostname()?,
                boot_id: os::boot_id()?,
                uptime: os::uptime()?,
                timezone: timezone::current(root)?,
                virtualization: virtualization::detect(root),
            })
        })
        .await
    }

    async fn dmesg(self: Rc<Self>, cx: CallContext, params: Dmesg) -> Result<DmesgResult, Fault> {
        let asked = params.max_bytes.unwrap_or(DEFAULT_DMESG as u64);
        let most = usize::try_from(asked).ok().filter(|most| *most <= MAX_DMESG);
        let most = most.ok_or_else(|| Fault::limit(format!("max_bytes {asked}: at most {MAX_DMESG} at a time")))?;
        cx.reserve(most).await;
        let (text, truncated) = blocking(move || kmsg::newest(most)).await?;
        Ok(DmesgResult { text, truncated })
    }

    async fn get_dmesg(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<String, Fault> {
        Ok(blocking(|| kmsg::newest(DMESG_2011)).await?.0)
    }

    async fn logins(self: Rc<Self>, _: CallContext, _: Nothing) -> Result<Logins, Fault> {
        let sessions = self.logind.sessions().await?;
        let of_people = sessions.into_iter().filter(|session| session.class.starts_with("user"));
        let logins = of_people.map(|session| Login {
            user: session.user,
            tty: session.tty,
            from: session.remote_host,
            since: session.since.map(|since| humantime::format_rfc3339_seconds(since).to_string()),
        });
        Ok(Logins { logins: logins.collect() })
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Fault::internal(format!("reading the system's state ended early: {error}"))),
    }
}
