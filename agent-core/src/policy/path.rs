//! Globs over resolved paths, with `fast-glob` behind them.
//!
//! Owns what a pattern may be. fast-glob takes any text, answers an unspecified result for a malformed one, tries each
//! combination of brace alternatives (ten groups of fifty would take years), reads `\n` as a newline and a stuck `**` as
//! `*`. So braces are expanded here, once and bounded, and whatever could surprise is refused when the policy is read.
//! What is left matches in the pattern's length times the path's. Must never touch the file system.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use super::name::BadGlob;

/// A glob over an absolute path whose symlinks are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathGlob {
    text: Box<str>,
    /// The pattern without braces: it matches when one of these does.
    alternatives: Vec<String>,
}

impl PathGlob {
    /// The longest pattern, in bytes.
    pub const MAX: usize = 1024;
    /// The most patterns that one with braces may stand for.
    pub const MAX_ALTERNATIVES: usize = 64;

    /// Parses a pattern.
    ///
    /// `?` is one byte but `/`; `*` any run of bytes but `/`; `**`, alone between slashes, any run of whole components,
    /// also none; `[a-z]` and `[!a-z]` one byte of a set but `/`; `{a,b}` either; `\` makes the next character ordinary.
    ///
    /// # Errors
    /// The pattern is malformed, or could never match a resolved path, with what to write instead.
    pub fn new(text: &str) -> Result<Self, BadGlob> {
        if text.len() > Self::MAX {
            return refuse(format!("at most {} bytes, this has {}", Self::MAX, text.len()));
        }
        if text.contains('\0') {
            return refuse("no path has a NUL character");
        }
        check_escapes(text)?;
        fast_glob::validate(text).map_err(|error| BadGlob(error.to_string()))?;
        let mut alternatives = Vec::new();
        expand(text.to_owned(), &mut alternatives)?;
        for alternative in &alternatives {
            check_plain(alternative)?;
        }
        Ok(Self { text: text.into(), alternatives })
    }

    /// Whether the whole path matches.
    pub fn matches(&self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_bytes();
        self.alternatives.iter().any(|glob| fast_glob::glob_match(glob, bytes))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a path is what the caller has to give: absolute, without `.`, `..`, doubled or trailing slashes.
pub(super) fn is_resolved(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let length = |part: Component| part.as_os_str().len();
    // Each component of a path as it should be has one slash before it; the root alone is the one slash.
    let normal: usize = path.components().filter(|part| *part != Component::RootDir).map(|part| 1 + length(part)).sum();
    path.is_absolute() && plain && OsStr::len(path.as_os_str()) == normal.max(1)
}

fn refuse<T>(message: impl Into<String>) -> Result<T, BadGlob> {
    Err(BadGlob(message.into()))
}

/// A backslash before a letter or digit would be a newline or the like to fast-glob, and a slip to whoever wrote it.
fn check_escapes(text: &str) -> Result<(), BadGlob> {
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            continue;
        }
        match characters.next() {
            Some(next) if !next.is_ascii_punctuation() || next == '/' => {
                return refuse(format!(
                    "a backslash before {next:?} means nothing here; it makes one of * ? [ ] {{ }} , \\ ordinary"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a pattern without braces must be to match any resolved path.
fn check_plain(glob: &str) -> Result<(), BadGlob> {
    if !glob.starts_with('/') {
        return refuse("an absolute path or glob, such as \"/etc/os-release\" or \"/home/*/shared/**\"");
    }
    if glob.len() > 1 && glob.ends_with('/') {
        return refuse("no resolved path ends with a slash: leave it out, or end with \"/**\" for all below");
    }
    for part in components(&glob[1..]) {
        match part {
            "" if glob.len() > 1 => return refuse("no resolved path has two slashes together"),
            "." | ".." => return refuse(format!("no resolved path has a component {part:?}")),
            "**" => {}
            _ if has_double_star(part) => {
                return refuse("** must stand alone between slashes, such as \"/srv/**/*.txt\"");
            }
            _ => {}
        }
    }
    check_classes(glob)
}

/// Splits at slashes. One within a class splits too, which [`check_classes`] refuses anyway.
fn components(glob: &str) -> impl Iterator<Item = &str> {
    glob.split('/')
}

fn has_double_star(part: &str) -> bool {
    let mut ordinary = false;
    let mut last_star = false;
    for byte in part.bytes() {
        let star = byte == b'*' && !ordinary;
        if star && last_star {
            return true;
        }
        last_star = star;
        ordinary = byte == b'\\' && !ordinary;
    }
    false
}

/// A class is over bytes, so a character outside ASCII in one would match a part of itself.
fn check_classes(glob: &str) -> Result<(), BadGlob> {
    let bytes = glob.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'[' => {
                let end = class_end(bytes, at);
                let class = &bytes[at..end];
                if !class.is_ascii() {
                    return refuse("a class [...] takes ASCII only; write {a,b} for other characters");
                }
                if class.contains(&b'/') {
                    return refuse("a class [...] never matches a slash");
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The offset behind the class that opens at `at`, which [`fast_glob::validate`] found closed.
fn class_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    if matches!(bytes.get(end), Some(b'!' | b'^')) {
        end += 1;
    }
    let first = end;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b']' if end > first => return end + 1,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// Writes out `{a,b}`. Each step takes one group away, of which there are at most ten, so this goes ten deep at most.
fn expand(glob: String, into: &mut Vec<String>) -> Result<(), BadGlob> {
    let Some(group) = first_group(&glob) else {
        if into.len() == PathGlob::MAX_ALTERNATIVES {
            let most = PathGlob::MAX_ALTERNATIVES;
            return refuse(format!("braces that stand for at most {most} patterns; write a list of globs instead"));
        }
        into.push(glob);
        return Ok(());
    };
    for branch in group.branches.windows(2) {
        // A comma or brace is one byte, so a branch is what stands between two of them.
        let middle = &glob[branch[0] + 1..branch[1]];
        let mut whole = join(&glob[..group.open], middle)?;
        whole = join(&whole, &glob[group.close + 1..])?;
        expand(whole, into)?;
    }
    Ok(())
}

/// Two stars that only come together by a brace would be `**`, which nobody wrote.
fn join(left: &str, right: &str) -> Result<String, BadGlob> {
    let backslashes = left.bytes().rev().skip(1).take_while(|byte| *byte == b'\\').count();
    if left.ends_with('*') && backslashes.is_multiple_of(2) && right.starts_with('*') {
        return refuse("a star beside a brace with a star at its edge is not clear; write a list of globs instead");
    }
    Ok(format!("{left}{right}"))
}

/// A brace group: where it opens and closes, and the bytes that bound its branches (`{`, each `,`, `}`).
struct Group {
    open: usize,
    close: usize,
    branches: Vec<usize>,
}

fn first_group(glob: &str) -> Option<Group> {
    let bytes = glob.as_bytes();
    let mut branches = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' => {
                at = class_end(bytes, at);
                continue;
            }
            b'{' => {
                depth += 1;
                if depth == 1 {
                    branches.push(at);
                }
            }
            b',' if depth == 1 => branches.push(at),
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    let open = branches[0];
                    branches.push(at);
                    return Some(Group { open, close: at, branches });
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
