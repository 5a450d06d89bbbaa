//! What the parts of the test share: users' sessions as the host command lists them, and scripts as a user.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use virtagent_tests::vm::Vm;

/// The guest under test.
pub struct Guest(pub Vm);

impl Deref for Guest {
    type Target = Vm;
    fn deref(&self) -> &Vm {
        &self.0
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Vm {
        &mut self.0
    }
}

impl Guest {
    /// The sessions that `virtagent users` lists.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        let listed = self.host_json(&["users"])?;
        let sessions = listed.get("sessions").unwrap_or(&listed);
        sessions.as_array().cloned().with_context(|| format!("no list of sessions: {listed}"))
    }

    /// The session of that user.
    pub fn session(&self, user: &str) -> Result<Option<Value>> {
        Ok(self.sessions()?.into_iter().find(|session| session["username"] == user))
    }

    /// The PID of that user's connected daemon.
    pub fn daemon(&self, user: &str) -> Result<i64> {
        let session = self.session(user)?.with_context(|| format!("{user} has no session"))?;
        session["pid"].as_i64().with_context(|| format!("no pid in {session}"))
    }

    /// Waits until these users, and no others, have sessions.
    pub fn wait_for_users(&mut self, users: &[&str]) -> Result<()> {
        let what = format!("the sessions of {}", users.join(" and "));
        self.0.wait(&what, |vm| {
            let output = vm.host(&["--json", "users"])?;
            let listed: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let sessions = listed.get("sessions").unwrap_or(&listed).as_array().cloned().unwrap_or_default();
            let mut names: Vec<&str> = sessions.iter().filter_map(|session| session["username"].as_str()).collect();
            names.sort_unstable();
            Ok((names == users).then_some(()))
        })
    }

    /// Runs a script in the guest as that user, with their session's environment, and not by what is tested.
    pub fn inside_as(&mut self, user: &str, script: &str) -> Result<String> {
        let quoted = script.replace('\'', "'\\''");
        self.inside_ok(&format!(
            "exec runuser -u {user} -- env XDG_RUNTIME_DIR=/run/user/$(id -u {user}) HOME=/home/{user} sh -c 'cd; {quoted}'"
        ))
    }

    /// Starts a host command that keeps the channel, with what it writes in a file.
    pub fn background(&self, name: &str, args: &[&str]) -> Result<Background> {
        let log = self.dir().join(format!("{name}.log"));
        let file = fs::File::create(&log)?;
        let mut command = self.command(args)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Background { child, log })
    }
}

/// A host command in the background; killed at its end.
pub struct Background {
    pub child: Child,
    log: PathBuf,
}

impl Background {
    /// What it has written so far.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A refusal has to say this word, whatever its case.
pub fn ensure_says(said: &str, word: &str) -> Result<()> {
    ensure!(said.to_lowercase().contains(word), "this does not say {word:?}: {said}");
    Ok(())
}
