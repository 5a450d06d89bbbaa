//! The configuration as its files make it: real files, real owners and modes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::module::Level;
use crate::policy::{From, Query};
use crate::rpc::Struct;

/// A folder that stands for /etc/virtagent.
struct Etc(TempDir);

impl Etc {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path
    }

    /// As if this were the default place.
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load_as(None, &self.path("virtagentd.toml"), geteuid())
    }

    fn load_user(&self) -> Result<Config, ConfigError> {
        Config::load_user_as(None, &self.path("virtagentd.toml"), &self.path("home"), geteuid())
    }
}

fn error_of(text: &str) -> String {
    parse_str("test.toml", text).expect_err(text).to_string()
}

fn allows(config: &Config, method: &str, level: Level) -> bool {
    let params = Struct::new();
    config.policy.judge(&Query::new(method, level, From::Host, &params)).allow
}

#[test]
fn the_packaged_file_says_what_the_code_defaults_to() {
    let config = Config::packaged().unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.audit, AuditConfig::default());
    assert_eq!(config.modules, Modules::default());
    assert_eq!(config.sources, [PACKAGED_LABEL]);
    assert!(config.module.is_empty());
}

#[test]
fn an_empty_file_keeps_the_defaults_but_allows_nothing() {
    let config = parse_str("test.toml", "").unwrap();
    assert_eq!(config.limits, Limits::default());
    assert!(!allows(&config, "va.ping", Level::System));
}

#[test]
fn an_absent_default_file_means_the_packaged_defaults() {
    let etc = Etc::new();
    let config = etc.load().unwrap();
    assert_eq!(config.sources, [PACKAGED_LABEL]);
    assert!(allows(&config, "info.get", Level::System));
}

