//! Whether a log is as it was written: the walk over every line of every file. Owns the judgement; changes nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::AuditError;
use super::chain::{self, LineHash, Link};
use super::lines::{self, Lines, Next};
use super::tail;

/// Where a log is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong there.
    pub why: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.why)
    }
}

/// A call whose outcome is not in the log: it runs, or a crash cut it short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The call's number.
    pub id: u64,
    /// When it was opened.
    pub time: String,
    /// The method.
    pub method: String,
    /// The user, if it had one.
    pub user: Option<String>,
    /// Whether the daemon has started anew since, so that no outcome can come.
    pub cut_short: bool,
}

/// A place where the daemon found its log not as it left it, and went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The file.
    pub file: PathBuf,
    /// The line of the record that says so.
    pub line: u64,
    /// What was found.
    pub what: String,
}

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// The files that were read, oldest first.
    pub files: Vec<PathBuf>,
    /// How many records were found sound.
    pub records: u64,
    /// The first record's number; over 1 when older files were rotated out.
    pub first: u64,
    /// The last record's number.
    pub last: u64,
    /// The last line's hash, to hold against the journal's `VIRTAGENT_HASH`.
    pub last_hash: String,
    /// Calls without an outcome.
    pub unfinished: Vec<Unfinished>,
    /// Where the daemon went on after a torn write or a loss.
    pub recovered: Vec<Recovery>,
    /// The first place where the log is not as it was written; nothing after it was read.
    pub broken: Option<Break>,
}

impl VerifyReport {
    /// Whether every line is as it was written.
    pub fn is_sound(&self) -> bool {
        self.broken.is_none()
    }
}

