//! Bytes to frames, resynchronising by the sentinel.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::Decoder;

use super::{Frame, Heads, Kind, SENTINEL, name};
use crate::config::Limits;
use crate::encoding::Encoding;
use crate::rpc::Tag;

/// The longest value of a head of ours, in bytes; a user's name has 256 at most (LOGIN_NAME_MAX).
const MAX_VALUE: usize = 256;

/// What the wire yielded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole frame.
    Frame(Frame),
    /// Something that began as a frame; reading goes on behind it.
    Bad(BadFrame),
}

/// A frame that can't be taken, with what is known of it, so that a call can be answered by a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFrame {
    /// Call or reply, where its first line said so.
    pub kind: Option<Kind>,
    /// Its tag, where it had one.
    pub tag: Option<Tag>,
    /// Its encoding, where it named one of ours.
    pub encoding: Option<Encoding>,
    /// What is wrong with it.
    pub error: FrameError,
}

/// Why a frame can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A sentinel came inside the head or a text body: the sender cut this frame short.
    #[error("the frame was cut short by the next one")]
    CutShort,
    /// No empty line within the limit.
    #[error("the head is longer than {0} bytes (limits.head)")]
    HeadTooLong(usize),
    /// The first line is neither a call's nor a reply's.
    #[error("the first line is neither POST nor HTTP")]
    FirstLine,
    /// A head line without `": "`, not UTF-8, one that came twice, or a value of ours that is too long.
    #[error("malformed, repeated or overlong head {0:?}")]
    BadHead(String),
    /// No usable `Content-Length`.
    #[error("Content-Length is missing, zero or no number")]
    Length,
    /// No usable tag.
    #[error("X-Virtagent-Client-Tag is missing or not 1 to 63 printable characters")]
    Tag,
    /// A `Content-Type` that nobody here reads.
    #[error("Content-Type {0:?} is not text/xml, application/json or application/cbor")]
    ContentType(String),
    /// The body is over the limit; it is skipped.
    #[error("a body of {length} bytes is over the limit of {limit} (limits.body)")]
    BodyTooLong {
        /// What the head announced.
        length: u64,
        /// `limits.body`.
        limit: usize,
    },
}

/// The state machine. Feed it a buffer through [`Decoder`]; it never fails, so its error type is only the trait's.
#[derive(Debug)]
pub struct FrameDecoder {
    head_limit: usize,
    body_limit: usize,
    state: State,
    /// How much of the buffer's front has been searched without a find.
    searched: usize,
}

#[derive(Debug)]
enum State {
    /// Looking for a sentinel.
    Seek,
    /// Behind a sentinel.
    Head,
    /// Behind a head.
    Body { frame: Frame, length: usize },
    /// Inside a body that is over the limit.
    Skip { left: u64, text: bool },
    /// A binary body stalled and was given up. What comes next is either the rest of it, in which anything may look like
    /// a frame, or another sender's first frame, which then begins what comes.
    Stalled { left: u64 },
}

/// What one step of the state machine came to.
enum Step {
    /// The buffer says no more.
    NeedBytes,
    /// Another state; go on.
    Again,
    /// Something for the reader.
    Yield(Item),
}

impl FrameDecoder {
    /// A decoder with `limits.head` and `limits.body`.
    pub fn new(limits: &Limits) -> Self {
        Self { head_limit: limits.head, body_limit: limits.body, state: State::Seek, searched: 0 }
    }

    /// Whether a frame has begun and is not yet whole. A sentinel alone begins nothing: the March 2011 version ends its
    /// frames with one.
    pub fn mid_frame(&self) -> bool {
        match self.state {
            State::Seek | State::Stalled { .. } => false,
            State::Head => self.searched > 0,
            State::Body { .. } | State::Skip { .. } => true,
        }
    }

    /// How much of a body that is over the limit is still to be skipped, in bytes.
    pub fn left_to_skip(&self) -> u64 {
        match self.state {
            State::Skip { left, .. } => left,
            _ => 0,
        }
    }

    /// Gives up on a half-read frame, of which the buffer is to be cleared; the bytes of it that still come are skipped.
    pub fn give_up(&mut self) {
        let next = match &self.state {
            State::Body { frame, length } if !frame.encoding.is_text() => {
                State::Stalled { left: (*length - self.searched) as u64 }
            }
            State::Skip { left, text: false } => State::Stalled { left: *left },
            _ => State::Seek,
        };
        self.enter(next);
    }

