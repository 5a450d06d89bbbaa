//! The guest owner's word: rules by path, level and user, and what a user adds.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::PathBuf;

use agent_core::rpc::{Fault, FaultCode};
use anyhow::Result;
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};
use virtagent_tests::local::{Guest, Host, Setup, account, is_root};

use crate::support::refused;

pub(crate) const SECRET: &str = "nothing that the host may see";

pub(crate) async fn call(host: &Host, user: Option<&str>, method: &str, params: Json) -> Result<Json, Fault> {
    match user {
        Some(user) => host.call_as(user, method, params).await,
        None => host.call(method, params).await,
    }
}

/// A guest with a folder that the host may use, and one that it may not; both are nobody's.
pub(crate) struct Folders {
    pub guest: Guest,
    pub open: PathBuf,
    pub secret: PathBuf,
}

pub(crate) fn folders() -> Result<Folders> {
    let guest = Setup::default().prepare()?;
    let (open, secret) = (guest.path("open"), guest.path("secret"));
    let rules = format!(
        "[policy]\ndefault = \"deny\"\nrule = [\n\
         {{ action = \"deny\", method = \"file.*\", path = \"{0}{{,/**}}\", comment = \"ask the owner\" }},\n\
         {{ action = \"allow\", method = \"file.*\", path = \"{1}{{,/**}}\" }},\n\
         {{ action = \"allow\", method = [\"va.ping\", \"va.capabilities\", \"va.cancel\", \"file.read\", \"file.write\", \"file.close\"] }},\n]\n",
        secret.display(),
        open.display(),
    );
    guest.configure(&rules)?;
    for folder in [&open, &secret] {
        guest.folder_of("nobody", folder)?;
    }
    let nobody = account("nobody")?;
    for (file, content) in [(secret.join("file"), SECRET), (open.join("file"), "for everybody")] {
        std::fs::write(&file, content)?;
        chown(&file, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw()))?;
    }
    let mut guest = guest;
    guest.start_system()?;
    Ok(Folders { guest, open, secret })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_rule_file_and_line_and_the_owners_comment() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let Folders { guest, secret, .. } = folders()?;
    let host = guest.host().await?;
    let at = |line: u32| format!("{}:{line}", guest.config_file().display());
    let params = json!({"path": secret.join("file"), "mode": "read"});
    let fault = refused(host.call("file.open", params.clone()).await, FaultCode::Denied);
    assert!(fault.message.contains("rule 1") && fault.message.contains(&at(4)), "{fault}");
    assert!(fault.message.contains("ask the owner"), "{fault}");
    let data = virtagent_tests::local::json(&fault.data.clone().expect("data"));
    assert_eq!((data["rule"].as_i64(), data["line"].as_i64()), (Some(1), Some(4)));
    let fault = refused(host.call("exec.run", json!({"argv": ["id"]})).await, FaultCode::Denied);
    assert!(fault.message.contains("policy.default") && fault.message.contains(&at(2)), "{fault}");
    // The tool says the same, and so does the log.
    let path = format!("path={}", secret.join("file").display());
    let said = guest.tool(&["policy", "test", "file.open", &path, "mode=read"])?;
    assert_eq!(said.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&said.stdout).contains(&at(4)), "{}", String::from_utf8_lossy(&said.stdout));
    guest.audited("the refusal", |record| {
        record["verdict"] == "deny" && record["rule"].as_str().is_some_and(|rule| rule.contains(&at(4)))
    })?;
    Ok(())
}

