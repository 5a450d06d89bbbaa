//! Typed access to parsed TOML that never loses the line: every refusal names file, line, setting, value and what is
//! allowed. Must never accept a key that nothing reads.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::source::Source;
use super::{ConfigError, depth, units};

/// Parses a source's text.
pub(crate) fn parse(source: &Source) -> Result<Spanned<DeTable<'_>>, ConfigError> {
    if let Some(at) = depth::too_deep(&source.text) {
        let (dots, nesting) = (depth::MAX_DOTS, depth::MAX_NESTING);
        let message = format!("too deep: a key may have {dots} dots, and {nesting} brackets may be within each other");
        return Err(source.error(Some(at..at), message));
    }
    DeTable::parse(&source.text).map_err(|error| {
        // The parser's own message may have several lines.
        let message = error.message().split('\n').collect::<Vec<_>>().join(", ");
        source.error(error.span(), format!("not TOML: {message}"))
    })
}

/// A table of the configuration, all of its keys known.
pub(crate) struct Section<'t> {
    source: &'t Source,
    name: &'t str,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    /// A table that may have these keys only. Its name is empty for a file as a whole.
    pub(crate) fn new(
        source: &'t Source,
        name: &'t str,
        table: &'t DeTable<'t>,
        keys: &[&str],
    ) -> Result<Self, ConfigError> {
        for (key, _) in table {
            if !keys.contains(&key.get_ref().as_ref()) {
                let place = if name.is_empty() { "at the top".to_owned() } else { format!("in {name}") };
                return Err(source.error(Some(key.span()), unknown(key.get_ref(), &place, keys)));
            }
        }
        Ok(Self { source, name, table })
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<Item<'t>> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        self.table.get(key).map(|value| Item { source: self.source, name, value })
    }
}

/// One setting: its name and its value.
pub(crate) struct Item<'t> {
    pub(crate) source: &'t Source,
    pub(crate) name: String,
    pub(crate) value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Item<'t> {
    /// The line of the value.
    pub(crate) fn line(&self) -> usize {
        self.source.line(self.value.span().start)
    }

    /// The refusal of this value.
    pub(crate) fn refuse(&self, allowed: impl std::fmt::Display) -> ConfigError {
        let span = self.value.span();
        let shown = self.source.excerpt(span.clone());
        self.source.error(Some(span), format!("{} = {shown}: {allowed}", self.name))
    }

    pub(crate) fn string(&self, allowed: &str) -> Result<&'t str, ConfigError> {
        self.value.get_ref().as_str().ok_or_else(|| self.refuse(allowed))
    }

    pub(crate) fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.get_ref().as_bool().ok_or_else(|| self.refuse("true or false"))
    }

    /// A table's entries, with whatever keys.
    pub(crate) fn table(&self) -> Result<&'t DeTable<'t>, ConfigError> {
        self.value.get_ref().as_table().ok_or_else(|| self.refuse("a table of settings"))
    }

    /// An array's members, each under the array's name.
    pub(crate) fn array(&self, allowed: &str) -> Result<Vec<Item<'t>>, ConfigError> {
        let items = self.value.get_ref().as_array().ok_or_else(|| self.refuse(allowed))?;
        Ok(items.iter().map(|value| Item { source: self.source, name: self.name.clone(), value }).collect())
    }

    /// The members of a list, or the one value that stands for a list of one. Never empty.
    pub(crate) fn one_or_more(&self, allowed: &str) -> Result<Vec<Item<'t>>, ConfigError> {
        match self.value.get_ref() {
            DeValue::Array(items) if items.is_empty() => {
                Err(self.refuse(format_args!("an empty list matches nothing; want {allowed}")))
            }
            DeValue::Array(_) => self.array(allowed),
            _ => Ok(vec![Item { source: self.source, name: self.name.clone(), value: self.value }]),
        }
    }

    /// An integer, if this is one that an `i64` holds.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        let integer = self.value.get_ref().as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    /// A whole number of that range.
    pub(crate) fn number(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let number = self.as_integer().and_then(|number| u64::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.refuse(format_args!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// A size in bytes of that range: `"2MiB"` or `2097152`.
    pub(crate) fn size(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let size = match self.value.get_ref().as_str() {
            Some(text) => units::parse_size(text),
            None => self.as_integer().and_then(|number| u64::try_from(number).ok()),
        };
        size.filter(|size| range.contains(size)).ok_or_else(|| {
            let (least, most) = (units::show_size(*range.start()), units::show_size(*range.end()));
            self.refuse(format_args!("a size from {least} to {most}, such as \"2MiB\" or 2097152 (bytes)"))
        })
    }

    /// A duration of that range, or zero where zero means none: `"30s"`.
    pub(crate) fn duration(
        &self,
        range: RangeInclusive<Duration>,
        zero_for_none: bool,
    ) -> Result<Duration, ConfigError> {
        let duration = self.value.get_ref().as_str().and_then(units::parse_duration);
        let allowed = |duration: &Duration| range.contains(duration) || (zero_for_none && duration.is_zero());
        duration.filter(allowed).ok_or_else(|| {
            let (least, most) = (units::show_duration(*range.start()), units::show_duration(*range.end()));
            let none = if zero_for_none { ", or \"0s\" for none" } else { "" };
            self.refuse(format_args!("a duration from {least} to {most}, such as \"30s\" or \"2m\"{none}"))
        })
    }

    /// The table as plain TOML, for a module that reads it itself.
    pub(crate) fn plain_table(&self) -> Result<toml::Table, ConfigError> {
        let table = Spanned::new(self.value.span(), self.table()?.clone());
        toml::Table::deserialize(Deserializer::from(table))
            .map_err(|error| self.source.error(error.span().or(Some(self.value.span())), error.message()))
    }
}

/// The refusal of a key that nothing reads.
fn unknown(key: &str, place: &str, keys: &[&str]) -> String {
    let known = keys.join(", ");
    let shown: String = key.chars().take(40).collect();
    let nearest = keys.iter().map(|known| (distance(&shown, known), known)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + nearest.len() / 3 => {
            format!("unknown key {shown:?} {place}: did you mean {nearest:?}? (known: {known})")
        }
        _ => format!("unknown key {shown:?} {place} (known: {known})"),
    }
}

/// How many characters to insert, delete, replace or swap with their neighbour to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut rows = vec![(0..=other.len()).collect::<Vec<usize>>()];
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut best = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_one_step_away() {
        assert_eq!(distance("metod", "method"), 1);
        assert_eq!(distance("acton", "action"), 1);
        assert_eq!(distance("lmiits", "limits"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
