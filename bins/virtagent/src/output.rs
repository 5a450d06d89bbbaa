//! What reaches the terminal: tables, JSON, and text of the guest made harmless.
//!
//! Owns standard output's failures (a closed pipe ends quietly). Must never pass a control character of the guest's on
//! inside a table or a message: it could move the cursor or answer for the user.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_core::rpc::Value;
use comfy_table::{CellAlignment, ContentArrangement, Table as Grid};
use serde_json::Value as Json;

use crate::failure::{Failure, Result};

/// Writes to standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::stdout)
}

/// Writes a line to standard output.
pub fn println(line: &str) -> Result<()> {
    print(&format!("{line}\n"))
}

/// JSON on standard output: spread over lines for a person, one line for a program.
pub fn print_json(json: &Json) -> Result<()> {
    match io::stdout().is_terminal() {
        true => println(&escape_controls(&format!("{json:#}"))),
        false => println(&json.to_string()),
    }
}

/// One line of JSON, for streams.
pub fn print_json_line(json: &Json) -> Result<()> {
    println(&json.to_string())
}

/// A line on standard error; that it can't be written changes nothing.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{}", escape_controls(line));
}

/// One line of the guest's text: control characters are shown as escapes, line breaks too.
pub fn clean(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            '\r' => shown.push_str("\\r"),
            c if harmful(c) => {
                let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
            }
            c => shown.push(c),
        }
    }
    shown
}

/// Text of several lines whose other control characters are shown as escapes.
pub fn escape_controls(text: &str) -> String {
    text.split('\n').map(clean_line).collect::<Vec<_>>().join("\n")
}

fn clean_line(line: &str) -> String {
    let kept = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect::<String>();
    let trailing = kept.len() - kept.trim_end().len();
    let mut shown = clean(&kept);
    shown.extend(std::iter::repeat_n(' ', trailing.min(1)));
    shown
}

/// Control characters, and the ones that turn text around.
fn harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table with a head, columns two spaces apart, numbers to the right.
pub struct Table {
    grid: Grid,
    right: Vec<bool>,
}

impl Table {
    /// Columns by their heads; one that begins with `>` is set to the right.
    pub fn new(heads: &[&str]) -> Self {
        let mut grid = Grid::new();
        grid.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        grid.set_header(heads.iter().map(|head| head.trim_start_matches('>')));
        Self { grid, right: heads.iter().map(|head| head.starts_with('>')).collect() }
    }

    /// One row, as many cells as columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.grid.add_row(cells.into_iter().map(|cell| clean(&cell)));
    }

    /// The table as text, without spaces at the ends of lines.
    pub fn render(mut self) -> String {
        let last = self.right.len().saturating_sub(1);
        for (index, right) in self.right.iter().enumerate() {
            if let Some(column) = self.grid.column_mut(index) {
                column.set_padding((0, if index == last { 0 } else { 2 }));
                column.set_cell_alignment(if *right { CellAlignment::Right } else { CellAlignment::Left });
            }
        }
        self.grid.lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
    }
}

/// Names and values, one pair a line, the values in one column.
pub fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    pairs.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{:width$}{}", format!("{name}:"), clean(value));
        text
    })
}

/// A size as `ls -h` shows it: 1536 is 1.5K.
pub fn human_size(bytes: i64) -> String {
    let mut size = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit.is_empty() || size >= 100.0 { format!("{size:.0}{unit}") } else { format!("{size:.1}{unit}") }
}

/// Unix seconds as a UTC date: `2026-01-02 03:04:05Z`.
pub fn date(seconds: f64) -> String {
    let moment = Duration::try_from_secs_f64(seconds).ok().and_then(|since| UNIX_EPOCH.checked_add(since));
    match moment {
        Some(moment) if seconds < 253_402_300_799.0 => {
            humantime::format_rfc3339_seconds(moment).to_string().replace('T', " ")
        }
        _ => format!("{seconds}"),
    }
}

/// Now, as RFC 3339 in UTC.
pub fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// `-rw-r--r--` of a file's type and permission bits.
pub fn mode(kind: &str, bits: i64) -> String {
    let first = match kind {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "block" => 'b',
        "char" => 'c',
        _ => '-',
    };
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::from(first);
    for (index, (bit, with_x, without_x)) in special.into_iter().enumerate() {
        let shift = 6 - 3 * index;
        let x = bits & (1 << shift) != 0;
        text.push(if bits & (4 << shift) != 0 { 'r' } else { '-' });
        text.push(if bits & (2 << shift) != 0 { 'w' } else { '-' });
        text.push(match (bits & bit != 0, x) {
            (true, true) => with_x,
            (true, false) => without_x,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A member of a result as text for a table; what is missing is `-`.
pub fn cell(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Nil) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(member) => plain(member),
    }
}

/// A value as text for people.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Bool(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::DateTime(moment) => moment.to_string(),
        Value::Array(items) if items.iter().all(|item| !matches!(item, Value::Array(_) | Value::Struct(_))) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => crate::json::from_value(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_has_no_trailing_spaces() {
        let mut table = Table::new(&["NAME", ">SIZE", "OWNER"]);
        table.row(["a".into(), "5".into(), "root".into()]);
        table.row(["longer name".into(), "12345".into(), "-".into()]);
        assert_eq!(table.render(), "NAME          SIZE  OWNER\na                5  root\nlonger name  12345  -\n");
    }

    #[test]
    fn a_file_name_cannot_send_escape_sequences_to_the_terminal() {
        let mut table = Table::new(&["NAME"]);
        table.row(["evil\x1b[2J\nname\u{202e}".to_owned()]);
        assert_eq!(table.render(), "NAME\nevil\\u{1b}[2J\\nname\\u{202e}\n");
    }

    #[test]
    fn modes_look_as_in_ls() {
        assert_eq!(mode("file", 0o644), "-rw-r--r--");
        assert_eq!(mode("directory", 0o1777), "drwxrwxrwt");
        assert_eq!(mode("file", 0o4750), "-rwsr-x---");
        assert_eq!(mode("symlink", 0o2644), "lrw-r-Sr--");
    }

    #[test]
    fn sizes_and_dates_are_short() {
        assert_eq!(human_size(0), "0");
        assert_eq!(human_size(1023), "1023");
        assert_eq!(human_size(1536), "1.5K");
        assert_eq!(human_size(64 << 20), "64.0M");
        assert_eq!(human_size(300 << 30), "300G");
        assert_eq!(date(1_767_323_045.9), "2026-01-02 03:04:05Z");
        assert_eq!(date(-5.0), "-5");
    }

    #[test]
    fn pairs_share_a_column() {
        assert_eq!(pairs(&[("a", "1".into()), ("longer", "2".into())]), "a:      1\nlonger: 2\n");
    }
}