fn own_policy(guest: &Guest, user: &str, text: &str) -> Result<()> {
    let account = account(user)?;
    let folder = guest.home(user).join(".config/virtagent");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join("policy.toml");
    std::fs::write(&file, text)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
    for path in [guest.home(user).join(".config"), folder, file] {
        chown(path, Some(account.uid.as_raw()), Some(account.gid.as_raw()))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_narrows_what_the_host_may_do_as_them_and_no_other_user_feels_it() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Setup::default().homes().start()?;
    let private = guest.home("nobody").join("private");
    let narrow = format!(
        "[policy]\nrule = [\n  {{ action = \"deny\", method = \"exec.*\", comment = \"mine\" }},\n  \
         {{ action = \"deny\", method = \"file.*\", path = \"{}{{,/**}}\" }},\n]\n",
        private.display()
    );
    own_policy(&guest, "nobody", &narrow)?;
    guest.folder_of("nobody", &private)?;
    std::fs::write(private.join("file"), SECRET)?;
    std::fs::set_permissions(private.join("file"), std::fs::Permissions::from_mode(0o644))?;
    symlink(&private, guest.home("nobody").join("innocent"))?;
    let (_nobody, _games) = (guest.user("nobody")?, guest.user("games")?);
    let host = guest.host().await?;
    let run = json!({"argv": ["id", "-un"]});
    let fault = refused(host.call_as("nobody", "exec.run", run.clone()).await, FaultCode::Denied);
    assert!(fault.message.contains("policy.toml:3") && fault.message.contains("mine"), "{fault}");
    for path in ["private/file", "innocent/file", "./innocent/../private/file"] {
        refused(host.call_as("nobody", "file.open", json!({"path": path, "mode": "read"})).await, FaultCode::Denied);
    }
    host.call_as("nobody", "file.list", json!({"path": "."})).await?;
    assert_eq!(host.call_as("games", "exec.run", run.clone()).await?["exit_code"], 0);
    assert_eq!(host.call("exec.run", run).await?["exit_code"], 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_can_not_widen_what_the_owner_allows() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let owner =
        "[policy]\ndefault = \"deny\"\nrule = [\n{ action = \"allow\", method = [\"va.*\", \"file.stat\"] },\n]\n";
    let guest = Setup::default().homes().config(owner).start()?;
    own_policy(&guest, "nobody", "[policy]\ndefault = \"allow\"\nrule = [{ action = \"allow\", method = \"*\" }]\n")?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let fault = refused(host.call_as("nobody", "exec.run", json!({"argv": ["id"]})).await, FaultCode::Denied);
    assert!(fault.message.contains("virtagentd.toml:2"), "{fault}");
    host.call_as("nobody", "file.stat", json!({"path": "/etc/hostname"})).await?;
    Ok(())
}

#[test]
fn a_users_policy_with_a_defect_keeps_the_daemon_from_starting_and_says_where() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Setup::default().homes().start()?;
    own_policy(&guest, "nobody", "[policy]\nrule = [\n{ action = \"deni\", method = \"exec.*\" },\n]\n")?;
    let mut command = guest.user_command("nobody", &["-p"])?;
    command.arg(guest.user_socket());
    let mut daemon = virtagent_tests::local::Daemon::spawn("nobody", guest.dir(), command)?;
    assert_eq!(daemon.ended(virtagent_tests::local::LIMIT)?.code(), Some(1));
    assert!(daemon.log().contains("policy.toml:3"), "{}", daemon.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_the_policy_and_a_broken_file_leaves_the_old_one() -> Result<()> {
    let mut guest = Guest::start()?;
    let host = guest.host().await?;
    let run = json!({"argv": ["true"]});
    host.call("exec.run", run.clone()).await?;
    let running = host.start(None, "exec.run", json!({"argv": ["sleep", "0.5"]}));
    guest.audited("the running call", |record| record["params"].to_string().contains("0.5"))?;
    let deny = "[policy]\ndefault = \"allow\"\nrule = [\n{ action = \"deny\", method = \"exec.*\" },\n]\n";
    guest.reload(deny)?;
    refused(host.call("exec.run", run.clone()).await, FaultCode::Denied);
    assert_eq!(running.await??["exit_code"], 0, "what runs goes on");
    for broken in ["[policy]\ndefault = \"alow\"\n", "[policy\n", "[[policy.rule]]\naction = \"allow\"\n", "\u{0}"] {
        guest.configure(broken)?;
        let before = guest.system().log().matches("the old policy stays").count();
        guest.system().signal(Signal::SIGHUP)?;
        guest.system().said_times("the old policy stays", before + 1)?;
        refused(host.call("exec.run", run.clone()).await, FaultCode::Denied);
        host.call("file.stat", json!({"path": "/"})).await?;
    }
    // One that somebody else could have written is as good as broken.
    guest.configure("[policy]\ndefault = \"allow\"\n")?;
    std::fs::set_permissions(guest.config_file(), std::fs::Permissions::from_mode(0o666))?;
    let before = guest.system().log().matches("the old policy stays").count();
    guest.system().signal(Signal::SIGHUP)?;
    guest.system().said_times("the old policy stays", before + 1)?;
    refused(host.call("exec.run", run.clone()).await, FaultCode::Denied);
    guest.reload("[policy]\ndefault = \"allow\"\n")?;
    host.call("exec.run", run).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_tell_levels_and_users_apart_by_name_and_number() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let games = account("games")?.uid;
    let rules = format!(
        "[policy]\ndefault = \"deny\"\nrule = [\n{{ action = \"allow\", method = \"va.*\" }},\n\
         {{ action = \"allow\", method = \"exec.*\", level = \"user\", user = [\"nobody\"] }},\n\
         {{ action = \"allow\", method = \"file.stat\", user = [{games}] }},\n]\n"
    );
    let guest = Setup::default().config(&rules).start()?;
    let (_nobody, _games) = (guest.user("nobody")?, guest.user("games")?);
    let host = guest.host().await?;
    let (run, stat) = (json!({"argv": ["true"]}), json!({"path": "/"}));
    for name in ["nobody", "65534"] {
        host.call_as(name, "exec.run", run.clone()).await?;
        refused(host.call_as(name, "file.stat", stat.clone()).await, FaultCode::Denied);
    }
    for name in ["games", &games.to_string()] {
        host.call_as(name, "file.stat", stat.clone()).await?;
        refused(host.call_as(name, "exec.run", run.clone()).await, FaultCode::Denied);
    }
    refused(host.call("exec.run", run).await, FaultCode::Denied);
    refused(host.call("file.stat", stat).await, FaultCode::Denied);
    let many =
        json!([[{"methodName": "exec.run", "params": [{"argv": ["true"]}]}, {"methodName": "va.ping", "params": []}]]);
    refused(host.call("system.multicall", many).await, FaultCode::Denied);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_daemon_reads_its_users_policy_again_on_sighup_and_keeps_the_old_one_when_it_is_broken() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Setup::default().homes().start()?;
    let mut nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let run = json!({"argv": ["true"]});
    host.call_as("nobody", "exec.run", run.clone()).await?;
    own_policy(&guest, "nobody", "[policy]\nrule = [{ action = \"deny\", method = \"exec.*\" }]\n")?;
    nobody.signal(Signal::SIGHUP)?;
    nobody.said("policy reloaded")?;
    refused(host.call_as("nobody", "exec.run", run.clone()).await, FaultCode::Denied);
    own_policy(&guest, "nobody", "[policy")?;
    nobody.signal(Signal::SIGHUP)?;
    nobody.said("the old policy stays")?;
    refused(host.call_as("nobody", "exec.run", run).await, FaultCode::Denied);
    Ok(())
}
