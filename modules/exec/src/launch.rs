//! Starts a command: its files, pipes or terminal, and its process. Blocks, so it runs in the pool.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tempfile::TempPath;
use tokio::sync::oneshot;

use crate::child::{self, Image, Stack, Step};
use crate::command::{Command, Script, shown};
use crate::error::ExecError;
use crate::group::Group;
use crate::params::Terminal;
use crate::{pool, terminal};

/// How a program's standard streams are wired.
pub(crate) enum Wiring {
    /// Outputs to two pipes, input from one or from /dev/null.
    Pipes { stdin: bool },
    /// All three to a terminal.
    Terminal(Terminal),
}

/// A program that runs, and our ends of its streams.
pub(crate) struct Launched {
    pub group: Arc<Group>,
    pub pidfd: Option<OwnedFd>,
    pub ends: Ends,
}

/// Our ends of a program's streams.
pub(crate) enum Ends {
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    Terminal(OwnedFd),
}

/// Starts a command. If the future is dropped, what it started is killed.
pub(crate) async fn launch(command: Command, wiring: Wiring) -> Result<Launched, ExecError> {
    let (answer, launched) = oneshot::channel();
    let name = command.name.clone();
    pool::submit(move |stack| {
        if !answer.is_closed() {
            // Nobody there to take it: dropping the group kills it.
            let _ = answer.send(launch_now(command, &wiring, stack));
        }
    })
    .map_err(|error| ExecError::io(format!("start {name}: no thread can be made"), &error))?;
    launched.await.map_err(|_| ExecError::Lost)?
}

fn launch_now(mut command: Command, wiring: &Wiring, stack: &mut Stack) -> Result<Launched, ExecError> {
    let script = command.script.take().map(|script| write_script(&script)).transpose()?;
    if let Some(path) = &script {
        let argument = CString::new(path.as_os_str().as_bytes());
        command.argv.push(argument.map_err(|_| ExecError::Params("the temporary directory's name has a NUL".into()))?);
    }
    let failed = |errno| ExecError::os(format!("start {}: make its streams", command.name), errno);
    match wiring {
        Wiring::Pipes { stdin } => {
            let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(failed);
            let (input, feed) = if *stdin {
                let (input, feed) = pipe()?;
                (input, Some(feed))
            } else {
                let null = File::open("/dev/null").map_err(|error| ExecError::io("open /dev/null", &error))?;
                (null.into(), None)
            };
            let (stdout, stdout_end) = pipe()?;
            let (stderr, stderr_end) = pipe()?;
            let theirs = [input.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
            let (group, pidfd) = start(&command, theirs, false, script, stack)?;
            Ok(Launched { group, pidfd, ends: Ends::Pipes { stdin: feed, stdout, stderr } })
        }
        Wiring::Terminal(wanted) => {
            let (ours, theirs) = terminal::open_pair(wanted).map_err(failed)?;
            let (group, pidfd) = start(&command, [theirs.as_fd(); 3], true, script, stack)?;
            Ok(Launched { group, pidfd, ends: Ends::Terminal(ours) })
        }
    }
}

fn start(
    command: &Command,
    stdio: [BorrowedFd<'_>; 3],
    terminal: bool,
    script: Option<TempPath>,
    stack: &mut Stack,
) -> Result<(Arc<Group>, Option<OwnedFd>), ExecError> {
    let image = Image {
        candidates: &command.candidates,
        argv: &command.argv,
        env: &command.env,
        directory: &command.directory,
        directory_or_root: command.directory_or_root,
        stdio,
        terminal,
    };
    match child::spawn(&image, stack) {
        Ok((pid, pidfd)) => Ok((Arc::new(Group::new(pid, terminal, script)), pidfd)),
        Err((step, errno)) => Err(ExecError::os(explain(command, step, errno), errno)),
    }
}

/// What failed, in words for the caller.
fn explain(command: &Command, step: Step, errno: Errno) -> String {
    let name = &command.name;
    match step {
        Step::Directory => format!("start {name}: enter the directory {}", shown(&command.directory.to_string_lossy())),
        Step::Process => format!("start {name}: make a process"),
        Step::Session => format!("start {name}: set up its process"),
        Step::Program if errno == Errno::ENOEXEC => format!("start {name}: no program, and a script needs a #! line"),
        Step::Program if errno == Errno::ENOENT => match command.candidates.as_slice() {
            [path]
                if name.contains('/')
                    && std::path::Path::new(std::ffi::OsStr::from_bytes(path.as_bytes())).exists() =>
            {
                format!("start {name}: the file is there, but not the interpreter that it names")
            }
            [_] if name.contains('/') => format!("start {name}"),
            _ => format!("start {name}: not in PATH"),
        },
        Step::Program => format!("start {name}"),
    }
}

/// Writes a script to a file that only this user can read and that goes with the program's group.
///
/// A file, because some interpreters resolve their script's path and find nothing behind a descriptor's.
fn write_script(script: &Script) -> Result<TempPath, ExecError> {
    let mut last = ExecError::Params("there is no directory for scripts".to_owned());
    for directory in &script.directories {
        let mut options = OpenOptions::new();
        let file = tempfile::Builder::new().prefix("virtagent-script-").make_in(directory, |path| {
            use std::os::unix::fs::OpenOptionsExt;
            options.write(true).create_new(true).mode(0o600).open(path)
        });
        let written = file.and_then(|mut file| file.write_all(script.text.as_bytes()).map(|()| file.into_temp_path()));
        match written {
            Ok(path) => return Ok(path),
            Err(error) => last = ExecError::io(format!("write the script to {}", directory.display()), &error),
        }
    }
    Err(last)
}
