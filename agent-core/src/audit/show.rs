//! The log for people: a call and its outcome in one line. Owns the merging, the filter and the words; changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Map, Value as Json};

use super::AuditError;
use super::chain;
use super::format;
use super::lines::{self, Lines, Next};

/// A following reader shows a call that has had no outcome for this long as running.
const RUNNING_AFTER_MS: u16 = 1000;

/// Which records to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those of this user.
    pub user: Option<String>,
    /// Those of methods that match this glob.
    pub method: Option<String>,
    /// Those since then.
    pub since: Option<SystemTime>,
}

impl Filter {
    /// # Errors
    /// The glob is none.
    fn check(&self) -> Result<(), AuditError> {
        match self.method.as_deref().map(fast_glob::validate) {
            Some(Err(error)) => Err(AuditError::Settings(format!(
                "{:?} is not a glob for methods: {error:?}",
                self.method.as_deref().unwrap_or_default()
            ))),
            _ => Ok(()),
        }
    }

    fn takes(&self, record: &Map<String, Json>) -> bool {
        let text = |name| record.get(name).and_then(Json::as_str);
        let user = self.user.as_deref().is_none_or(|user| text("user") == Some(user));
        let method = self
            .method
            .as_deref()
            .is_none_or(|glob| text("method").is_some_and(|method| fast_glob::glob_match(glob, method)));
        user && method
    }
}

/// How to show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// One readable line for each call or event.
    #[default]
    Text,
    /// One JSON object a line: the call's record with its outcome's members.
    Json,
}

/// Writes what the log holds, a call when its outcome is read; calls without one come last. A reader that goes away
/// (`| head`) ends it without an error.
///
/// # Errors
/// The log can't be read, or `out` not be written.
pub fn show(log: &Path, filter: &Filter, how: Show, out: &mut impl Write) -> Result<(), AuditError> {
    filter.check()?;
    let mut merger = Merger::new(filter, how, out);
    for mut file in lines::open_all(log)? {
        match merger.drain(&mut file) {
            Err(End::Output(error)) => return end(&error),
            Err(End::Log(error)) => return Err(error),
            Ok(()) => {}
        }
    }
    let rest = merger.rest("no outcome").and_then(|()| merger.out.flush());
    rest.map_or_else(|error| end(&error), Ok)
}

/// The same, and then goes on with what is being written, through rotations. Wakes only when the log's directory
/// changes. Ends when `out` can't be written any more.
///
/// # Errors
/// The log can't be read or watched, or `out` not be written.
pub fn follow(log: &Path, filter: &Filter, how: Show, out: &mut impl Write) -> Result<(), AuditError> {
    filter.check()?;
    let watch = watch(log)?;
    let mut merger = Merger::new(filter, how, out);
    let mut current: Option<Lines> = None;
    loop {
        match follow_files(log, &mut current, &mut merger) {
            Err(End::Output(error)) => return end(&error),
            Err(End::Log(error)) => return Err(error),
            Ok(()) => {}
        }
        // Without a call in flight there is no timer.
        let timeout = match merger.has_news() {
            true => PollTimeout::from(RUNNING_AFTER_MS),
            false => PollTimeout::NONE,
        };
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) => {
                if let Err(error) = merger.running() {
                    return end(&error);
                }
            }
            Ok(_) => {
                // Which file it was does not matter: reading finds out.
                let _ = watch.read_events();
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(AuditError::File { file: log.to_owned(), doing: "wait for a change", errno }),
        }
    }
}

fn watch(log: &Path) -> Result<Inotify, AuditError> {
    let directory = chain::directory(log);
    let changes = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let watch = || {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(directory, changes)?;
        Ok(inotify)
    };
    watch().map_err(|errno| AuditError::File { file: directory.to_owned(), doing: "watch", errno })
}