impl fmt::Display for VerifyReport {
    /// The verdict in one line, then a line for each thing to know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.broken {
            Some(broken) => writeln!(f, "BROKEN at {broken} ({} records before it are sound)", self.records)?,
            None => writeln!(
                f,
                "sound: {} records ({} to {}) in {} file(s), last hash {}",
                self.records,
                self.first,
                self.last,
                self.files.len(),
                self.last_hash
            )?,
        }
        for recovery in &self.recovered {
            writeln!(f, "recovered at {}:{}: {}", recovery.file.display(), recovery.line, recovery.what)?;
        }
        for call in &self.unfinished {
            let user = call.user.as_deref().map(|user| format!(" of {}", user.escape_debug())).unwrap_or_default();
            let state = if call.cut_short { "cut short by a restart" } else { "no outcome yet" };
            writeln!(f, "call #{} {}{user}, opened {}: {state}", call.id, call.method.escape_debug(), call.time)?;
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Record {
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    prev: String,
    #[serde(default)]
    time: String,
    id: Option<u64>,
    method: Option<String>,
    user: Option<String>,
    fault: Option<IgnoredAny>,
    // rotate
    kept: Option<u64>,
    // recovered
    last: Option<String>,
    #[serde(default)]
    skipped: u64,
    #[serde(default)]
    missing: u64,
    #[serde(default)]
    altered: bool,
    // any
    #[serde(default)]
    lost: u64,
}

/// Reads the whole log, rotated files first, and checks every hash and number.
///
/// # Errors
/// A file can't be read. What is wrong with its lines is in the report.
pub fn verify(log: &Path) -> Result<VerifyReport, AuditError> {
    // Before the files: what it names was in them by then.
    let head = File::open(chain::lock_path(log)).ok().and_then(|file| tail::read_head(&file));
    let mut files = lines::open_all(log)?;
    let mut walk = Walk { head, ..Walk::default() };
    walk.report.files = files.iter().map(|file| file.path.clone()).collect();
    let count = files.len();
    for (index, lines) in files.iter_mut().enumerate() {
        walk.rotated = index;
        if let Err(why) = walk.file(lines, index + 1 == count)? {
            walk.report.broken = Some(Break { file: lines.path.clone(), line: walk.line, why });
            break;
        }
    }
    Ok(walk.finish())
}

#[derive(Default)]
struct Walk {
    report: VerifyReport,
    head: Option<Link>,
    last: Option<Link>,
    /// The last raw line's hash.
    prev: Option<LineHash>,
    /// Lines that are no records, since the last record: the first one's place and fault.
    strange: Option<(u64, String)>,
    skipped: u64,
    open: BTreeMap<u64, Unfinished>,
    line: u64,
    /// How many rotated files stand before the one that is read.
    rotated: usize,
}

impl Walk {
    /// Reads one file; the inner error says what is wrong at `self.line`.
    fn file(&mut self, lines: &mut Lines, newest: bool) -> Result<Result<(), String>, AuditError> {
        let mut patience = 1000;
        loop {
            let next = lines.next()?;
            self.line = lines.number;
            let checked = match next {
                Next::Line(line) => self.line(&line, lines),
                Next::TooLong => {
                    self.line += 1;
                    Err(format!("the line is longer than {} bytes", chain::LINE_MAX))
                }
                Next::End(0) => return Ok(self.end_of_file(newest)),
                // The daemon may be writing it this moment.
                Next::End(_) if newest && patience > 0 => {
                    patience -= 1;
                    std::thread::yield_now();
                    continue;
                }
                Next::End(_) if self.strange.is_some() => return Ok(self.end_of_file(newest)),
                Next::End(bytes) => {
                    self.line += 1;
                    Err(format!("the last line has no newline ({bytes} bytes of it are there)"))
                }
            };
            if checked.is_err() {
                return Ok(checked);
            }
        }
    }

    fn line(&mut self, line: &[u8], lines: &Lines) -> Result<(), String> {
        let hash = LineHash::of(line);
        match serde_json::from_slice::<Record>(line) {
            Ok(record) => {
                self.record(&record)?;
                let link = Link { seq: record.seq, hash };
                if let Some(head) = self.head.filter(|head| head.seq == link.seq)
                    && head != link
                {
                    return Err(format!("record {} is not the one that was written", link.seq));
                }
                (self.last, self.skipped, self.strange) = (Some(link), 0, None);
                self.report.records += 1;
                self.note(record, lines);
            }
            Err(error) => {
                self.skipped += 1;
                self.strange.get_or_insert((lines.number, format!("not a record: {error}")));
            }
        }
        self.prev = Some(hash);
        Ok(())
    }

    /// Checks the record's place in the chain.
    fn record(&mut self, record: &Record) -> Result<(), String> {
        let before = self.last.unwrap_or(Link::START);
        let prev = self.prev.unwrap_or(LineHash::NONE);
        let named: LineHash = record.prev.parse().map_err(|error| format!("prev: {error}"))?;
        let recovered = record.kind == "recovered";
        if self.skipped > 0 || recovered {
            let last = record.last.as_deref().and_then(|last| last.parse().ok());
            let told = recovered && record.skipped == self.skipped && last == Some(before.hash);
            if !told {
                // What was not told of is wrong where it stands, not here.
                return Err(match self.strange.take() {
                    Some((line, why)) => {
                        self.line = line;
                        why
                    }
                    None => "the record of a recovery names another record before it".to_owned(),
                });
            }
        } else if self.last.is_none() && record.seq != 1 {
            // The oldest file that is kept: what its first record names is gone with the file before.
            if record.kind != "rotate" {
                return Err(format!("the log begins with record {}, the ones before it are gone", record.seq));
            }
            return self.kept_files(record);
        }
        if record.seq != before.seq + 1 + record.missing {
            return Err(format!("record {} stands where {} should", record.seq, before.seq + 1 + record.missing));
        }
        if named != prev {
            return Err(format!(
                "record {} names {named} as the hash of the line before, which has {prev}: that line or this one was altered",
                record.seq
            ));
        }
        if record.altered {
            return Err("the daemon found the record before this one altered when it started".to_owned());
        }
        if record.missing > 0 && !recovered {
            return Err(format!("record {} claims that records are missing, but is no recovery", record.seq));
        }
        self.kept_files(record)
    }

    /// A rotation says how many rotated files there were after it.
    fn kept_files(&self, record: &Record) -> Result<(), String> {
        let newest = self.rotated + 1 == self.report.files.len();
        match record.kept.filter(|_| newest && record.kind == "rotate") {
            Some(kept) if kept > self.rotated as u64 => {
                Err(format!("{kept} rotated files were kept when this one was begun, {} are there", self.rotated))
            }
            _ => Ok(()),
        }
    }

    /// Notes what a sound record says.
    fn note(&mut self, record: Record, lines: &Lines) {
        if self.report.first == 0 {
            self.report.first = record.seq;
        }
        let mut recovery = |what: String| {
            self.report.recovered.push(Recovery { file: lines.path.clone(), line: lines.number, what });
        };
        if record.kind == "recovered" {
            if record.missing > 0 {
                recovery(format!(
                    "{} records are missing before it: a power cut, or somebody removed them",
                    record.missing
                ));
            }
            if record.skipped > 0 || record.missing == 0 {
                recovery(format!("a write was cut short, {} line(s) before it are no records", record.skipped));
            }
        }
        if record.lost > 0 {
            recovery(format!("{} records could not be kept while the log took none", record.lost));
        }
        match (&*record.kind, record.id) {
            ("start", _) => {
                let cut = std::mem::take(&mut self.open).into_values();
                self.report.unfinished.extend(cut.map(|call| Unfinished { cut_short: true, ..call }));
            }
            ("call", Some(id)) if record.fault.is_none() => {
                let (time, method, user) = (record.time, record.method.unwrap_or_default(), record.user);
                self.open.insert(id, Unfinished { id, time, method, user, cut_short: false });
            }
            ("outcome", Some(id)) => {
                self.open.remove(&id);
            }
            _ => {}
        }
    }

    fn end_of_file(&mut self, newest: bool) -> Result<(), String> {
        if !newest {
            return Ok(());
        }
        if let Some((line, why)) = self.strange.take() {
            self.line = line;
            return Err(why);
        }
        let last = self.last.unwrap_or(Link::START);
        match self.head {
            Some(head) if head.seq > last.seq => {
                self.line += 1;
                Err(format!("the log ends with record {}, but {} was written: its end was removed", last.seq, head.seq))
            }
            _ => Ok(()),
        }
    }

    fn finish(mut self) -> VerifyReport {
        self.report.unfinished.extend(self.open.into_values());
        let last = self.last.unwrap_or(Link::START);
        self.report.last = last.seq;
        self.report.last_hash = last.hash.to_string();
        self.report
    }
}
