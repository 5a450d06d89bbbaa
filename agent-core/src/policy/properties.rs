//! What holds for every policy and every call.

use proptest::prelude::*;

use super::tests::{params, paths, policy};
use super::*;

/// Policies, users' policies and calls over a small alphabet, so that they meet often.
fn any_policy(default: &'static [&'static str]) -> impl Strategy<Value = String> {
    let rule = (
        prop::sample::select(&["allow", "deny"][..]),
        prop::sample::select(&["a.b", "a.*", "*", "b.c"][..]),
        prop::sample::select(&["", "level = \"system\"", "level = \"user\""][..]),
        prop::sample::select(&["", "user = \"alice\"", "user = 1000", "user = \"b*\""][..]),
        prop::sample::select(&["", "path = \"/x/**\"", "path = [\"/y\", \"/x/?\"]"][..]),
        prop::sample::select(&["", "from = \"host\"", "from = \"user\""][..]),
        prop::sample::select(&["", "params = { m = \"r\" }"][..]),
    )
        .prop_map(|(action, method, level, user, path, from, params)| {
            let head = format!("[[policy.rule]]\naction = \"{action}\"\nmethod = \"{method}\"\n");
            format!("{head}{level}\n{user}\n{path}\n{from}\n{params}\n")
        });
    (prop::sample::select(default), prop::collection::vec(rule, 0..6))
        .prop_map(|(default, rules)| format!("[policy]\n{default}\n{}", rules.concat()))
}

const DEFAULTS: &[&str] = &["", "default = \"allow\"", "default = \"deny\""];

/// A call: method, level, user, side, paths, parameter.
type AnyCall = (&'static str, Level, Option<(&'static str, u32)>, From, Vec<&'static str>, bool);

fn any_call() -> impl Strategy<Value = AnyCall> {
    (
        prop::sample::select(&["a.b", "a.c", "b.c", "x"][..]),
        prop::sample::select(&[Level::System, Level::User][..]),
        prop::sample::select(&[None, Some(("alice", 1000)), Some(("bob", 1001))][..]),
        prop::sample::select(&[From::Host, From::User][..]),
        prop::collection::vec(prop::sample::select(&["/x/a", "/x/a/b", "/y", "/z"][..]), 0..3),
        any::<bool>(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_users_policy_never_widens(
        owners in any_policy(DEFAULTS), first in any_policy(DEFAULTS), second in any_policy(DEFAULTS), call in any_call(),
    ) {
        let owner = policy(&owners);
        let (first, second) = (parse_str("u1", &first).unwrap(), parse_str("u2", &second).unwrap());
        let (method, level, user, from, on, read) = call;
        let on = paths(&on);
        let params = if read { params([("m", "r".into())]) } else { Struct::new() };
        let user = (user.map(|user| user.0), user.map(|user| user.1));
        let query = Query { user: user.0, uid: user.1, paths: &on, ..Query::new(method, level, from, &params) };
        let all = [&owner, &first, &second].map(|policy| policy.judge(&query).allow);
        let narrowed = owner.clone().narrow(first).narrow(second);
        prop_assert_eq!(narrowed.judge(&query).allow, all == [true; 3]);
        prop_assert_eq!(explain(&narrowed, &query).allow, all == [true; 3]);
    }

    #[test]
    fn where_no_paths_are_wanted_none_change_the_verdict(owners in any_policy(DEFAULTS), call in any_call()) {
        let policy = policy(&owners);
        let (method, level, user, from, on, read) = call;
        let on = paths(&on);
        let params = if read { params([("m", "r".into())]) } else { Struct::new() };
        let user = (user.map(|user| user.0), user.map(|user| user.1));
        let query = Query { user: user.0, uid: user.1, ..Query::new(method, level, from, &params) };
        if !wants_paths(&policy, method, level, user.0, from) {
            let with = policy.judge(&Query { paths: &on, ..query });
            prop_assert_eq!(with.decided_by, policy.judge(&query).decided_by);
        }
    }
}

fn wants_paths(policy: &Policy, method: &str, level: Level, user: Option<&str>, from: From) -> bool {
    let params = Struct::new();
    policy.wants_paths(&Query { user, ..Query::new(method, level, from, &params) })
}
