//! Refuses absurd depth before the TOML parser sees it.
//!
//! The parser makes a table for each dot of `a.a.a.a...` and lets eighty brackets nest, each with such a key; dropping
//! what comes of that overruns a thread's stack. Must never recurse.

/// The most dots in one key; `module.NAME.TABLE.KEY` has three.
pub(super) const MAX_DOTS: usize = 16;
/// The most arrays and inline tables within each other; a list of paths in a rule is three.
pub(super) const MAX_NESTING: usize = 16;

/// Where the first key with more than [`MAX_DOTS`] dots, or the first bracket within [`MAX_NESTING`] others stands, as a
/// byte offset.
///
/// Follows strings and comments as TOML defines them, so that neither can hide anything. A bracket of the wrong kind
/// closes nothing: in a text that is no TOML this may find too much, never too little.
pub(super) fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut dots = 0;
    let mut open = Vec::with_capacity(MAX_NESTING);
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
                continue;
            }
            b'.' => {
                dots += 1;
                if dots > MAX_DOTS {
                    return Some(at);
                }
            }
            b'\n' | b'=' | b',' => dots = 0,
            b'[' | b'{' => {
                dots = 0;
                if open.len() == MAX_NESTING {
                    return Some(at);
                }
                open.push(if byte == b'[' { b']' } else { b'}' });
            }
            b']' | b'}' => {
                dots = 0;
                if open.last() == Some(&byte) {
                    open.pop();
                }
            }
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
        assert_eq!(too_deep(&key(16)), None);
        assert_eq!(too_deep(&key(17)), Some(6 + 2 * 16 + 1));
    }

    #[test]
    fn seventeen_brackets_are_found_and_sixteen_are_not() {
        let value = |levels: usize| format!("x = {}1{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(too_deep(&value(16)), None);
        assert_eq!(too_deep(&value(17)), Some(4 + 16));
        assert!(too_deep(&format!("x = {}", "[}".repeat(17))).is_some());
        assert_eq!(too_deep(&"[[a]]\nb = [{ c = [] }] # [[[[\n".repeat(100)), None);
    }

    #[test]
    fn quotes_hide_no_dots() {
        for separator in ["\"=\".", "'#'.", "\"a\\\"\".", " a . "] {
            assert!(too_deep(&format!("{}a = 1", separator.repeat(17))).is_some(), "{separator}");
        }
        for opening in ["x = \"\"\"a\"\"\"\"\n", "x = '''a'''''\n", "x = \"unfinished\n", "# \" '\n", "x = \"\"\n"] {
            let text = format!("{opening}{}a = 1", "a.".repeat(17));
            assert!(too_deep(&text).is_some(), "{opening}");
        }
    }

    #[test]
    fn dots_in_values_and_comments_are_no_keys() {
        let dots = ".".repeat(100);
        let text = format!("a = \"{dots}\" # {dots}\nb = '''\n{dots}\n'''\nc = [1.5, 1.5, \"{dots}\"]\n");
        assert_eq!(too_deep(&text), None);
    }
}
