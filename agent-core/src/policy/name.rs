//! Globs over names: methods and users. Must never take longer than the pattern's length times the name's.

use std::fmt;

/// A glob over a name: `file.*`. `*` is any run of characters, dots included; `?` is one character; the rest is itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameGlob(Box<str>);

/// A glob that could never mean anything, and what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadGlob(pub(super) String);

impl NameGlob {
    /// The longest pattern, in bytes.
    pub const MAX: usize = 256;

    /// A glob over method names.
    ///
    /// # Errors
    /// It is empty, too long, or has a character that no method's name has.
    pub fn method(text: &str) -> Result<Self, BadGlob> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/' | b'*' | b'?');
        if text.is_empty() || text.len() > Self::MAX || !text.bytes().all(allowed) {
            return Err(BadGlob(
                "a method or a glob such as \"file.*\" (1 to 256 of A-Z a-z 0-9 _ . : / * ?), or a list of them".into(),
            ));
        }
        Ok(Self(text.into()))
    }

    /// A glob over user names.
    ///
    /// # Errors
    /// It is empty, too long, has control characters, or is an `@` name, which is resolved before policy is asked.
    pub fn user(text: &str) -> Result<Self, BadGlob> {
        if text.starts_with('@') {
            return Err(BadGlob(
                "a user's name; @active and its like stand for a user, and the rule sees that user".into(),
            ));
        }
        if text.is_empty() || text.len() > Self::MAX || text.chars().any(char::is_control) {
            return Err(BadGlob(
                "a user's name, a glob such as \"dev-*\" or a numeric uid (1 to 256 bytes), or a list of them".into(),
            ));
        }
        Ok(Self(text.into()))
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on when what follows the last star did not match: the pattern behind it, the name one further.
        let mut retry = None;
        loop {
            match pattern.get(p) {
                Some(b'*') => {
                    p += 1;
                    retry = Some((p, n));
                    continue;
                }
                Some(b'?') if n < name.len() => {
                    p += 1;
                    n += character_length(name, n);
                    continue;
                }
                Some(byte) if name.get(n) == Some(byte) => {
                    p += 1;
                    n += 1;
                    continue;
                }
                None if n == name.len() => return true,
                _ => {}
            }
            match retry {
                Some((behind, from)) if from < name.len() => {
                    let from = from + character_length(name, from);
                    retry = Some((behind, from));
                    (p, n) = (behind, from);
                }
                _ => return false,
            }
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many bytes the UTF-8 character at `at` has.
fn character_length(name: &[u8], at: usize) -> usize {
    1 + name[at + 1..].iter().take_while(|byte| **byte & 0xC0 == 0x80).count()
}

impl fmt::Display for NameGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(glob: &str, name: &str) -> bool {
        NameGlob::user(glob).unwrap().matches(name)
    }

    #[test]
    fn a_star_crosses_dots_and_a_dot_is_a_dot() {
        assert!(matches("file.*", "file.open"));
        assert!(matches("file.*", "file.a.b"));
        assert!(!matches("file.*", "filexopen"));
        assert!(!matches("file.*", "file"));
        assert!(matches("*", "system.listMethods"));
        assert!(matches("*.list*", "system.listMethods"));
        assert!(!matches("file.open", "file.opened"));
        assert!(matches("f?le.open", "file.open"));
        assert!(matches("J?rg", "J\u{f6}rg"));
    }

    #[test]
    fn a_method_glob_holds_only_what_a_method_may() {
        for wrong in ["", "file open", "file.{open,read}", "[a]", "!file.*", "f\u{fc}r"] {
            assert!(NameGlob::method(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_user_glob_is_no_at_name() {
        assert!(NameGlob::user("@active").unwrap_err().to_string().contains("@active"));
    }

    fn simple(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skip| simple(rest, &name[skip..])),
            Some((one, rest)) => {
                name.split_first().is_some_and(|(first, left)| (*one == '?' || one == first) && simple(rest, left))
            }
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_plain_definition_matches(pattern in "[ab*?\u{e9}]{1,8}", name in "[ab\u{e9}]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&pattern, &name), simple(&chars(&pattern), &chars(&name)));
        }
    }
}