/// Reads on, from file to file until the one that has the log's name now.
fn follow_files(log: &Path, current: &mut Option<Lines>, merger: &mut Merger<'_, impl Write>) -> Result<(), End> {
    // Asked before reading: of a file that has lost the name nothing is missed then.
    let is_current = current.as_ref().is_some_and(|lines| lines.is_current(log));
    if let Some(lines) = current {
        merger.drain(lines)?;
    }
    if !is_current {
        let files = match lines::open_all(log) {
            Ok(files) => files,
            // It is not there yet, or not there again yet.
            Err(AuditError::File { errno: Errno::ENOENT, .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let read = current.as_ref().and_then(|lines| files.iter().position(|file| file.is_same_file(lines)));
        for mut file in files.into_iter().skip(read.map_or(0, |index| index + 1)) {
            merger.drain(&mut file)?;
            *current = Some(file);
        }
    }
    Ok(merger.out.flush()?)
}

/// Why reading ended.
enum End {
    Output(io::Error),
    Log(AuditError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl From<AuditError> for End {
    fn from(error: AuditError) -> Self {
        Self::Log(error)
    }
}

fn end(error: &io::Error) -> Result<(), AuditError> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(AuditError::file(Path::new("output"), "write", error)),
    }
}

struct Merger<'a, W> {
    filter: &'a Filter,
    since: Option<String>,
    how: Show,
    out: &'a mut W,
    open: BTreeMap<u64, Pending>,
    /// The number and the time of the last record: what was read already is passed over when the file that was read is
    /// not to be found any more and all are read again.
    last: (u64, String),
}

struct Pending {
    call: Map<String, Json>,
    shown: bool,
}

impl<'a, W: Write> Merger<'a, W> {
    fn new(filter: &'a Filter, how: Show, out: &'a mut W) -> Self {
        // The log's times are all of one form, so that their order is that of the text.
        let since = filter.since.map(|since| humantime::format_rfc3339_micros(since).to_string());
        Self { filter, since, how, out, open: BTreeMap::new(), last: (0, String::new()) }
    }

    /// Reads to the end of the file as it is now.
    fn drain(&mut self, lines: &mut Lines) -> Result<(), End> {
        loop {
            match lines.next()? {
                Next::Line(line) => self.line(&line)?,
                Next::End(_) => return Ok(()),
                Next::TooLong => {
                    let reason = format!("line {} is too long for a record: see audit verify", lines.number + 1);
                    return Err(AuditError::Unsafe { file: lines.path.clone(), reason }.into());
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let Ok(Json::Object(mut record)) = serde_json::from_slice(line) else {
            return match self.how {
                Show::Text => writeln!(self.out, "(a line that is no record: see audit verify)"),
                Show::Json => Ok(()),
            };
        };
        let text = |name| record.get(name).and_then(Json::as_str).unwrap_or_default();
        let seq = record.get("seq").and_then(Json::as_u64).unwrap_or_default();
        if seq <= self.last.0 && text("time") <= self.last.1.as_str() {
            return Ok(());
        }
        self.last = (seq, text("time").to_owned());
        let wanted = self.since.as_deref().is_none_or(|since| text("time") >= since);
        let id = record.get("id").and_then(Json::as_u64);
        match (text("type"), id) {
            ("call", Some(id)) => {
                if !wanted || !self.filter.takes(&record) {
                    return Ok(());
                }
                if record.contains_key("fault") {
                    return self.print(&record, None);
                }
                self.open.insert(id, Pending { call: record, shown: false });
                Ok(())
            }
            ("outcome", Some(id)) => {
                let Some(Pending { mut call, .. }) = self.open.remove(&id) else { return Ok(()) };
                for name in ["result", "fault", "duration_us", "bytes_in", "bytes_out"] {
                    if let Some(value) = record.remove(name) {
                        call.insert(name.to_owned(), value);
                    }
                }
                self.print(&call, None)
            }
            ("counted", _) => {
                let Some(Json::Array(rows)) = record.get_mut("counts") else { return Ok(()) };
                rows.retain(|row| row.as_object().is_some_and(|row| self.filter.takes(row)));
                if rows.is_empty() || !wanted { Ok(()) } else { self.print(&record, None) }
            }
            ("start", _) => {
                self.rest("cut short")?;
                if wanted && self.filter.takes(&record) { self.print(&record, None) } else { Ok(()) }
            }
            _ if wanted && self.filter.takes(&record) => self.print(&record, None),
            _ => Ok(()),
        }
    }

    fn print(&mut self, record: &Map<String, Json>, state: Option<&str>) -> io::Result<()> {
        let mut line = String::new();
        match self.how {
            Show::Text => format::record(&mut line, record, state),
            Show::Json => {
                let mut object = record.clone();
                // The chain is about lines of the log, which this is not.
                object.remove("prev");
                if let Some(state) = state {
                    object.insert("state".to_owned(), state.into());
                }
                let _ = write!(line, "{}", Json::Object(object));
            }
        }
        line.push('\n');
        self.out.write_all(line.as_bytes())
    }

    /// Shows the calls that no outcome can come for any more.
    fn rest(&mut self, state: &str) -> io::Result<()> {
        for Pending { call, .. } in std::mem::take(&mut self.open).into_values() {
            self.print(&call, Some(state))?;
        }
        Ok(())
    }

    /// Whether a call is open that was not shown yet.
    fn has_news(&self) -> bool {
        self.open.values().any(|pending| !pending.shown)
    }

    /// Shows the calls that run, once each.
    fn running(&mut self) -> io::Result<()> {
        let mut open = std::mem::take(&mut self.open);
        for pending in open.values_mut().filter(|pending| !pending.shown) {
            pending.shown = true;
            self.print(&pending.call, Some("running"))?;
        }
        self.open = open;
        self.out.flush()
    }
}
