//! Refuses keys of absurd depth before the TOML parser sees them.
//!
//! The parser bounds how deep arrays and inline tables nest, but `a.a.a.a...` makes a table for each dot, and dropping
//! half a million nested tables overruns the stack. Must never recurse.

/// The most dots in one key; `module.NAME.TABLE.KEY` has three.
pub(super) const MAX_DOTS: usize = 16;

/// Where the first key with more than [`MAX_DOTS`] dots stands, as a byte offset.
///
/// Follows strings and comments as TOML defines them, so that neither can hide a dot. A dot of a number counts too: no
/// number has two.
pub(super) fn too_many_dots(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut dots = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' | b'\'' => {
                at = after_string(bytes, at);
                continue;
            }
            b'#' => {
                while bytes.get(at).is_some_and(|byte| *byte != b'\n') {
                    at += 1;
                }
                dots = 0;
            }
            b'.' => {
                dots += 1;
                if dots > MAX_DOTS {
                    return Some(at);
                }
            }
            b'\n' | b'=' | b',' | b'[' | b']' | b'{' | b'}' => dots = 0,
            _ => {}
        }
        at += 1;
    }
    None
}

/// The offset behind the string that opens at `at`. One that a line's end cuts short ends there.
fn after_string(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let escapes = quote == b'"';
    let triple = [quote; 3];
    let long = bytes[at..].starts_with(&triple);
    let mut at = at + if long { 3 } else { 1 };
    while let Some(&byte) = bytes.get(at) {
        if byte == b'\\' && escapes && bytes.get(at + 1).is_some_and(|next| *next != b'\n') {
            at += 2;
        } else if long && bytes[at..].starts_with(&triple) {
            // Up to two quotes more belong to the string.
            return at + bytes[at..].iter().take(5).take_while(|byte| **byte == quote).count();
        } else if !long && byte == quote {
            return at + 1;
        } else if !long && byte == b'\n' {
            return at;
        } else {
            at += 1;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_seventeen_dots_is_found_and_one_of_sixteen_is_not() {
        let key = |dots: usize| format!("x = 1\n{}a = 1", "a.".repeat(dots));
        assert_eq!(too_many_dots(&key(16)), None);
        assert_eq!(too_many_dots(&key(17)), Some(6 + 2 * 16 + 1));
    }

    #[test]
    fn quotes_hide_no_dots() {
        for separator in ["\"=\".", "'#'.", "\"a\\\"\".", " a . "] {
            assert!(too_many_dots(&format!("{}a = 1", separator.repeat(17))).is_some(), "{separator}");
        }
        for opening in ["x = \"\"\"a\"\"\"\"\n", "x = '''a'''''\n", "x = \"unfinished\n", "# \" '\n", "x = \"\"\n"] {
            let text = format!("{opening}{}a = 1", "a.".repeat(17));
            assert!(too_many_dots(&text).is_some(), "{opening}");
        }
    }

    #[test]
    fn dots_in_values_and_comments_are_no_keys() {
        let dots = ".".repeat(100);
        let text = format!("a = \"{dots}\" # {dots}\nb = '''\n{dots}\n'''\nc = [1.5, 1.5, \"{dots}\"]\n");
        assert_eq!(too_many_dots(&text), None);
    }
}
