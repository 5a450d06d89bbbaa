//! The log's thread: takes what waits, writes it as one batch, acknowledges. Owns the chain and what could not be
//! written yet. Must never acknowledge a record that is not in the log.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value as Json, json};

use super::chain::{LineHash, Link};
use super::file::{Change, LogFile};
use super::journal::{self, Journal};
use super::queue::{Entry, Item, Shared, Then};
use super::record::{self, Line};
use super::tail::Tail;
use super::{AuditError, AuditSettings};

/// Records that nobody waits for (outcomes, events) are kept for a log that takes none; so many bytes of them.
const BACKLOG_MAX: usize = 4 << 20;

/// How often a backlog is tried when no call tries first.
const RETRY: Duration = Duration::from_secs(5);

/// One write(2) takes about this much.
const BATCH_MAX: usize = 1 << 20;

pub(super) struct Writer {
    shared: Arc<Shared>,
    log: Option<LogFile>,
    journal: Option<Journal>,
    last: Link,
    /// The hash of the last raw line: that of `last`, but after a torn write.
    prev: LineHash,
    backlog: Vec<Line>,
    backlog_bytes: usize,
    /// Records that the backlog had no room for; the next record says so.
    lost: u64,
    /// Entries that journald did not take; the next record says so.
    journal_lost: u64,
    retry: Option<Instant>,
    failing: bool,
    rotate_size: u64,
    keep: u32,
    buffer: Vec<u8>,
}

impl Writer {
    pub fn open(settings: &AuditSettings, journal_socket: &Path, shared: Arc<Shared>) -> Result<Self, AuditError> {
        let journal = match settings.journal {
            true => Some(Journal::new(journal_socket.into())?),
            false => None,
        };
        let mut writer = Self {
            shared,
            log: None,
            journal,
            last: Link::START,
            prev: LineHash::NONE,
            backlog: Vec::new(),
            backlog_bytes: 0,
            lost: 0,
            journal_lost: 0,
            retry: None,
            failing: false,
            rotate_size: settings.rotate_size,
            keep: settings.keep,
            buffer: Vec::new(),
        };
        if let Some(path) = &settings.file {
            let (log, tail, head) = LogFile::open(path, settings.sync)?;
            writer.resume(&log, tail, head);
            writer.log = Some(log);
        }
        Ok(writer)
    }

    /// Goes on where the log ends, and says so if it does not end as it was left.
    fn resume(&mut self, log: &LogFile, tail: Tail, head: Option<Link>) {
        let head = head.unwrap_or(tail.last);
        let missing = head.seq.saturating_sub(tail.last.seq);
        let altered = head.seq == tail.last.seq && head.hash != tail.last.hash;
        self.last = tail.last;
        self.prev = tail.prev;
        if !tail.torn && tail.skipped == 0 && missing == 0 && !altered {
            return;
        }
        self.last.seq += missing;
        let mut body = json!({ "last": tail.last.hash.to_string(), "skipped": tail.skipped });
        let mut say = |name: &str, value: Json| body[name] = value;
        if tail.skipped_bytes > 0 {
            say("skipped_bytes", tail.skipped_bytes.into());
        }
        if missing > 0 {
            say("missing", missing.into());
        }
        if altered {
            say("altered", true.into());
        }
        tracing::warn!("audit log {}: it did not end as it was left: {body}", log.path.display());
        self.keep_back(record::plain("recovered", &body, 4, self.journal.is_some()));
    }

    pub fn run(self) {
        // Dropped after the writer, so that the lock goes before anybody is told that the log has ended; and after a
        // panic too, so that nobody waits for a thread that is gone.
        let _ended = Ended(Arc::clone(&self.shared));
        let mut writer = self;
        writer.work();
        if !writer.backlog.is_empty() {
            tracing::error!("audit log: {} records could not be written before the end", writer.backlog.len());
        }
    }