    fn enter(&mut self, state: State) {
        self.state = state;
        self.searched = 0;
    }

    fn step(&mut self, buffer: &mut BytesMut) -> Step {
        match &mut self.state {
            State::Seek => {
                let Some(at) = buffer.iter().position(|byte| *byte == SENTINEL) else {
                    buffer.clear();
                    return Step::NeedBytes;
                };
                buffer.advance(at + 1);
                self.enter(State::Head);
                Step::Again
            }
            State::Head => self.head(buffer),
            State::Body { frame, length } => {
                let have = buffer.len().min(*length);
                let text = frame.encoding.is_text();
                if text && let Some(cut) = find_sentinel(&buffer[self.searched..have]) {
                    let bad = bad(frame, FrameError::CutShort);
                    buffer.advance(self.searched + cut);
                    self.enter(State::Seek);
                    return Step::Yield(Item::Bad(bad));
                }
                if have < *length {
                    self.searched = have;
                    // Room for the rest at once: a long body then comes in few reads.
                    buffer.reserve(*length - have);
                    return Step::NeedBytes;
                }
                let body = buffer.split_to(*length).freeze();
                let State::Body { frame, .. } = std::mem::replace(&mut self.state, State::Seek) else {
                    return Step::Again;
                };
                self.searched = 0;
                Step::Yield(Item::Frame(Frame { body, ..frame }))
            }
            State::Stalled { left } => {
                let next = match buffer.first() {
                    None => return Step::NeedBytes,
                    Some(&SENTINEL) => State::Seek,
                    Some(_) => State::Skip { left: *left, text: false },
                };
                self.enter(next);
                Step::Again
            }
            State::Skip { left, text } => {
                let have = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let cut = if *text { find_sentinel(&buffer[..have]) } else { None };
                buffer.advance(cut.unwrap_or(have));
                *left -= have as u64;
                if cut.is_none() && *left > 0 {
                    return Step::NeedBytes;
                }
                self.enter(State::Seek);
                Step::Again
            }
        }
    }

    fn head(&mut self, buffer: &mut BytesMut) -> Step {
        // Nothing behind the limit counts, however much of it came in the same read.
        let have = buffer.len().min(self.head_limit);
        let from = self.searched.saturating_sub(3);
        let window = &buffer[from..have];
        let end = window.windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
        let searched = end.unwrap_or(have);
        if let Some(cut) = find_sentinel(&buffer[self.searched..searched]) {
            let cut = self.searched + cut;
            buffer.advance(cut);
            self.enter(State::Seek);
            // A run of sentinels is allowed: only a head that had begun was cut short.
            return if cut == 0 { Step::Again } else { Step::Yield(Item::Bad(unknown(FrameError::CutShort))) };
        }
        match end {
            Some(end) => {
                let head = buffer.split_to(end);
                let (next, step) = match parse_head(&head[..end - 4], self.body_limit) {
                    Ok((frame, length)) => (State::Body { frame, length }, Step::Again),
                    Err((bad, skip)) => {
                        // What is not known to be text may hold sentinels of its own.
                        let text = bad.encoding.is_some_and(Encoding::is_text);
                        (skip.map_or(State::Seek, |left| State::Skip { left, text }), Step::Yield(Item::Bad(bad)))
                    }
                };
                self.enter(next);
                step
            }
            None if have == self.head_limit => {
                self.enter(State::Seek);
                Step::Yield(Item::Bad(unknown(FrameError::HeadTooLong(self.head_limit))))
            }
            None => {
                self.searched = searched;
                Step::NeedBytes
            }
        }
    }
}

impl Decoder for FrameDecoder {
    type Item = Item;
    type Error = std::io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, Self::Error> {
        loop {
            match self.step(buffer) {
                Step::NeedBytes => return Ok(None),
                Step::Again => {}
                Step::Yield(item) => return Ok(Some(item)),
            }
        }
    }

    /// What is left of a frame when the stream ends is dropped: its sender is gone.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Item>, Self::Error> {
        let item = self.decode(buffer)?;
        if item.is_none() {
            buffer.clear();
        }
        Ok(item)
    }
}

fn find_sentinel(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == SENTINEL)
}

fn unknown(error: FrameError) -> BadFrame {
    BadFrame { kind: None, tag: None, encoding: None, error }
}

fn bad(frame: &Frame, error: FrameError) -> BadFrame {
    BadFrame { kind: Some(frame.kind), tag: Some(frame.tag.clone()), encoding: Some(frame.encoding), error }
}