#[test]
fn a_named_file_that_is_absent_is_an_error() {
    let error = Config::load(Some(Path::new("/nonexistent/virtagentd.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/virtagentd.toml: there is no such file"), "{error}");
}

#[test]
fn drop_ins_apply_to_the_packaged_defaults_too() {
    let etc = Etc::new();
    etc.write("conf.d/10-limits.toml", "[limits]\nbody = \"4MiB\"");
    let config = etc.load().unwrap();
    assert_eq!(config.limits.body, 4 << 20);
    assert_eq!(config.sources.len(), 2);
    assert!(allows(&config, "info.get", Level::System));
}

#[test]
fn the_last_drop_in_wins_for_settings() {
    let etc = Etc::new();
    etc.write("virtagentd.toml", "[limits]\nbody = \"1MiB\"\nhead = 8192\n[module.files]\na = 1\nb = { c = 1, d = 1 }");
    etc.write("conf.d/10-a.toml", "[limits]\nbody = \"3MiB\"\n[module.files]\nb.d = 2");
    etc.write("conf.d/20-b.toml", "[limits]\nbody = 5242880\n[modules]\nenabled = [\"info\"]");
    let config = etc.load().unwrap();
    assert_eq!(config.limits.body, 5 << 20);
    assert_eq!(config.limits.head, 8192);
    assert_eq!(config.modules.enabled, ["info"]);
    let expected: toml::Table = "a = 1\nb = { c = 1, d = 2 }".parse().unwrap();
    assert_eq!(config.module_settings("files"), expected);
    assert!(config.module_at["files"].ends_with("10-a.toml:3"), "{:?}", config.module_at);
    assert!(config.module_settings("exec").is_empty());
}

#[test]
fn drop_ins_lie_beside_a_named_file() {
    let etc = Etc::new();
    let file = etc.write("other/my.toml", "");
    etc.write("other/conf.d/x.toml", "[limits]\ncalls_host = 7");
    assert_eq!(Config::load(Some(&file)).unwrap().limits.calls_host, 7);
}

#[test]
fn a_drop_ins_rules_come_before_the_main_files_and_its_default_wins() {
    let etc = Etc::new();
    let rule = |action: &str, method: &str| format!("[[policy.rule]]\naction = \"{action}\"\nmethod = \"{method}\"\n");
    etc.write("virtagentd.toml", &format!("[policy]\ndefault = \"allow\"\n{}", rule("allow", "a.*")));
    etc.write("conf.d/20-b.toml", &format!("[policy]\ndefault = \"deny\"\n{}", rule("allow", "a.b")));
    etc.write("conf.d/10-a.toml", &rule("deny", "a.b"));
    let config = etc.load().unwrap();
    assert!(!allows(&config, "a.b", Level::System));
    assert!(allows(&config, "a.c", Level::System));
    assert!(!allows(&config, "x.y", Level::System));
    let params = Struct::new();
    let by = config.policy.judge(&Query::new("a.b", Level::User, From::Host, &params)).decided_by;
    assert!(by.starts_with("rule 1 (") && by.ends_with("conf.d/10-a.toml:1)"), "{by}");
}

#[test]
fn what_editors_and_package_managers_leave_behind_is_no_drop_in() {
    let etc = Etc::new();
    for name in ["conf.d/.hidden.toml", "conf.d/a.toml~", "conf.d/a.toml.dpkg-new", "conf.d/README"] {
        etc.write(name, "nonsense");
    }
    etc.load().unwrap();
}

#[test]
fn a_file_that_others_may_write_is_refused_with_the_command_that_helps() {
    let etc = Etc::new();
    for (name, mode) in [("virtagentd.toml", 0o646), ("conf.d/a.toml", 0o666)] {
        let path = etc.write(name, "");
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = etc.load().unwrap_err().to_string();
        assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.contains("-w ") && error.ends_with(&path.display().to_string()), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(etc.path("conf.d"), Permissions::from_mode(0o777)).unwrap();
    assert!(etc.load().unwrap_err().to_string().contains("chmod"));
}

#[test]
fn root_refuses_what_another_user_owns_or_a_group_may_write() {
    let (root, alice, bob) = (Uid::from_raw(0), Uid::from_raw(1000), Uid::from_raw(1001));
    let path = Path::new("/etc/x.toml");
    let refusal = |trust: Trust, owner, mode| trust.check(path, owner, mode).err().map(|error| error.to_string());
    let chown = refusal(Trust::configuration(root), alice, 0o644).unwrap();
    assert_eq!(chown, "/etc/x.toml: owned by uid 1000, must be root's: chown 0 /etc/x.toml");
    let chmod = refusal(Trust::configuration(root), root, 0o664).unwrap();
    assert_eq!(chmod, "/etc/x.toml: mode 0664 lets its group or others write it: chmod go-w /etc/x.toml");
    assert_eq!(refusal(Trust::configuration(root), root, 0o644), None);
    assert_eq!(refusal(Trust::configuration(alice), root, 0o644), None);
    assert_eq!(refusal(Trust::configuration(alice), alice, 0o664), None);
    assert!(refusal(Trust::users_own(alice), bob, 0o600).unwrap().contains("root or uid 1000"));
    assert!(refusal(Trust::users_own(alice), alice, 0o602).unwrap().contains("chmod o-w"));
    assert_eq!(refusal(Trust::users_own(alice), root, 0o644), None);
}

#[test]
fn a_file_of_another_user_is_refused_on_a_real_disk() {
    if !geteuid().is_root() {
        return;
    }
    let etc = Etc::new();
    let path = etc.write("virtagentd.toml", "");
    chown(&path, Some(65_534), None).unwrap();
    assert!(etc.load().unwrap_err().to_string().contains("owned by uid 65534"));
}

#[test]
fn what_is_no_regular_file_is_refused_and_does_not_hang() {
    let etc = Etc::new();
    let path = etc.path("virtagentd.toml");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert!(etc.load().unwrap_err().to_string().contains("no regular file"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(etc.load().is_err());
}

#[test]
fn a_symlink_to_nothing_is_an_error_and_no_absent_file() {
    for name in ["virtagentd.toml", "conf.d", "conf.d/a.toml", "home/.config/virtagent/policy.toml"] {
        let etc = Etc::new();
        let link = etc.path(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink("/nonexistent", &link).unwrap();
        let error = etc.load_user().expect_err(name).to_string();
        assert!(error.starts_with(&link.display().to_string()), "{error}");
    }
}

#[test]
fn a_users_policy_narrows_the_owners_and_is_among_the_sources() {
    let etc = Etc::new();
    let file = etc.write(
        "home/.config/virtagent/policy.toml",
        "[[policy.rule]]\naction = \"deny\"\nmethod = \"exec.*\"\n[[policy.rule]]\naction = \"allow\"\nmethod = \"*\"\n",
    );
    let config = etc.load_user().unwrap();
    assert!(!allows(&config, "exec.run", Level::User));
    assert!(allows(&config, "file.open", Level::User));
    assert!(!allows(&config, "clipboard.get", Level::User), "an allow of the user's must not widen");
    assert_eq!(config.sources.last().unwrap(), &file.display().to_string());
    assert_eq!(config.audit.file, etc.path("home/.local/state/virtagent/audit.jsonl"));
}

#[test]
fn a_users_policy_holds_nothing_but_policy_and_a_broken_one_is_an_error() {
    let etc = Etc::new();
    assert!(etc.load_user().is_ok());
    etc.write("home/.config/virtagent/policy.toml", "[limits]\nbody = 1");
    let error = etc.load_user().unwrap_err().to_string();
    assert!(error.contains("policy.toml:1: unknown key \"limits\"") && error.contains("known: policy"), "{error}");
    let path = etc.write("home/.config/virtagent/policy.toml", "");
    fs::set_permissions(&path, Permissions::from_mode(0o606)).unwrap();
    assert!(etc.load_user().unwrap_err().to_string().contains("chmod o-w"));
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    assert_eq!(
        error_of("[limits]\nbdy = 1"),
        "test.toml:2: unknown key \"bdy\" in limits: did you mean \"body\"? \
         (known: head, body, calls_per_session, calls_host, frame_timeout, default_timeout)"
    );
    assert!(
        error_of("\n[limts]").starts_with("test.toml:2: unknown key \"limts\" at the top: did you mean \"limits\"?")
    );
    assert!(
        error_of("[policy]\n\nrules = []")
            .contains("test.toml:3: unknown key \"rules\" in policy: did you mean \"rule\"?")
    );
    let far = error_of("[limits]\nsomething_else = 1");
    assert!(far.contains("unknown key") && !far.contains("did you mean"), "{far}");
}

#[test]
fn a_wrong_value_is_shown_with_what_is_allowed() {
    let cases = [
        ("[limits]\nbody = \"32MiB\"", "test.toml:2: limits.body = \"32MiB\": a size from 64KiB to 16MiB, such as"),
        ("[limits]\nbody = 16777217", "a size from 64KiB to 16MiB"),
        ("[limits]\nhead = -1", "limits.head = -1: a size from 1KiB to 64KiB"),
        ("[limits]\ncalls_host = 0", "limits.calls_host = 0: a whole number from 1 to 65536"),
        ("[limits]\nframe_timeout = 30", "limits.frame_timeout = 30: a duration from 1s to 1h, such as \"30s\""),
        ("[limits]\nframe_timeout = \"0s\"", "a duration from 1s to 1h"),
        ("[limits]\ndefault_timeout = \"2 fortnights\"", "or \"0s\" for none"),
        ("limits = 3", "test.toml:1: limits = 3: a table of settings"),
        ("[audit]\njournal = \"yes\"", "audit.journal = \"yes\": true or false"),
        ("[audit]\nsync = 1", "true or false"),
        ("[audit]\nfile = \"audit.jsonl\"", "an absolute path"),
        ("[audit]\ncount = [\"va.ping\", \"a b\"]", "audit.count = \"a b\": a method or a glob"),
        ("[audit]\nkeep = 0", "from 1 to 1000"),
        ("[modules]\nenabled = \"files\"", "a list of module names"),
        ("[modules]\nenabled = [\"files\", \"files\"]", "modules.enabled = \"files\": named twice"),
        ("[modules]\nenabled = [\"Files!\"]", "a-z 0-9 - _"),
        ("[module]\nfiles = 1", "test.toml:2: module.files = 1: a table of settings"),
        ("[limits\n", "test.toml:1: not TOML:"),
        ("a = 1\na = 2", "test.toml:2: not TOML: duplicate key"),
    ];
    for (text, expected) in cases {
        let error = error_of(text);
        assert!(error.contains(expected), "{text}\n{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn zero_means_none_where_the_file_says_so() {
    let config = parse_str("x", "[limits]\ndefault_timeout = \"0s\"\n[audit]\nrotate_size = 0\ncount = []").unwrap();
    assert_eq!(config.limits.default_timeout, Duration::ZERO);
    assert_eq!(config.audit.rotate_size, 0);
    assert!(config.audit.count.is_empty());
}

#[test]
fn what_is_too_large_is_refused_before_it_is_parsed() {
    assert!(error_of(&"#".repeat((1 << 20) + 1)).contains("1 MiB"));
    let etc = Etc::new();
    etc.write("virtagentd.toml", &"#".repeat((1 << 20) + 1));
    assert!(etc.load().unwrap_err().to_string().contains("1 MiB"));
    let rules = "[[policy.rule]]\naction=\"deny\"\nmethod=\"a\"\n".repeat(4097);
    assert!(error_of(&rules).contains("test.toml:12289: more than 4096 rules"));
    etc.write("virtagentd.toml", &rules[..rules.len() / 4097 * 4096]);
    assert_eq!(etc.load().unwrap().policy.rule_count(), 4096);
    etc.write("conf.d/one-more.toml", "[[policy.rule]]\naction=\"deny\"\nmethod=\"a\"");
    assert!(etc.load().unwrap_err().to_string().contains("4097 rules; 4096"));
}

#[test]
fn absurd_depth_is_refused_and_the_deepest_that_is_read_does_no_harm() {
    assert!(error_of(&format!("{}a = 1", "a.".repeat(500_000))).contains("too deep"));
    assert!(error_of(&format!("[{}a]", "a.".repeat(500_000))).contains("too deep"));
    assert!(error_of(&format!("a = {}", "[".repeat(100_000))).contains("too deep"));
    let key = format!("module{}", ".a".repeat(16));
    for levels in 1..100 {
        let value = format!("{}1{}", format!("{{{key} = ").repeat(levels), "}".repeat(levels));
        let _ = parse_str("test.toml", &format!("{key} = {value}"));
    }
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_with_its_line() {
    let etc = Etc::new();
    let path = etc.write("virtagentd.toml", "");
    fs::write(&path, b"# one\n# t\xff\n").unwrap();
    assert!(etc.load().unwrap_err().to_string().contains("virtagentd.toml:2: not UTF-8"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_panics(text in "(\\PC|\n){0,200}") {
        let _ = parse_str("x", &text);
        let _ = crate::policy::parse_str("x", &text);
    }

    #[test]
    fn no_mutilated_packaged_file_panics(from in 0..PACKAGED.len(), length in 0..400_usize, put in "[\\[\\]{}=\",.#a\n]{0,8}") {
        let mut bytes = PACKAGED.as_bytes().to_vec();
        let to = (from + length).min(bytes.len());
        bytes.splice(from..to, put.bytes());
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = parse_str("x", &text);
        }
    }
}
