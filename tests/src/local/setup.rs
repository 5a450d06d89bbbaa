//! What a guest is made with, and the making.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{ALLOW_ALL, Guest};

/// What a guest is made with.
pub struct Setup {
    pub(super) config: String,
    pub(super) modules: Vec<String>,
    pub(super) audit: Option<PathBuf>,
    pub(super) program: String,
    pub(super) channel: Option<(String, String)>,
    pub(super) homes: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: ALLOW_ALL.to_owned(),
            modules: ["files", "exec"].map(str::to_owned).into(),
            audit: None,
            program: "virtagentd".to_owned(),
            channel: None,
            homes: false,
        }
    }
}

impl Setup {
    /// The configuration beside `[modules]` and `[audit]`, in place of [`ALLOW_ALL`].
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.config = toml.to_owned();
        self
    }

    /// The enabled modules, in place of files and exec.
    #[must_use]
    pub fn modules(mut self, names: &[&str]) -> Self {
        assert!(!names.contains(&"power"), "the power module would act on this machine");
        self.modules = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Where the audit log goes, in place of the guest's folder.
    #[must_use]
    pub fn audit(mut self, file: &Path) -> Self {
        self.audit = Some(file.to_owned());
        self
    }

    /// Another program in place of `virtagentd`.
    #[must_use]
    pub fn program(mut self, name: &str) -> Self {
        self.program = name.to_owned();
        self
    }

    /// Another channel in place of a unix socket that the daemon makes.
    #[must_use]
    pub fn channel(mut self, kind: &str, path: &str) -> Self {
        self.channel = Some((kind.to_owned(), path.to_owned()));
        self
    }

    /// Users get a home in the guest's folder, by a passwd file that only the guest's daemons see.
    #[must_use]
    pub fn homes(mut self) -> Self {
        self.homes = true;
        self
    }

    /// Starts the system daemon and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, with what it said.
    pub fn start(self) -> Result<Guest> {
        let mut guest = self.prepare()?;
        guest.start_system()?;
        Ok(guest)
    }

    /// Everything but the system daemon.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn prepare(self) -> Result<Guest> {
        let dir = tempfile::Builder::new().prefix("virtagent-test-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let guest = Guest { dir, setup: self, system: None };
        fs::create_dir(guest.path("log"))?;
        guest.configure(&guest.setup.config)?;
        if guest.setup.homes {
            guest.make_homes()?;
        }
        Ok(guest)
    }
}

impl Guest {
    pub(super) fn make_homes(&self) -> Result<()> {
        let mut passwd = String::new();
        for line in fs::read_to_string("/etc/passwd")?.lines() {
            let mut fields: Vec<_> = line.split(':').map(str::to_owned).collect();
            if let ["nobody" | "daemon" | "games", ..] = fields.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                let home = self.home(&fields[0]);
                self.folder_of(&fields[0], &home)?;
                fields[5] = home.display().to_string();
            }
            passwd += &format!("{}\n", fields.join(":"));
        }
        fs::write(self.path("passwd"), passwd)?;
        fs::set_permissions(self.path("passwd"), fs::Permissions::from_mode(0o644))?;
        Ok(())
    }
}
