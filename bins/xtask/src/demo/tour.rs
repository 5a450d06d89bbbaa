//! The guided tour: the same commands against a socket of this machine and against a booted guest.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use virtagent_tests::process;

use super::cleanup::Running;

/// What a single command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Where a tour goes.
pub struct Tour {
    /// Commands run here, so that they can name the socket and files shortly.
    pub dir: PathBuf,
    /// Where `virtagent` and `virtagentd` are.
    pub programs: PathBuf,
    /// The channel's socket, relative to `dir`.
    pub socket: &'static str,
    /// Who the system level runs as: root, but for the demo of an ordinary user.
    pub system_user: String,
    /// The users whose sessions are connected; the first one is who calls the host.
    pub users: Vec<String>,
    /// A directory of the guest where the system level may write.
    pub guest_dir: String,
}

impl Tour {
    /// From the first ping to the copies; what follows differs between the places.
    pub fn first_part(&self) -> Result<()> {
        self.tell(
            "Is the agent there? Without -u a call goes to the system daemon, with -u to that user's own daemon.",
        );
        self.host(&["ping", "-c", "2", "-i", "200ms"])?;
        self.host(&["-u", &self.users[0], "ping", "-c", "2", "-i", "200ms"])?;

        self.tell("Who is there? A session is a user daemon's connection; its user is what the guest's kernel says.");
        let listed = self.host(&["users"])?;
        for user in &self.users {
            ensure!(listed.contains(user.as_str()), "{user} is not among the users");
        }

        self.tell("What can be asked? Each method says its parameters and result, from the module's own types.");
        let methods = self.host(&["methods"])?;
        for method in ["va.ping", "session.list", "file.open", "exec.run", "info.get"] {
            ensure!(methods.contains(method), "{method} is not among the methods");
        }
        self.host(&["methods", "file.stat"])?;
        self.host(&["info"])?;

        self.tell("Any method can be called by name; here a file of the guest is described.");
        let stat = self.host(&["--json", "call", "file.stat", "path=/etc/hostname"])?;
        let stat: serde_json::Value = serde_json::from_str(&stat).context("not JSON")?;
        ensure!(stat["type"] == "file", "/etc/hostname is not a file there");

        self.copies()?;
        self.scripts()
    }

    fn copies(&self) -> Result<()> {
        self.tell("A file there and back: 4 MiB, in pipelined calls. Nothing half-written is ever seen, and digests are compared.");
        let bytes = pattern(4 << 20);
        fs::write(self.dir.join("there.bin"), &bytes)?;
        let remote = format!("{}/copy.bin", self.guest_dir);
        self.host(&["file", "put", "there.bin", &remote])?;
        self.host(&["file", "ls", &self.guest_dir])?;
        self.host(&["file", "get", &remote, "back.bin"])?;
        ensure!(fs::read(self.dir.join("back.bin"))? == bytes, "the copy that came back differs");
        self.say("(the copy that came back is equal)");
        self.host(&["file", "rm", &remote]).map(|_| ())
    }

    fn scripts(&self) -> Result<()> {
        self.tell("Programs and scripts run as root, or as the user that -u names, and their exit code is ours.");
        fs::write(self.dir.join("whoami.sh"), "#!/bin/sh\necho \"I am $(id -un), and my shell's PID is $$\"\n")?;
        let said = self.host(&["script", "whoami.sh"])?;
        ensure!(
            said.contains(&format!("I am {},", self.system_user)),
            "the script did not run as {}",
            self.system_user
        );
        for user in &self.users {
            let said = self.host(&["-u", user, "script", "whoami.sh"])?;
            ensure!(said.contains(&format!("I am {user},")), "the script did not run as {user}");
        }
        self.show_host(&["exec", "--", "sh", "-c", "exit 7"]);
        let output = self.run_host(&["exec", "--", "sh", "-c", "exit 7"])?;
        ensure!(output.status.code() == Some(7), "the exit code is not the program's 7: {}", output.status);
        self.say("(exit code 7)");
        Ok(())
    }

    /// Runs the host command, which has to be refused by policy.
    pub fn refused(&self, args: &[&str]) -> Result<()> {
        self.show_host(args);
        let output = self.run_host(args)?;
        ensure!(!output.status.success(), "this was to be refused, and it was not");
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        ensure!(
            said.contains("denied") || said.contains("refused") || said.contains("policy"),
            "this failed for another reason"
        );
        self.say(&format!("(exit code {})", output.status.code().unwrap_or(-1)));
        Ok(())
    }

    /// Runs the host command, which has to succeed, and gives what it printed.
    pub fn host(&self, args: &[&str]) -> Result<String> {
        self.show_host(args);
        let output = self.run_host(args)?;
        ensure!(output.status.success(), "virtagent {} failed ({})", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn run_host(&self, args: &[&str]) -> Result<Output> {
        print_output(process::run(&mut self.host_command(args), b"", LIMIT)?)
    }

    fn show_host(&self, args: &[&str]) {
        self.show("virtagent", &[&["-s", self.socket], args].concat());
    }

    fn host_command(&self, args: &[&str]) -> Command {
        let mut command = self.command("virtagent", &["-s", self.socket]);
        command.args(args);
        command
    }

    /// A program of ours in the tour's directory.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(args).current_dir(&self.dir);
        command
    }

    /// Shows and runs another command of ours, which has to succeed.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        self.show(program, args);
        let output = print_output(process::run(&mut self.command(program, args), b"", LIMIT)?)?;
        ensure!(output.status.success(), "{program} {} failed ({})", args.join(" "), output.status);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts the host command to answer calls, with what it prints in a file of the tour's directory.
    pub fn serve(&self, handler: &str) -> Result<(Running, PathBuf)> {
        let args = ["serve", "--handler", handler];
        self.show_host(&args);
        let log = self.dir.join("serve.log");
        let file = fs::File::create(&log)?;
        let mut command = self.host_command(&args);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        Ok((Running::start(&mut command, "virtagent serve")?, log))
    }

    /// A paragraph of narration.
    pub fn tell(&self, text: &str) {
        let (on, off) = if std::io::stdout().is_terminal() { ("\x1b[36m", "\x1b[0m") } else { ("", "") };
        println!("\n{on}# {text}{off}");
    }

    /// A remark.
    pub fn say(&self, text: &str) {
        println!("{text}");
    }

    /// A command, as the reader would type it.
    pub fn show(&self, program: &str, args: &[&str]) {
        let (on, off) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        let words: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        println!("{on}$ {program} {}{off}", words.join(" "));
        let _ = std::io::stdout().flush();
    }
}

fn print_output(output: Output) -> Result<Output> {
    std::io::stdout().write_all(&output.stdout)?;
    std::io::stdout().flush()?;
    std::io::stderr().write_all(&output.stderr)?;
    Ok(output)
}

fn quoted(word: &str) -> String {
    let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@+%*".contains(c));
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Bytes that no two blocks have in common.
fn pattern(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(length)
    .collect()
}

/// Prints a file that a background program wrote, and gives it.
pub fn print_log(log: &Path) -> Result<String> {
    let text = fs::read_to_string(log)?;
    print!("{text}");
    if text.is_empty() {
        bail!("{} is empty", log.display());
    }
    Ok(text)
}
