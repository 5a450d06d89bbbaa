//! XML-RPC's `dateTime.iso8601`.

use std::fmt;
use std::str::FromStr;

/// A civil date and time to the second, without a zone: XML-RPC's `19980717T14:08:55`.
///
/// Years are 0 to 9999. The other date's range is checked (no 31 February); a leap second (`:60`) is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

/// What [`DateTime`] could not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a dateTime.iso8601 (want YYYYMMDDTHH:MM:SS): {0:?}")]
pub struct BadDateTime(pub String);

impl DateTime {
    /// A date and time, or nothing when there is no such moment.
    pub fn new(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Option<Self> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        let valid = year <= 9999 && (1..=days).contains(&day) && hour < 24 && minute < 60 && second <= 60;
        valid.then_some(Self { year, month, day, hour, minute, second })
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}{month:02}{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

impl FromStr for DateTime {
    type Err = BadDateTime;

    /// Reads `YYYYMMDDTHH:MM:SS`, and `YYYY-MM-DDTHH:MM:SS` that some libraries write; a trailing `Z` is dropped.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadDateTime(text.chars().take(40).collect());
        let trimmed = text.trim();
        let (date, time) = trimmed.strip_suffix('Z').unwrap_or(trimmed).split_once('T').ok_or_else(bad)?;
        let date = match date.len() {
            10 if date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-' => date.replace('-', ""),
            _ => date.to_owned(),
        };
        let well_formed = date.len() == 8
            && date.bytes().all(|b| b.is_ascii_digit())
            && time.len() == 8
            && time.bytes().enumerate().all(|(i, b)| if i == 2 || i == 5 { b == b':' } else { b.is_ascii_digit() });
        if !well_formed {
            return Err(bad());
        }
        let number = |digits: &str| digits.parse::<u16>().map_err(|_| bad());
        let small = |digits: &str| digits.parse::<u8>().map_err(|_| bad());
        Self::new(
            number(&date[..4])?,
            small(&date[4..6])?,
            small(&date[6..])?,
            small(&time[..2])?,
            small(&time[3..5])?,
            small(&time[6..])?,
        )
        .ok_or_else(bad)
    }
}
