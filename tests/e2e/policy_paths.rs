//! Tricks against path rules: symlinks, dots, and swaps while a file is opened.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Host, account, is_root};

use crate::policy::{Folders, SECRET, call, folders};
use crate::support::text;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_symlink_and_no_dots_lead_around_a_path_rule_at_either_level() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let Folders { guest, open, secret } = folders()?;
    symlink(&secret, open.join("folder"))?;
    symlink(secret.join("file"), open.join("link"))?;
    symlink("link", open.join("chain"))?;
    symlink("../secret/file", open.join("relative"))?;
    symlink("/proc/self/root", open.join("root"))?;
    symlink("loop", open.join("loop"))?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let (open_text, secret_text) = (open.display().to_string(), secret.display().to_string());
    let dir = guest.dir().display().to_string();
    let deep = "a/../".repeat(300);
    let tricks = [
        format!("{open_text}/link"),
        format!("{open_text}/chain"),
        format!("{open_text}/relative"),
        format!("{open_text}/folder/file"),
        format!("{open_text}/folder/../secret/file"),
        format!("{open_text}/../secret/file"),
        format!("{open_text}/./..//secret/./file"),
        format!("{open_text}/nothing/../../secret/file"),
        format!("{open_text}/root{secret_text}/file"),
        format!("/proc/self/root{secret_text}/file"),
        format!("/proc/self/cwd/..{secret_text}/file"),
        format!("/dev/../{secret_text}/file"),
        format!("//{secret_text}//file"),
        format!("{secret_text}/file/"),
        format!("{secret_text}/{deep}file"),
        format!("{dir}/secret/file/../../secret/file"),
        format!("{open_text}/loop"),
        format!("{open_text}/\u{0}/../secret/file"),
        format!("{open_text}\n{secret_text}/file"),
        "../secret/file".to_owned(),
        "~nobody/../secret/file".to_owned(),
    ];
    for user in [None, Some("nobody")] {
        for trick in &tricks {
            for (method, params) in [
                ("file.open", json!({"path": trick, "mode": "read"})),
                ("file.open", json!({"path": trick, "mode": "append"})),
                ("file.open", json!({"path": trick, "mode": "replace"})),
                ("file.stat", json!({"path": trick})),
                ("file.digest", json!({"path": trick})),
                ("va.getfile", json!({"path": trick})),
                ("file.rename", json!({"from": trick, "to": format!("{open_text}/mine")})),
                ("file.rename", json!({"from": format!("{open_text}/file"), "to": format!("{trick}-2")})),
            ] {
                // Names of links themselves may be moved, made over, or looked at: those are the open folder's own.
                let of_the_link = trick.starts_with(&open_text) && !trick[open_text.len() + 1..].contains('/');
                if of_the_link && (method == "file.rename" || params["mode"] == "replace") {
                    continue;
                }
                let outcome = call(&host, user, method, params).await;
                let fault = outcome.err().unwrap_or_else(|| panic!("{method} {trick:?} as {user:?} went through"));
                // Where a link leads stays in the guest.
                let tells = fault.message.contains(&secret_text) && !fault.message.contains("virtagentd.toml");
                assert!(!tells || trick.contains(&secret_text), "{method} {trick:?}: {fault}");
            }
        }
    }
    assert_eq!(std::fs::read_to_string(secret.join("file"))?, SECRET);
    assert_eq!(std::fs::read_dir(&secret)?.count(), 1, "nothing was put there");
    // And what is allowed goes through all of that machinery.
    let path = format!("{open_text}/./../open//file");
    for user in [None, Some("nobody")] {
        let open = call(&host, user, "file.open", json!({"path": path, "mode": "read"})).await?;
        let read = call(&host, user, "file.read", json!({"handle": open["handle"]})).await?;
        assert_eq!(text(&read["data"]), "for everybody");
    }
    Ok(())
}

/// Renames one of two things over a name, again and again, until it is dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Swapper {
    fn start(name: PathBuf, make: impl Fn(bool, &Path) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut swaps = 0;
            while !flag.load(Ordering::Relaxed) {
                let beside = name.with_extension("next");
                make(swaps % 2 == 0, &beside);
                // RENAME_EXCHANGE works for folders too.
                let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                let (here, there) = (beside.as_path(), name.as_path());
                let swapped = nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, here, nix::fcntl::AT_FDCWD, there, exchange);
                if swapped.is_ok() {
                    swaps += 1;
                }
            }
            swaps
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let swaps = thread.join().unwrap_or_default();
            assert!(swaps > 20 || std::thread::panicking(), "only {swaps} swaps: that was no race");
        }
    }
}

/// Opens and reads that path for a while; gives how often it went through.
async fn race(host: &Host, user: Option<&str>, path: &Path) -> Result<(u32, u32)> {
    let (mut through, mut refused) = (0, 0);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1_200) {
        match call(host, user, "file.open", json!({"path": path, "mode": "read"})).await {
            Ok(open) => {
                let read = call(host, user, "file.read", json!({"handle": open["handle"]})).await?;
                assert_ne!(text(&read["data"]), SECRET, "after {through} reads as {user:?}");
                call(host, user, "file.close", json!({"handle": open["handle"]})).await?;
                through += 1;
            }
            Err(_) => refused += 1,
        }
        if let Ok(digest) = call(host, user, "file.digest", json!({"path": path})).await {
            assert_ne!(digest["size"], SECRET.len(), "digested as {user:?}");
        }
    }
    Ok((through, refused))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symlink_that_is_swapped_in_while_a_file_is_opened_never_opens_the_secret() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let Folders { guest, open, secret } = folders()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let nobody = account("nobody")?;
    let (name, target) = (open.join("swapped"), secret.join("file"));
    std::fs::write(&name, "harmless")?;
    symlink(&target, name.with_extension("next"))?;
    chown(&name, Some(nobody.uid.as_raw()), None)?;
    let swapper = Swapper::start(name.clone(), |_, _| {});
    for user in [None, Some("nobody")] {
        let (through, refused) = race(&host, user, &name).await?;
        eprintln!("as {user:?}: {through} reads went through, {refused} were refused");
        assert!(through > 0, "a harmless file is never read");
    }
    drop(swapper);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_is_swapped_for_a_symlink_while_a_file_is_opened_never_opens_the_secret() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let Folders { guest, open, secret } = folders()?;
    let _nobody = guest.user("nobody")?;
    let host = guest.host().await?;
    let name = open.join("folder");
    guest.folder_of("nobody", &name)?;
    std::fs::write(name.join("file"), "harmless")?;
    std::fs::set_permissions(name.join("file"), std::fs::Permissions::from_mode(0o644))?;
    symlink(&secret, name.with_extension("next"))?;
    let swapper = Swapper::start(name.clone(), |_, _| {});
    for user in [None, Some("nobody")] {
        let (through, refused) = race(&host, user, &name.join("file")).await?;
        eprintln!("as {user:?}: {through} reads went through, {refused} were refused");
        assert!(through > 0, "a harmless file is never read");
    }
    drop(swapper);
    Ok(())
}
