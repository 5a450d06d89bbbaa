//! The environment that programs start with, and where relative directories lead.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use agent_core::module::{Level, ModuleEnv};
use nix::unistd::{Uid, User};

/// Where programs are searched when the environment has no PATH.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What systemd tells a service about itself, and what is ours: not a program's business.
const PRIVATE: [&str; 13] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "CREDENTIALS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "LOGS_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
];
const PRIVATE_PREFIXES: [&str; 3] = ["LISTEN_", "VIRTAGENT", "RUST_"];

/// The part of a program's surroundings that the level decides.
pub(crate) struct Base {
    level: Level,
    home: PathBuf,
    variables: BTreeMap<OsString, OsString>,
}

impl Base {
    /// Reads the daemon's environment once. At system level only its language is taken over; at user level all but
    /// what is private, so that programs find the user's display and buses.
    pub(crate) fn new(env: &ModuleEnv) -> Self {
        Self::from_variables(env, std::env::vars_os())
    }

    fn from_variables(env: &ModuleEnv, inherited: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut variables: BTreeMap<_, _> = inherited
            .filter(|(name, _)| match env.level {
                Level::System => name == "LANG",
                Level::User => !is_private(name),
            })
            .collect();
        let mut default = |name: &str, value: &OsStr| {
            variables.entry(name.into()).or_insert_with(|| value.to_owned());
        };
        let (user, shell) = account(env.uid);
        default("PATH", DEFAULT_PATH.as_ref());
        default("LANG", "C.UTF-8".as_ref());
        default("HOME", env.home.as_os_str());
        default("USER", user.as_ref());
        default("LOGNAME", user.as_ref());
        default("SHELL", shell.as_os_str());
        Self { level: env.level, home: env.home.clone(), variables }
    }

    /// A program's whole environment: the level's unless `clear`, then what the call adds.
    pub(crate) fn variables(&self, clear: bool, added: &BTreeMap<String, String>) -> BTreeMap<OsString, OsString> {
        let mut all = if clear { BTreeMap::new() } else { self.variables.clone() };
        all.extend(added.iter().map(|(name, value)| (name.into(), value.into())));
        all
    }

    /// Where a program starts when the call does not say.
    pub(crate) fn directory(&self) -> &Path {
        match self.level {
            Level::System => Path::new("/"),
            Level::User => &self.home,
        }
    }

    /// The directory of that name: `~` is the home, a relative one starts at [`Base::directory`].
    pub(crate) fn resolve(&self, directory: &str) -> PathBuf {
        match directory.strip_prefix('~') {
            Some("") => self.home.clone(),
            Some(rest) if rest.starts_with('/') => self.home.join(rest.trim_start_matches('/')),
            _ => self.directory().join(directory),
        }
    }

    /// Where a script may wait for its interpreter, best first: memory rather than a disk that may be full.
    pub(crate) fn script_directories(&self) -> Vec<PathBuf> {
        let runtime = match self.level {
            Level::System => Some(PathBuf::from("/run")),
            Level::User => self.variables.get(OsStr::new("XDG_RUNTIME_DIR")).map(PathBuf::from),
        };
        runtime.into_iter().chain([std::env::temp_dir()]).collect()
    }
}

fn is_private(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    PRIVATE.contains(&&*name) || PRIVATE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The name and the shell of a user; usable ones when the system knows no such user.
fn account(uid: Uid) -> (String, PathBuf) {
    match User::from_uid(uid) {
        Ok(Some(user)) if !user.shell.as_os_str().is_empty() => (user.name, user.shell),
        Ok(Some(user)) => (user.name, "/bin/sh".into()),
        _ => (uid.to_string(), "/bin/sh".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_core::module::HostCaller;
    use agent_core::rpc::{MethodName, Outcome, Value};
    use std::pin::Pin;
    use std::sync::Arc;

    struct NoHost;

    impl HostCaller for NoHost {
        fn call_host(&self, _: MethodName, _: Vec<Value>) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
            Box::pin(std::future::ready(Ok(Value::Nil)))
        }
    }

    fn base(level: Level) -> Base {
        let settings = toml::Table::new();
        let env =
            ModuleEnv { level, uid: nix::unistd::getuid(), home: "/home/x".into(), host: Arc::new(NoHost), settings };
        let inherited = ["NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "VIRTAGENT_CONFIG", "DISPLAY", "LANG"];
        Base::from_variables(&env, inherited.into_iter().map(|name| (name.into(), format!("the-{name}").into())))
    }

    fn names(base: &Base) -> Vec<String> {
        base.variables.keys().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    impl Base {
        pub(crate) fn for_tests() -> Self {
            base(Level::System)
        }
    }

    #[test]
    fn the_system_level_has_a_clean_environment() {
        let base = base(Level::System);
        assert_eq!(names(&base), ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);
        assert_eq!(base.variables[OsStr::new("LANG")], "the-LANG");
        assert_eq!(base.directory(), Path::new("/"));
    }

    #[test]
    fn the_user_level_has_the_daemons_environment_without_what_is_the_daemons_own() {
        let base = base(Level::User);
        assert_eq!(names(&base), ["DISPLAY", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);
    }

    #[test]
    fn a_directory_is_relative_to_the_home_of_the_user_and_to_the_root_of_the_system() {
        for (level, name, want) in [
            (Level::User, "a/b", "/home/x/a/b"),
            (Level::User, "~", "/home/x"),
            (Level::User, "~/a", "/home/x/a"),
            (Level::User, "/tmp", "/tmp"),
            (Level::System, "tmp", "/tmp"),
        ] {
            assert_eq!(base(level).resolve(name), Path::new(want));
        }
    }
}