    fn work(&mut self) {
        loop {
            let work = self.shared.next(self.retry);
            // Room now, not after the write: what comes meanwhile makes the next batch.
            let placed = work.items.iter().filter(|item| matches!(item, Item::Record { placed: true, .. }));
            self.shared.release(placed.count());
            let mut batch = Vec::with_capacity(work.items.len() + 1);
            let mut size = 0;
            for item in work.items {
                match item {
                    Item::Record { entry, .. } => {
                        size += entry.line.size();
                        batch.push(entry);
                        if size >= BATCH_MAX {
                            self.commit(&mut batch);
                            size = 0;
                        }
                    }
                    Item::Flush(flushed) => {
                        self.push_counts(&mut batch);
                        self.commit(&mut batch);
                        let _ = flushed.send(());
                    }
                    Item::Reopen(reopened) => {
                        self.commit(&mut batch);
                        let _ = reopened.send(self.reopen());
                    }
                }
            }
            if work.count {
                self.push_counts(&mut batch);
            }
            if work.last {
                let stop = record::plain("stop", &json!({}), 6, self.journal.is_some());
                batch.push(Entry::keep(stop));
            }
            self.commit(&mut batch);
            if work.last {
                return;
            }
        }
    }

    fn push_counts(&self, batch: &mut Vec<Entry>) {
        batch.extend(self.counts().map(Entry::keep));
    }

    fn counts(&self) -> Option<Line> {
        self.shared.counted();
        let body = self.shared.counter.take()?;
        Some(record::plain("counted", &body, 6, self.journal.is_some()))
    }

    /// Writes the backlog and the batch, and answers who waits.
    fn commit(&mut self, batch: &mut Vec<Entry>) {
        if batch.is_empty() && self.backlog.is_empty() {
            return;
        }
        let mut entries: Vec<Entry> = std::mem::take(&mut self.backlog).into_iter().map(Entry::keep).collect();
        self.backlog_bytes = 0;
        entries.append(batch);
        match &self.log {
            Some(_) => self.commit_to_file(entries),
            None => self.commit_to_journal(entries),
        }
        self.retry = (!self.backlog.is_empty()).then(|| Instant::now() + RETRY);
    }

    fn commit_to_file(&mut self, mut entries: Vec<Entry>) {
        let size: usize = entries.iter().map(|entry| entry.line.size()).sum();
        let before = self.prepare(size as u64);
        entries.splice(0..0, before.into_iter().map(Entry::keep));

        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let (mut last, mut prev) = (self.last, self.prev);
        let mut links = Vec::with_capacity(entries.len());
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        for entry in &entries {
            let start = buffer.len();
            let first = start == 0;
            let losses = if first { [("lost", self.lost), ("journal_lost", self.journal_lost)] } else { [("", 0); 2] };
            compose(&mut buffer, &entry.line, last.seq + 1, &time, losses, prev);
            prev = LineHash::of(&buffer[start..]);
            last = Link { seq: last.seq + 1, hash: prev };
            links.push(last);
            buffer.push(b'\n');
        }
        let Some(log) = &mut self.log else { return };
        let written = log.append(&mut buffer);
        // One large batch is no reason to keep its memory.
        if buffer.capacity() <= BATCH_MAX {
            self.buffer = buffer;
        }
        match written {
            Ok(()) => {
                log.write_head(last);
                #[cfg(test)]
                self.shared.writes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    tracing::info!("audit log {}: it takes records again", log.path.display());
                }
                (self.last, self.prev, self.lost, self.journal_lost) = (last, prev, 0, 0);
                let lines = entries.into_iter().map(|entry| acknowledge(entry, Ok(()))).collect::<Vec<_>>();
                for (line, link) in lines.iter().zip(links) {
                    self.tell_journal(line, link);
                }
            }
            Err(errno) => {
                let error = AuditError::Write { file: Arc::clone(&log.path), errno };
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!("{error}; calls are refused until it takes records again");
                }
                for entry in entries {
                    self.refuse(entry, &error);
                }
            }
        }
    }

    /// Sees to the file before a batch of about `size` bytes; answers the records that come first.
    fn prepare(&mut self, size: u64) -> Vec<Line> {
        let journal = self.journal.is_some();
        let Some(log) = &mut self.log else { return Vec::new() };
        let mut lines = Vec::new();
        match log.look() {
            Ok(Change::None) => {}
            Ok(Change::Deleted) => {
                let reopened = log.reopen();
                lines.extend(moved(&log.path, reopened.map(|_| true), journal).ok().flatten());
            }
            Ok(Change::Length(expected, found)) => {
                tracing::error!("audit log {}: somebody else wrote to it or cut it", log.path.display());
                let data = json!({ "expected_bytes": expected, "found_bytes": found });
                let body = json!({ "event": "log.changed", "data": data });
                lines.push(record::plain("event", &body, 3, journal));
            }
            Err(error) => tracing::warn!("audit log {}: {error}", log.path.display()),
        }
        let full = self.rotate_size > 0 && log.length() > 0 && log.length() + size > self.rotate_size;
        if full {
            match log.rotate(self.keep) {
                Ok(kept) => {
                    lines.insert(0, record::plain("rotate", &json!({ "kept": kept }), 6, journal));
                    lines.extend(self.counts());
                }
                Err(error) => tracing::warn!("{error}; the log is not rotated yet"),
            }
        }
        lines
    }

    fn commit_to_journal(&mut self, entries: Vec<Entry>) {
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        for entry in entries {
            let mut text = Vec::new();
            let seq = self.last.seq + 1;
            compose(&mut text, &entry.line, seq, &time, [("lost", self.lost), ("", 0)], self.prev);
            let link = Link { seq, hash: LineHash::of(&text) };
            let mut fields = entry.line.journal.clone().unwrap_or_default();
            journal::field(&mut fields, "VIRTAGENT_RECORD", &String::from_utf8_lossy(&text));
            push_link(&mut fields, link);
            let Some(journal) = &self.journal else { return };
            match journal.send(&fields) {
                Ok(()) => {
                    (self.last, self.prev, self.lost) = (link, link.hash, 0);
                    acknowledge(entry, Ok(()));
                }
                Err(errno) => {
                    let error = journal.error(errno);
                    self.refuse(entry, &error);
                }
            }
        }
    }

    fn tell_journal(&mut self, line: &Line, link: Link) {
        let (Some(journal), Some(fields)) = (&self.journal, &line.journal) else { return };
        let mut fields = fields.clone();
        push_link(&mut fields, link);
        match journal.send(&fields) {
            Err(errno) if !journal::is_absent(errno) => self.journal_lost += 1,
            _ => {}
        }
    }

    /// The record was not written: its call learns that, and one that nobody waits for is kept.
    fn refuse(&mut self, entry: Entry, error: &AuditError) {
        match entry.then {
            Then::Acknowledge(..) => drop(acknowledge(entry, Err(error.clone()))),
            Then::Keep => self.keep_back(entry.line),
        }
    }

    fn keep_back(&mut self, line: Line) {
        let size = line.size();
        if self.backlog_bytes + size > BACKLOG_MAX {
            self.lost += 1;
            return;
        }
        self.backlog_bytes += size;
        self.backlog.push(line);
    }

    fn reopen(&mut self) -> Result<(), AuditError> {
        let journal = self.journal.is_some();
        let Some(log) = &mut self.log else { return Ok(()) };
        let reopened = log.reopen();
        if let Some(line) = moved(&log.path, reopened, journal)? {
            self.commit(&mut vec![Entry::keep(line)]);
        }
        Ok(())
    }
}

struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// The first record of a file that took the log's name.
fn moved(path: &Path, reopened: Result<bool, AuditError>, journal: bool) -> Result<Option<Line>, AuditError> {
    match reopened {
        Ok(false) => Ok(None),
        Ok(true) => Ok(Some(record::plain("rotate", &json!({ "moved": true }), 6, journal))),
        Err(error) => {
            tracing::error!("{error}; the file that was {} is written on", path.display());
            Err(error)
        }
    }
}

fn push_link(fields: &mut Vec<u8>, link: Link) {
    journal::field(fields, "VIRTAGENT_SEQ", &link.seq.to_string());
    journal::field(fields, "VIRTAGENT_HASH", &link.hash.to_string());
}

fn acknowledge(entry: Entry, written: Result<(), AuditError>) -> Line {
    if let Then::Acknowledge(ack, recorded) = entry.then {
        let answer = match written {
            Ok(()) => Ok(recorded),
            Err(error) => {
                recorded.forget();
                Err(error)
            }
        };
        // With nobody left to take it, the record is dropped here and so closed as given up.
        drop(ack.send(answer));
    }
    entry.line
}

/// Appends a record's line, without its newline.
fn compose(out: &mut Vec<u8>, line: &Line, seq: u64, time: &str, losses: [(&str, u64); 2], prev: LineHash) {
    let comma = if line.body.is_empty() { "" } else { "," };
    // Writing to memory has no way to fail.
    let _ = write!(out, r#"{{"seq":{seq},"time":"{time}","type":"{}"{comma}{}"#, line.kind, line.body);
    for (name, count) in losses.into_iter().filter(|(_, count)| *count > 0) {
        let _ = write!(out, r#","{name}":{count}"#);
    }
    let _ = write!(out, r#","prev":"{prev}"}}"#);
}
