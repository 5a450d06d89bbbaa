//! What a path glob means, checked by example and against a plain second definition.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

fn matches(glob: &str, path: &str) -> bool {
    PathGlob::new(glob).unwrap_or_else(|error| panic!("{glob}: {error}")).matches(Path::new(path))
}

fn refusal(glob: &str) -> String {
    PathGlob::new(glob).expect_err(glob).to_string()
}

#[test]
fn a_star_stays_within_a_component_and_two_cross_them() {
    assert!(matches("/home/*/a.txt", "/home/alice/a.txt"));
    assert!(!matches("/home/*/a.txt", "/home/alice/b/a.txt"));
    assert!(!matches("/home/*", "/home/alice/a.txt"));
    assert!(matches("/home/**", "/home/alice/a.txt"));
    assert!(matches("/home/**/a.txt", "/home/a.txt"));
    assert!(matches("/home/**/a.txt", "/home/x/y/a.txt"));
    assert!(!matches("/home/**/a.txt", "/home/x/ya.txt/b"));
    assert!(matches("/**", "/etc/shadow"));
    assert!(matches("/srv/*/**/x-*", "/srv/a/b/c/x-1"));
}

#[test]
fn two_stars_stand_for_what_is_below_and_not_for_the_folder() {
    assert!(!matches("/srv/data/**", "/srv/data"));
    assert!(matches("/srv/data{,/**}", "/srv/data"));
    assert!(matches("/srv/data{,/**}", "/srv/data/a/b"));
    assert!(!matches("/srv/data{,/**}", "/srv/database"));
    assert!(matches("/", "/"));
    assert!(!matches("/*", "/a/b"));
}

#[test]
fn braces_classes_and_escapes_mean_what_the_guide_says() {
    assert!(matches("/etc/{os-release,hostname}", "/etc/hostname"));
    assert!(matches("{/a,/b/{c,d}}/e", "/b/d/e"));
    assert!(!matches("/etc/{os-release,hostname}", "/etc/passwd"));
    assert!(matches("/dev/tty[0-9]", "/dev/tty3"));
    assert!(!matches("/dev/tty[!0-9]", "/dev/tty3"));
    assert!(matches("/dev/tty[^0-9]", "/dev/ttyS"));
    assert!(matches(r"/a/\*", "/a/*"));
    assert!(!matches(r"/a/\*", "/a/b"));
    assert!(matches(r"/a/\{b,c\}", "/a/{b,c}"));
    assert!(matches("/a/?", "/a/b"));
    assert!(!matches("/a?b", "/a/b"));
    assert!(matches("/a/!b", "/a/!b"));
    assert!(matches("/a/{!b,c}", "/a/!b"));
}

#[test]
fn a_path_that_is_no_text_matches_by_its_bytes() {
    let path = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff\xfe"));
    assert!(PathGlob::new("/tmp/*").unwrap().matches(&path));
    assert!(!PathGlob::new("/tmp/a*").unwrap().matches(&path));
}

#[test]
fn what_could_never_match_or_would_surprise_is_refused_with_advice() {
    assert!(refusal("etc/passwd").contains("absolute"));
    assert!(refusal("!/etc/passwd").contains("absolute"));
    assert!(refusal("{/a,b}").contains("absolute"));
    assert!(refusal("").contains("absolute"));
    assert!(refusal("/tmp/").contains("/**"));
    assert!(refusal("/a/../b").contains("\"..\""));
    assert!(refusal("/a/./b").contains("\".\""));
    assert!(refusal("/a//b").contains("two slashes"));
    assert!(refusal("/a/**.txt").contains("alone"));
    assert!(refusal("/a/{*,b}*").contains("star"));
    assert!(refusal("/a/{b").contains("unclosed"));
    assert!(refusal("/a/[b").contains("unclosed"));
    assert!(refusal("/a/b\\").contains("backslash"));
    assert!(refusal(r"/a/\n").contains("backslash"));
    assert!(refusal("/a/[\u{e9}]").contains("ASCII"));
    assert!(refusal("/a[/]b").contains("slash"));
    assert!(refusal("/a\0b").contains("NUL"));
    assert!(refusal(&format!("/{}", "a".repeat(1024))).contains("1024"));
}

#[test]
fn braces_that_multiply_are_refused_at_once() {
    assert!(refusal(&format!("/{}", "{a,b,c,d,e,f,g,h,i,j}".repeat(10))).contains("64"));
    assert!(refusal(&format!("/{}", "{a,b}".repeat(11))).contains("10"));
    assert!(PathGlob::new(&format!("/{}", "{a,b}".repeat(6))).is_ok());
    assert!(PathGlob::new(&format!("/{}", "{}".repeat(10))).is_ok());
}

