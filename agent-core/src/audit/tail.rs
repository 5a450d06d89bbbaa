//! Where a log's chain ends: read backwards from the file's end, and from the link noted beside it. Owns no descriptor
//! and writes nothing.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;

use super::chain::{LINE_MAX, LineHash, Link};
use super::error::AuditError;

const BLOCK: u64 = 64 << 10;

/// The end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last record.
    pub last: Link,
    /// The hash of the last raw line, which is not the last record's when a write was torn.
    pub prev: LineHash,
    /// Lines after the last record that are none.
    pub skipped: u64,
    /// Their bytes.
    pub skipped_bytes: u64,
    /// The last line has no newline.
    pub torn: bool,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

/// The number of a record; nothing for a line that is no record.
pub(super) fn number(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Numbered>(line).ok().map(|record| record.seq)
}

/// Reads the end of a log of that length.
pub(super) fn read(path: &Path, file: &File, length: u64) -> Result<Tail, AuditError> {
    let mut window = Vec::new();
    let mut start = length;
    loop {
        if let Some(tail) = parse(&window, start == 0) {
            return Ok(tail);
        }
        if window.len() > 2 * LINE_MAX {
            let reason = format!("its last {} bytes hold no record; move it away, a new one is begun", window.len());
            return Err(AuditError::Unsafe { file: path.to_owned(), reason });
        }
        let size = BLOCK.min(start);
        start -= size;
        let mut block = vec![0; usize::try_from(size).unwrap_or_default()];
        file.read_exact_at(&mut block, start).map_err(|error| AuditError::file(path, "read its end", &error))?;
        block.append(&mut window);
        window = block;
    }
}

/// The tail, if the window holds enough of the file to know it.
fn parse(window: &[u8], whole: bool) -> Option<Tail> {
    let torn = window.last().is_some_and(|&byte| byte != b'\n');
    let lines = if torn { window } else { window.strip_suffix(b"\n").unwrap_or(window) };
    let mut tail = Tail { last: Link::START, prev: LineHash::NONE, skipped: 0, skipped_bytes: 0, torn };
    if window.is_empty() {
        return whole.then_some(tail);
    }
    let mut end = lines.len();
    loop {
        let newline = lines[..end].iter().rposition(|&byte| byte == b'\n');
        if newline.is_none() && !whole {
            return None;
        }
        let line = &lines[newline.map_or(0, |at| at + 1)..end];
        let hash = LineHash::of(line);
        if end == lines.len() {
            tail.prev = hash;
        }
        // A torn line that parses lacks no more than its newline.
        if let Some(seq) = number(line) {
            tail.last = Link { seq, hash };
            return Some(tail);
        }
        tail.skipped += 1;
        tail.skipped_bytes += line.len() as u64;
        match newline {
            Some(at) => end = at,
            None => return Some(tail),
        }
    }
}

/// The last link as it is noted beside the log: of fixed length, so that writing it never needs room on a full disk.
pub(super) fn head_line(link: Link) -> Vec<u8> {
    format!("{:020} {}\n", link.seq, link.hash).into_bytes()
}

/// The link that was noted last, if one was.
pub(super) fn read_head(file: &File) -> Option<Link> {
    let mut line = [0; 86];
    file.read_exact_at(&mut line, 0).ok()?;
    let (seq, hash) = std::str::from_utf8(&line).ok()?.trim_end().split_once(' ')?;
    Some(Link { seq: seq.parse().ok()?, hash: hash.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tail_of(content: &[u8]) -> Tail {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        read(Path::new("log"), &file, content.len() as u64).unwrap()
    }

    #[test]
    fn the_last_record_is_found_however_long_it_is() {
        assert_eq!(tail_of(b"").last, Link::START);
        for size in [10, 65_000, 65_536, 200_000, 1_000_000] {
            let line = format!(r#"{{"seq":7,"x":"{}"}}"#, "y".repeat(size));
            let tail = tail_of(format!("{{\"seq\":6}}\n{line}\n").as_bytes());
            assert_eq!(tail.last, Link { seq: 7, hash: LineHash::of(line.as_bytes()) });
            assert_eq!((tail.prev, tail.torn, tail.skipped), (tail.last.hash, false, 0));
        }
    }

    #[test]
    fn a_torn_line_is_passed_over_and_told() {
        let tail = tail_of(b"{\"seq\":1}\n{\"seq\":2}\n{\"se");
        assert_eq!(tail.last.seq, 2);
        assert_eq!(tail.prev, LineHash::of(b"{\"se"));
        assert_eq!((tail.torn, tail.skipped, tail.skipped_bytes), (true, 1, 4));
        let tail = tail_of(b"{\"seq\":1}\n{\"seq\":2}");
        assert_eq!((tail.last.seq, tail.torn, tail.skipped), (2, true, 0));
    }

    #[test]
    fn zeros_that_a_power_cut_left_are_passed_over() {
        let mut content = b"{\"seq\":1}\n".to_vec();
        content.resize(100_000, 0);
        let tail = tail_of(&content);
        assert_eq!((tail.last.seq, tail.torn, tail.skipped), (1, true, 1));
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(read_head(&file), None);
        let link = Link { seq: 42, hash: LineHash::of(b"x") };
        file.write_all(&head_line(link)).unwrap();
        assert_eq!(read_head(&file), Some(link));
    }
}
