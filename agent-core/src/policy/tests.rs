//! What a policy decides, the packaged one first of all.

use super::*;
use crate::config::{self, Config, PACKAGED, PACKAGED_LABEL};
use crate::rpc::{FaultCode, Value};

const GUIDE: &str = include_str!("../../../docs/policy.md");
const MARK: &str = "# <-- uncomment to let the host act as root";

pub(super) fn policy(text: &str) -> Policy {
    config::parse_str("test.toml", text).unwrap_or_else(|error| panic!("{error}\n{text}")).policy
}

fn error_of(text: &str) -> String {
    config::parse_str("test.toml", text).expect_err(text).to_string()
}

/// A rule as the only one of a file.
fn rule_error(rule: &str) -> String {
    error_of(&format!("[[policy.rule]]\naction = \"allow\"\nmethod = \"a\"\n{rule}"))
}

pub(super) fn params<const N: usize>(pairs: [(&str, Value); N]) -> Struct {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn paths(texts: &[&str]) -> Vec<PathBuf> {
    texts.iter().map(PathBuf::from).collect()
}

/// The host's call at system level.
fn host(policy: &Policy, method: &str) -> bool {
    policy.judge(&Query::new(method, Level::System, From::Host, &Struct::new())).allow
}

fn host_on(policy: &Policy, method: &str, on: &[&str]) -> bool {
    let on = paths(on);
    let none = Struct::new();
    policy.judge(&Query { paths: &on, ..Query::new(method, Level::System, From::Host, &none) }).allow
}

fn as_user(policy: &Policy, method: &str, user: &str, uid: u32) -> bool {
    let none = Struct::new();
    policy
        .judge(&Query { user: Some(user), uid: Some(uid), ..Query::new(method, Level::User, From::Host, &none) })
        .allow
}

#[test]
fn the_packaged_policy_lets_the_host_ask_power_off_and_act_as_users() {
    let policy = Config::packaged().unwrap().policy;
    let asked = ["va.ping", "va.capabilities", "system.listMethods", "session.list", "info.get", "power.shutdown"];
    for method in asked.into_iter().chain(["va.shutdown", "va.getdmesg", "info.dmesg"]) {
        assert!(host(&policy, method), "{method}");
    }
    for method in ["exec.run", "exec.start", "file.open", "file.remove", "va.ping"] {
        assert!(as_user(&policy, method, "alice", 1000), "{method}");
    }
}

#[test]
fn the_packaged_policy_keeps_root_from_the_host() {
    let policy = Config::packaged().unwrap().policy;
    for method in ["exec.run", "exec.start", "file.remove", "file.rename", "file.mkdir", "va.getfile", "clipboard.set"]
    {
        assert!(!host(&policy, method), "{method}");
        assert!(!host_on(&policy, method, &["/etc/shadow"]), "{method}");
    }
    for method in ["exec.run", "file.open"] {
        assert!(!as_user(&policy, method, "root", 0), "{method}");
        assert!(!as_user(&policy, method, "toor", 0), "{method}");
    }
    let on = paths(&["/etc/hostname"]);
    for (mode, allowed) in [("read", true), ("write", false), ("replace", false)] {
        let mode = params([("path", "/etc/hostname".into()), ("mode", mode.into())]);
        let query = Query { paths: &on, ..Query::new("file.open", Level::System, From::Host, &mode) };
        assert_eq!(policy.judge(&query).allow, allowed, "{mode:?}");
    }
    assert!(host_on(&policy, "va.getfile", &["/usr/lib/os-release"]));
    assert!(host_on(&policy, "file.stat", &["/proc/meminfo"]));
    assert!(!host_on(&policy, "file.stat", &["/proc/1/environ"]));
    assert!(host(&policy, "file.read"), "a handle exists only where file.open was allowed");
}

#[test]
fn the_packaged_policy_lets_users_call_whatever_the_host_serves() {
    let policy = Config::packaged().unwrap().policy;
    let none = Struct::new();
    for method in ["va.ping", "host.event", "exec.output", "anything.else"] {
        for level in [Level::System, Level::User] {
            assert!(policy.judge(&Query::new(method, level, From::User, &none)).allow, "{method}");
        }
    }
}

#[test]
fn uncommenting_the_one_marked_line_lets_the_host_act_as_root() {
    let marked: Vec<&str> = PACKAGED.lines().filter(|line| line.ends_with(MARK)).collect();
    let [line] = marked.as_slice() else { panic!("one line is marked, found {marked:?}") };
    let uncommented = line.replacen('#', "", 1);
    assert_eq!(uncommented.trim_start().chars().next(), Some('{'));
    let policy = config::parse_str(PACKAGED_LABEL, &PACKAGED.replace(line, &uncommented)).unwrap().policy;
    for method in ["exec.run", "exec.start", "file.open", "file.remove", "va.getfile"] {
        assert!(host_on(&policy, method, &["/etc/shadow"]), "{method}");
    }
    assert!(host(&policy, "exec.run"));
    assert!(as_user(&policy, "exec.run", "root", 0));
    assert!(!host(&policy, "clipboard.set"));
}

#[test]
fn the_packaged_refusal_of_root_says_what_to_do() {
    let policy = Config::packaged().unwrap().policy;
    let fault = policy.judge(&Query::new("exec.run", Level::System, From::Host, &Struct::new())).fault("exec.run");
    assert!(fault.message.contains("packaged defaults:"), "{}", fault.message);
    assert!(fault.message.contains("one marked line"), "{}", fault.message);
}

#[test]
fn the_first_rule_that_matches_decides() {
    let text = "[policy]\ndefault = \"allow\"\nrule = [\n{ action = \"deny\", method = \"a.b\" },\n\
                { action = \"allow\", method = \"a.*\" },\n{ action = \"deny\", method = \"*\" },\n]";
    let policy = policy(text);
    assert!(!host(&policy, "a.b"));
    assert!(host(&policy, "a.c"));
    assert!(!host(&policy, "b.c"));
}

#[test]
fn a_verdict_names_rule_file_and_line_and_so_does_its_fault() {
    let policy = policy(
        "[policy]\ndefault = \"deny\"\n\n[[policy.rule]]\naction = \"allow\"\nmethod = \"a\"\n\n[[policy.rule]]\n\
         action = \"deny\"\nmethod = \"b\"\nreason = \"ask ops\"\n",
    );
    let none = Struct::new();
    let denied = policy.judge(&Query::new("b", Level::System, From::Host, &none));
    assert_eq!(denied.decided_by, "rule 2 (test.toml:8)");
    let fault = denied.fault("b");
    assert!(fault.is(FaultCode::Denied));
    assert_eq!(fault.message, "b is denied by rule 2 (test.toml:8): ask ops");
    let data = Value::object([("rule", 2.into()), ("file", "test.toml".into()), ("line", 8.into())]);
    assert_eq!(fault.data.as_deref(), Some(&data));

    let default = policy.judge(&Query::new("c", Level::System, From::Host, &none));
    assert_eq!(default.decided_by, "policy.default (test.toml:2)");
    let fault = default.fault("c");
    assert!(fault.message.contains("policy.default (test.toml:2)"), "{}", fault.message);
    let data = Value::object([("rule", "default".into()), ("file", "test.toml".into()), ("line", 2.into())]);
    assert_eq!(fault.data.as_deref(), Some(&data));

    let built_in = Policy::deny_all().judge(&Query::new("c", Level::System, From::Host, &none));
    assert!(!built_in.allow && built_in.decided_by.contains("built in"));
    assert!(Policy::default_allow_all().judge(&Query::new("c", Level::System, From::Host, &none)).allow);
}

#[test]
fn a_refusal_does_not_tell_the_host_where_a_symlink_leads() {
    let policy = policy("[[policy.rule]]\naction = \"deny\"\nmethod = \"file.*\"\npath = \"/home/**\"\n");
    let on = paths(&["/home/alice/secret-target"]);
    let none = Struct::new();
    let verdict = policy.judge(&Query { paths: &on, ..Query::new("file.open", Level::System, From::Host, &none) });
    assert_eq!(verdict.path.as_deref(), Some(on[0].as_path()));
    let fault = verdict.fault("file.open");
    assert!(!format!("{fault:?}").contains("secret-target"));
}

#[test]
fn every_condition_narrows_a_rule() {
    let rule = |condition: &str| policy(&format!("[[policy.rule]]\naction = \"allow\"\nmethod = \"a\"\n{condition}"));
    assert!(host(&rule(""), "a"));
    assert!(!host(&rule("level = \"user\""), "a"));
    assert!(!host(&rule("from = \"user\""), "a"));
    assert!(!host(&rule("user = \"*\""), "a"), "no user is concerned");
    assert!(!host(&rule("path = \"/**\""), "a"), "the call names no path");
    assert!(!host(&rule("params = { mode = \"read\" }"), "a"));
    assert!(as_user(&rule("user = [\"bob\", \"al*\"]"), "a", "alice", 1000));
    assert!(as_user(&rule("user = \"1000\""), "a", "alice", 1000));
    assert!(as_user(&rule("user = 1000"), "a", "alice", 1000));
    assert!(!as_user(&rule("user = \"1000\""), "a", "alice", 1001));
    assert!(!as_user(&rule("user = \"bob\""), "a", "alice", 1000));
}

#[test]
fn a_parameter_matches_by_its_text_however_it_was_written() {
    let rule =
        policy("[[policy.rule]]\naction = \"allow\"\nmethod = \"a\"\nparams = { mode = [\"read\", 4], all = true }");
    let judged = |mode: Value, all: Value| {
        let params = params([("mode", mode), ("all", all)]);
        rule.judge(&Query::new("a", Level::System, From::Host, &params)).allow
    };
    assert!(judged("read".into(), true.into()));
    assert!(judged(Value::Bytes("read".into()), "true".into()));
    assert!(judged(4.into(), true.into()));
    assert!(judged(Value::Double(4.0), true.into()));
    assert!(!judged("READ".into(), true.into()));
    assert!(!judged("re*".into(), true.into()));
    assert!(!judged(Value::Nil, true.into()));
    assert!(!judged("read".into(), Value::Array(vec![true.into()])));
}

#[test]
fn all_paths_of_a_call_must_be_allowed_each_by_itself() {
    let policy = policy(
        "[[policy.rule]]\naction = \"allow\"\nmethod = \"file.rename\"\npath = [\"/srv/in/**\", \"/srv/out/**\"]",
    );
    assert!(host_on(&policy, "file.rename", &["/srv/in/a", "/srv/out/a"]));
    assert!(!host_on(&policy, "file.rename", &["/srv/in/a", "/etc/passwd"]));
    assert!(!host_on(&policy, "file.rename", &["/etc/passwd", "/srv/in/a"]));
}

#[test]
fn rules_see_the_path_behind_the_symlink() {
    let policy = policy("[[policy.rule]]\naction = \"allow\"\nmethod = \"file.open\"\npath = \"/srv/in/**\"");
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("innocent");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    let resolved = std::fs::canonicalize(&link).unwrap();
    assert!(!host_on(&policy, "file.open", &[resolved.to_str().unwrap()]));
}

#[test]
fn a_path_that_was_not_resolved_is_denied_by_what_denies_and_allowed_by_nothing() {
    let allow = policy("[[policy.rule]]\naction = \"allow\"\nmethod = \"a\"\npath = \"/srv/**\"");
    let deny = policy(
        "[policy]\ndefault = \"allow\"\n[[policy.rule]]\naction = \"deny\"\nmethod = \"a\"\npath = \"/etc/shadow\"",
    );
    for path in ["/srv/../etc/shadow", "/srv/./x", "/srv//x", "srv/x", "/srv/x/", ""] {
        assert!(!host_on(&allow, "a", &[path]), "{path}");
        assert!(!host_on(&deny, "a", &[path]), "{path}");
    }
    assert!(host_on(&allow, "a", &["/srv/x"]));
    assert!(host_on(&deny, "a", &["/srv/x"]));
}

#[test]
fn paths_are_wanted_only_where_a_rule_with_paths_may_decide() {
    let policy = Config::packaged().unwrap().policy;
    assert!(wants_paths(&policy, "file.open", Level::System, None, From::Host));
    assert!(!wants_paths(&policy, "file.open", Level::User, Some("alice"), From::Host));
    assert!(!wants_paths(&policy, "file.open", Level::System, Some("alice"), From::User));
    assert!(!wants_paths(&policy, "va.ping", Level::System, None, From::Host));

    let by_uid = super::tests::policy("[[policy.rule]]\naction = \"deny\"\nmethod = \"a\"\nuser = 1000\npath = \"/x\"");
    assert!(wants_paths(&by_uid, "a", Level::User, Some("alice"), From::Host), "the UID is not known yet");
    let users = parse_str("u", "[[policy.rule]]\naction = \"deny\"\nmethod = \"file.*\"\npath = \"/x\"").unwrap();
    assert!(wants_paths(&policy.narrow(users), "file.open", Level::User, Some("alice"), From::Host));
}

#[test]
fn a_rule_that_says_less_than_its_author_meant_is_refused_with_its_line() {
    let cases = [
        ("metod = \"b\"", "test.toml:4: unknown key \"metod\" in policy.rule: did you mean \"method\"?"),
        ("levl = \"user\"", "did you mean \"level\"?"),
        ("level = \"root\"", "test.toml:4: policy.rule.level = \"root\": one of \"system\", \"user\""),
        ("from = \"guest\"", "one of \"host\", \"user\""),
        ("user = []", "policy.rule.user = []: an empty list matches nothing"),
        ("user = \"\"", "a user's name"),
        ("user = 99999999999", "a uid is at most 4294967294"),
        ("user = \"4294967295\"", "a uid is at most 4294967294"),
        ("user = \"@active\"", "@active"),
        ("path = \"etc/passwd\"", "policy.rule.path = \"etc/passwd\": an absolute path"),
        ("path = [\"/a\", \"/b/\"]", "policy.rule.path = \"/b/\": no resolved path ends with a slash"),
        ("path = 3", "an absolute path or glob"),
        ("params = {}", "parameters and their values"),
        ("params = { mode = [] }", "policy.rule.params.mode = []: an empty list matches nothing"),
        ("params = { mode = 1.5 }", "policy.rule.params.mode = 1.5: a string, a whole number"),
        (
            "comment = \"a\"\nreason = \"b\"",
            "test.toml:5: policy.rule.reason = \"b\": comment and reason mean the same",
        ),
        ("comment = \"a\\nb\"", "one line"),
    ];
    for (rule, expected) in cases {
        let error = rule_error(rule);
        assert!(error.contains(expected), "{rule}\n{error}");
    }
    assert!(error_of("[[policy.rule]]\nmethod = \"a\"").contains("test.toml:1: this rule has no action"));
    assert!(error_of("[[policy.rule]]\naction = \"deny\"").contains("write method = \"*\""));
    assert!(error_of("[[policy.rule]]\naction = \"allow all\"").contains("one of \"allow\", \"deny\""));
    assert!(error_of("[policy]\ndefault = \"maybe\"").contains("test.toml:2: policy.default = \"maybe\""));
    assert!(
        error_of("[policy]\nrule = [\n\"allow\" ]").contains("test.toml:3: policy.rule = \"allow\": a rule in braces")
    );
    assert!(error_of("[policy]\nrule = \"allow\"").contains("[[policy.rule]] tables"));
}

#[test]
fn every_example_of_the_guide_is_a_configuration() {
    let mut examples = 0;
    for block in GUIDE.split("```toml\n").skip(1) {
        let (text, _) = block.split_once("```").unwrap();
        let parsed = config::parse_str("docs/policy.md", text);
        assert!(parsed.is_ok(), "{}\n{text}", parsed.unwrap_err());
        if text.starts_with("# ~/.config") {
            assert!(parse_str("docs/policy.md", text).is_ok(), "a user's file: {text}");
        }
        examples += 1;
    }
    assert_eq!(examples, GUIDE.matches("```").count() / 2, "an example without a language is not checked");
    assert!(examples >= 10);
}

/// The packaged file's line numbers change with every comment in it, which is no reason to change the guide.
fn without_lines(text: &str) -> String {
    let mut parts = text.split("virtagentd.toml:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + "virtagentd.toml:" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn the_guides_policy_test_is_what_it_prints() {
    let file = "/etc/virtagent/virtagentd.toml";
    let policy = config::parse_str(file, PACKAGED).unwrap().policy;
    let on = paths(&["/etc/shadow"]);
    let mode = params([("mode", "read".into())]);
    let query = Query { paths: &on, ..Query::new("file.open", Level::System, From::Host, &mode) };
    let printed = without_lines(&explain(&policy, &query).to_string());
    let guide = without_lines(GUIDE);
    let (_, shown) = guide.split_once("$ virtagentd policy test ").unwrap();
    for line in shown.lines().skip(1).map_while(|line| line.strip_prefix("    ")).filter(|line| line.trim() != "...") {
        assert!(printed.lines().any(|printed| printed == line), "the guide shows\n{line}\nbut it prints\n{printed}");
    }
    let refusal = policy.judge(&Query::new("exec.run", Level::System, From::Host, &mode)).fault("exec.run").message;
    assert!(guide.contains(&without_lines(&refusal)), "the guide does not show: {refusal}");
}

#[test]
fn an_explanation_lists_the_rules_up_to_the_one_that_decided() {
    let owner = policy(
        "[policy]\ndefault = \"deny\"\nrule = [\n{ action = \"deny\", method = \"x\" },\n\
         { action = \"allow\", method = \"a\", user = \"bob\" },\n{ action = \"allow\", method = \"a\" },\n\
         { action = \"deny\", method = \"a\" },\n]",
    );
    let users = parse_str("mine.toml", "[[policy.rule]]\naction = \"deny\"\nmethod = \"a\"\ncomment = \"no\"").unwrap();
    let policy = owner.narrow(users);
    let none = Struct::new();
    let query = Query { user: Some("alice"), uid: Some(1000), ..Query::new("a", Level::User, From::Host, &none) };
    let explanation = explain(&policy, &query);
    assert!(!explanation.allow);
    assert_eq!(explanation.decided_by, policy.judge(&query).decided_by);
    assert_eq!(explanation.comment.as_deref(), Some("no"));
    let [owners, mine] = explanation.judgements.as_slice() else { panic!("{explanation:?}") };
    assert!(owners.allow && !mine.allow);
    let reasons: Vec<_> = owners.considered.iter().map(|rule| (rule.matched, rule.why_not.as_deref())).collect();
    assert_eq!(reasons, [(false, Some("method is not x")), (false, Some("user is not bob")), (true, None)]);
    let text = explanation.to_string();
    assert!(
        text.starts_with("denied: a at user level, from the host, user alice\ndecided by rule 1 (mine.toml:1): no")
    );
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["judgements"][0]["considered"][1]["why_not"], "user is not bob");
}

fn wants_paths(policy: &Policy, method: &str, level: Level, user: Option<&str>, from: From) -> bool {
    let params = Struct::new();
    policy.wants_paths(&Query { user, ..Query::new(method, level, from, &params) })
}
