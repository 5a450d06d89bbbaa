//! `replace`: the new file is seen whole or not at all.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::rpc::FaultCode;

use super::*;

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn a_reader_sees_the_old_or_the_new_file_and_never_a_part() {
    let lab = Lab::new();
    let path = lab.write("a", vec![0; 300_000]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !done.load(Ordering::Acquire) {
                let content = std::fs::read(&path).unwrap();
                assert_eq!(content.len(), 300_000);
                assert!(content.iter().all(|byte| *byte == content[0]), "a mixture was seen");
                seen.insert(content[0]);
            }
            seen
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for round in 1..=20 {
                let handle = lab.open(&path, "replace").await;
                for _ in 0..3 {
                    lab.write_to(handle, &vec![round; 100_000]).await;
                }
                lab.close(handle).await.unwrap();
            }
        });
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap().len() > 1);
    });
    assert_eq!(lab.names(), ["a"]);
}

#[tokio::test]
async fn until_the_close_there_is_a_temporary_that_only_its_owner_reads() {
    let lab = Lab::new();
    let path = lab.write("notes.txt", "old");
    let handle = lab.open(&path, "replace").await;
    lab.write_to(handle, b"new").await;
    let names = lab.names();
    let temporary = names.iter().find(|name| name.starts_with(".notes.txt.virtagent-")).unwrap();
    assert_eq!(lab.path(temporary).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(lab.text("notes.txt"), "old");
    lab.close(handle).await.unwrap();
    assert_eq!(lab.text("notes.txt"), "new");
    assert_eq!(lab.names(), ["notes.txt"]);
}

#[tokio::test]
async fn the_new_file_has_the_mode_and_the_owner_of_the_old_one() {
    let lab = Lab::new();
    let path = lab.write("a", "old");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12345), Some(54321)).unwrap();
    }
    let before = path.metadata().unwrap();
    let params = [("path", text(&path)), ("mode", "replace".into()), ("permissions", Value::Int(0o777))];
    let handle = handle(&lab.call("file.open", params).await.unwrap());
    lab.close(handle).await.unwrap();
    let after = path.metadata().unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!((before.mode(), before.uid(), before.gid()), (after.mode(), after.uid(), after.gid()));
}

#[tokio::test]
async fn a_digest_that_does_not_match_leaves_the_old_file() {
    let lab = Lab::new();
    let path = lab.write("a", "old");
    for (at_open, at_close) in [(Value::from(ABC), Value::Nil), (Value::Nil, Value::from(ABC))] {
        let params = [("path", text(&path)), ("mode", "replace".into()), ("digest", at_open)];
        let handle = handle(&lab.call("file.open", params).await.unwrap());
        lab.write_to(handle, b"abC").await;
        let refused = fault(lab.call("file.close", [("handle", handle.into()), ("digest", at_close)]).await);
        assert!(refused.message.contains("the old file stays"), "{refused}");
        assert_eq!((lab.text("a"), lab.names()), ("old".into(), vec!["a".into()]));
        assert!(fault(lab.close(handle).await).message.starts_with("no such handle"));
    }
}

#[tokio::test]
async fn a_digest_that_matches_is_checked_however_the_bytes_came() {
    let lab = Lab::new();
    let path = lab.write("a", "old");
    for order in [[0, 1, 2], [2, 0, 1]] {
        let handle = lab.open(&path, "replace").await;
        for at in order {
            let data = blob(&b"abc"[at..=at]);
            let params = [("handle", handle.into()), ("offset", Value::Int(at as i64)), ("data", data)];
            lab.call("file.write", params).await.unwrap();
        }
        lab.call("file.close", [("handle", handle.into()), ("digest", ABC.into())]).await.unwrap();
        assert_eq!(lab.text("a"), "abc");
        lab.write("a", "old");
    }
}

#[tokio::test]
async fn a_digest_that_is_none_is_refused_before_anything_is_written() {
    let lab = Lab::new();
    let params = [("path", text(&lab.path("a"))), ("mode", "replace".into()), ("digest", "sha256:12".into())];
    assert!(fault(lab.call("file.open", params).await).is(FaultCode::InvalidParams));
    assert!(lab.names().is_empty());
}

#[tokio::test]
async fn what_is_discarded_leaves_the_old_file_and_no_temporary() {
    let lab = Lab::new();
    let path = lab.write("a", "old");
    let handle = lab.open(&path, "replace").await;
    lab.write_to(handle, b"new").await;
    lab.call("file.close", [("handle", handle.into()), ("discard", true.into())]).await.unwrap();
    assert_eq!((lab.text("a"), lab.names()), ("old".into(), vec!["a".into()]));
}

#[tokio::test]
async fn an_owner_that_is_gone_leaves_the_old_file_and_no_temporary() {
    let lab = Lab::new();
    let path = lab.write("a", "old");
    let handle = lab.open(&path, "replace").await;
    lab.write_to(handle, b"new").await;
    lab.files.owner_gone(ALICE);
    while lab.names().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(lab.text("a"), "old");
}

#[tokio::test]
async fn a_stop_leaves_the_old_file_and_no_temporary() {
    let lab = Lab::new();
    let path = lab.write("a", "old");
    let handle = lab.open(&path, "replace").await;
    let (written, ()) =
        tokio::join!(lab.call("file.write", [("handle", handle.into()), ("data", blob(b"new"))]), lab.files.stop());
    written.unwrap();
    assert_eq!((lab.text("a"), lab.names()), ("old".into(), vec!["a".into()]));
}

#[tokio::test]
async fn a_symlink_stays_and_what_it_leads_to_is_replaced() {
    let lab = Lab::new();
    lab.write("target", "old");
    symlink("target", lab.path("link")).unwrap();
    let handle = lab.open(&lab.path("link"), "replace").await;
    lab.write_to(handle, b"new").await;
    lab.close(handle).await.unwrap();
    assert_eq!(std::fs::read_link(lab.path("link")).unwrap(), Path::new("target"));
    assert_eq!(lab.text("target"), "new");
}

#[tokio::test]
async fn only_a_regular_file_is_replaced() {
    let lab = Lab::new();
    let params = [("path", text(&lab.root())), ("mode", "replace".into())];
    assert!(fault(lab.call("file.open", params).await).is(FaultCode::InvalidParams));
    let handle = lab.open(&lab.path("a"), "replace").await;
    std::fs::create_dir(lab.path("a")).unwrap();
    assert!(fault(lab.close(handle).await).is(FaultCode::InvalidParams));
    assert_eq!(lab.names(), ["a"]);
}

#[tokio::test]
async fn the_longest_name_has_room_for_its_temporary() {
    let lab = Lab::new();
    let name = "n".repeat(255);
    let handle = lab.open(&lab.path(&name), "replace").await;
    lab.close(handle).await.unwrap();
    assert_eq!(lab.names(), [name]);
}