/// The frame without its body and the body's length; or what is wrong, and how much of a body to skip.
fn parse_head(head: &[u8], body_limit: usize) -> Result<(Frame, usize), (BadFrame, Option<u64>)> {
    let mut known = unknown(FrameError::FirstLine);
    let fail = |known: BadFrame, error| Err((BadFrame { error, ..known }, None));
    let Ok(text) = std::str::from_utf8(head) else {
        return fail(known, FrameError::BadHead("(not UTF-8)".into()));
    };
    let mut lines = text.split("\r\n");
    known.kind = match lines.next().and_then(|line| line.get(..4)) {
        Some("POST") => Some(Kind::Call),
        Some("HTTP") => Some(Kind::Reply),
        _ => return fail(known, FrameError::FirstLine),
    };

    let (mut length, mut encoding, mut tag) = (None, None, None);
    let mut heads = Heads::default();
    let mut timeout = None;
    let mut malformed = None;
    let mut two_lengths = false;
    for line in lines {
        let Some((head, value)) = line.split_once(':') else {
            malformed = malformed.or(Some(shorten(line)));
            continue;
        };
        let slot = if head.eq_ignore_ascii_case(name::LENGTH) {
            &mut length
        } else if head.eq_ignore_ascii_case(name::TYPE) {
            &mut encoding
        } else if head.eq_ignore_ascii_case(name::TAG) {
            &mut tag
        } else if head.eq_ignore_ascii_case(name::USERNAME) {
            &mut heads.username
        } else if head.eq_ignore_ascii_case(name::TIMEOUT) {
            &mut timeout
        } else if head.eq_ignore_ascii_case(name::VERSION) {
            &mut heads.version
        } else if head.eq_ignore_ascii_case(name::BOOT_ID) {
            &mut heads.boot_id
        } else if head.eq_ignore_ascii_case(name::NONCE) {
            &mut heads.nonce
        } else {
            continue;
        };
        // Which of two would count is what a smuggler asks; so neither does.
        if slot.replace(value.trim().to_owned()).is_some() {
            two_lengths |= head.eq_ignore_ascii_case(name::LENGTH);
            malformed = malformed.or(Some(shorten(line)));
        }
    }
    // A reply repeats its call's username; what is longer than any name must not make that reply's head too long.
    let texts = [&heads.username, &heads.version, &heads.boot_id, &heads.nonce];
    if let Some(long) = texts.into_iter().flatten().find(|text| text.len() > MAX_VALUE) {
        malformed = malformed.or(Some(shorten(long)));
    }

    known.tag = tag.and_then(|text| text.parse().ok());
    let encoding = match encoding {
        None => Ok(Encoding::Xml),
        Some(text) => Encoding::from_content_type(&text).ok_or(text),
    };
    known.encoding = encoding.as_ref().ok().copied();
    let length = match length.filter(|text| text.bytes().all(|b| b.is_ascii_digit())).map(|text| text.parse::<u64>()) {
        Some(Ok(length)) if length > 0 && !two_lengths => length,
        _ => {
            let error = malformed.map_or(FrameError::Length, FrameError::BadHead);
            return fail(known, error);
        }
    };
    // A body whose length is known is skipped by it: bytes may hold what looks like a frame.
    let skip = |known: BadFrame, error| Err((BadFrame { error, ..known }, Some(length)));
    if let Some(line) = malformed {
        return skip(known, FrameError::BadHead(line));
    }
    let Some(tag) = known.tag.clone() else {
        return skip(known, FrameError::Tag);
    };
    let encoding = match encoding {
        Ok(encoding) => encoding,
        Err(text) => return skip(known, FrameError::ContentType(shorten(&text))),
    };
    let kind = match known.kind {
        Some(kind) => kind,
        None => return skip(known, FrameError::FirstLine),
    };
    match usize::try_from(length) {
        Ok(short_enough) if short_enough <= body_limit => {
            // A timeout that is no number is no timeout.
            heads.timeout_ms = timeout.and_then(|text| text.parse().ok());
            Ok((Frame { kind, tag, encoding, heads, body: Bytes::new() }, short_enough))
        }
        _ => skip(known, FrameError::BodyTooLong { length, limit: body_limit }),
    }
}

/// Enough of a line to recognise it in a log.
fn shorten(line: &str) -> String {
    line.chars().take(80).collect()
}
