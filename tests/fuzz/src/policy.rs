//! What the target `policy` asserts: no text makes the readers panic; a policy that was read decides every question without
//! a panic and as it explains it; and narrowing never allows more.

use std::path::PathBuf;

use agent_core::config;
use agent_core::module::Level;
use agent_core::policy::{self, From, Policy, Query};
use agent_core::rpc::{Struct, Value};

const METHODS: &[&str] = &["va.ping", "file.open", "exec.run", "x"];
const USERS: &[(Option<&str>, Option<u32>)] = &[(None, None), (Some("alice"), Some(1000)), (Some("root"), None)];
const PATHS: &[&[&str]] = &[&[], &["/home/alice/a/b.txt", "/etc/shadow"], &["/"], &["/etc/../x/\u{fffd}*"]];

/// Reads one text as a policy and as a whole configuration.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = config::parse_str("fuzz.toml", text) {
        let message = error.to_string();
        assert!(message.starts_with("fuzz.toml"), "it names no file: {message:?}");
        assert!(!message.contains(char::is_control), "not one line: {message:?}");
    }
    let Ok(policy) = policy::parse_str("fuzz.toml", text) else { return };
    let narrowed = Policy::default_allow_all().narrow(policy.clone());
    let denied = Policy::deny_all().narrow(policy.clone());
    each_question(|query| {
        let verdict = policy.judge(query);
        assert_eq!(policy::explain(&policy, query).allow, verdict.allow, "{query:?}");
        if !verdict.allow {
            let fault = verdict.fault(query.method);
            assert!(!fault.message.contains(char::is_control), "not one line: {:?}", fault.message);
        }
        assert_eq!(
            narrowed.judge(query).allow,
            verdict.allow,
            "narrowing everything leaves the user's word: {query:?}"
        );
        assert!(!denied.judge(query).allow, "a user's policy widened nothing: {query:?}");
        // Paths matter to the verdict only where they were asked for.
        if !policy.wants_paths(query) {
            assert_eq!(policy.judge(&Query { paths: &[], ..*query }).allow, verdict.allow, "{query:?}");
        }
    });
}

fn each_question(mut ask: impl FnMut(&Query)) {
    let params = [
        Struct::from([("mode".to_owned(), "read".into()), ("path".to_owned(), "/etc/shadow".into())]),
        Struct::from([("mode".to_owned(), Value::Int(7)), ("params".to_owned(), Value::Nil)]),
    ];
    for method in METHODS {
        for level in [Level::System, Level::User] {
            for from in [From::Host, From::User] {
                for (user, uid) in USERS {
                    for paths in PATHS {
                        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
                        for params in &params {
                            let query = Query::new(method, level, from, params);
                            ask(&Query { user: *user, uid: *uid, paths: &paths, ..query });
                        }
                    }
                }
            }
        }
    }
}