#[test]
fn stars_that_nearly_match_a_long_path_cost_little() {
    let path = format!("/{}", "a".repeat(4094));
    let deep = "/a".repeat(2047);
    for (glob, path) in [("/*a*a*a*a*a*a*a*a*a*b", &path), ("/**/a/**/a/**/a/**/a/**/b", &deep)] {
        let started = std::time::Instant::now();
        for _ in 0..10 {
            assert!(!matches(glob, path));
        }
        assert!(started.elapsed().as_secs() < 5, "{glob} took {:?}", started.elapsed());
    }
}

#[test]
fn only_a_path_as_realpath_writes_it_counts_as_resolved() {
    for resolved in ["/", "/a", "/a/b c", "/a/.b", "/a/..."] {
        assert!(is_resolved(Path::new(resolved)), "{resolved}");
    }
    for other in ["", "a", "/a/", "//a", "/a//b", "/a/./b", "/a/../b", "/a/.", "/.."] {
        assert!(!is_resolved(Path::new(other)), "{other}");
    }
}

/// The plain definition: component by component, without braces.
fn plain(glob: &[&str], path: &[&str]) -> bool {
    match glob.split_first() {
        None => path.is_empty(),
        Some((&"**", [])) => !path.is_empty(),
        Some((&"**", rest)) => (0..=path.len()).any(|skip| plain(rest, &path[skip..])),
        Some((part, rest)) => path
            .split_first()
            .is_some_and(|(first, left)| plain_part(part.as_bytes(), first.as_bytes()) && plain(rest, left)),
    }
}

fn plain_part(glob: &[u8], name: &[u8]) -> bool {
    match glob {
        [] => name.is_empty(),
        [b'*', rest @ ..] => (0..=name.len()).any(|skip| plain_part(rest, &name[skip..])),
        [b'?', rest @ ..] => !name.is_empty() && plain_part(rest, &name[1..]),
        [b'[', b'a', b'b', b']', rest @ ..] => matches!(name, [b'a' | b'b', ..]) && plain_part(rest, &name[1..]),
        [b'[', b'!', b'a', b']', rest @ ..] => matches!(name, [n, ..] if *n != b'a') && plain_part(rest, &name[1..]),
        [b'\\', b'*', rest @ ..] => name.first() == Some(&b'*') && plain_part(rest, &name[1..]),
        [byte, rest @ ..] => name.first() == Some(byte) && plain_part(rest, &name[1..]),
    }
}

fn glob_part() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => Just("a"), 3 => Just("b"), 2 => Just("*"), 1 => Just("?"), 1 => Just("[ab]"), 1 => Just("[!a]"), 1 => Just("\\*"),
    ];
    prop_oneof![
        3 => prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat()),
        1 => Just("**".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn it_matches_what_the_plain_definition_matches(
        glob in prop::collection::vec(glob_part(), 1..5),
        path in prop::collection::vec("[ab*]{1,3}", 1..6),
    ) {
        let text = format!("/{}", glob.join("/"));
        let parts: Vec<&str> = glob.iter().map(String::as_str).collect();
        let names: Vec<&str> = path.iter().map(String::as_str).collect();
        if glob.iter().any(|part| part != "**" && has_double_star(part)) {
            prop_assert!(PathGlob::new(&text).is_err());
        } else {
            let path = format!("/{}", path.join("/"));
            prop_assert_eq!(matches(&text, &path), plain(&parts, &names), "{} on {}", text, path);
        }
    }

    #[test]
    fn braces_mean_the_list_of_their_alternatives(
        one in "[ab*]{0,3}", other in "[ab?]{0,3}", tail in "[ab]{0,2}", path in "/[ab]{1,6}",
    ) {
        let (one, other) = (format!("/a{one}{tail}"), format!("/a{other}{tail}"));
        let both = format!("/a{{{},{}}}{tail}", &one[2..one.len() - tail.len()], &other[2..other.len() - tail.len()]);
        if let (Ok(both), Ok(one), Ok(other)) = (PathGlob::new(&both), PathGlob::new(&one), PathGlob::new(&other)) {
            let path = Path::new(&path);
            prop_assert_eq!(both.matches(path), one.matches(path) || other.matches(path));
        }
    }

    #[test]
    fn no_pattern_panics(glob in "[/ab*?\\[\\]{}!^,\\\\\u{e9}.-]{0,24}", path in "/[ab/]{0,12}") {
        if let Ok(glob) = PathGlob::new(&glob) {
            glob.matches(Path::new(&path));
        }
    }
}
