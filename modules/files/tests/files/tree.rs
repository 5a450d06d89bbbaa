//! Describing, listing, making, renaming and removing directory entries.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use agent_core::rpc::FaultCode;
use nix::sys::stat::Mode;

use super::*;

async fn kind(lab: &Lab, path: &Path, follow: bool) -> String {
    let stat = lab.call("file.stat", [("path", text(path)), ("follow", follow.into())]).await.unwrap();
    stat.get("type").unwrap().as_str().unwrap().to_owned()
}

fn listed(listing: &Value) -> Vec<&str> {
    let entries = listing.get("entries").unwrap().as_array().unwrap();
    entries.iter().map(|entry| entry.get("name").unwrap().as_str().unwrap()).collect()
}

#[tokio::test]
async fn whatever_is_at_a_path_is_described() {
    let lab = Lab::new();
    let file = lab.write("file", "12345");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4750)).unwrap();
    symlink("file", lab.path("link")).unwrap();
    symlink("nowhere", lab.path("dangling")).unwrap();
    nix::unistd::mkfifo(&lab.path("fifo"), Mode::S_IRWXU).unwrap();
    let _listener = UnixListener::bind(lab.path("socket")).unwrap();

    assert_eq!(kind(&lab, &lab.path("link"), true).await, "file");
    assert_eq!(kind(&lab, &lab.path("link"), false).await, "symlink");
    assert_eq!(kind(&lab, &lab.path("dangling"), false).await, "symlink");
    assert_eq!(kind(&lab, &lab.path("fifo"), true).await, "fifo");
    assert_eq!(kind(&lab, &lab.path("socket"), true).await, "socket");
    assert_eq!(kind(&lab, Path::new("/dev/null"), true).await, "char");
    assert_eq!(kind(&lab, Path::new("/"), true).await, "directory");

    let stat = lab.call("file.stat", [("path", text(&file))]).await.unwrap();
    assert_eq!(stat.get("size"), Some(&Value::Int(5)));
    assert_eq!(stat.get("mode"), Some(&Value::Int(0o4750)));
    let metadata = file.metadata().unwrap();
    assert_eq!(stat.get("uid"), Some(&Value::Int(metadata.uid().into())));
    let Some(Value::Double(mtime)) = stat.get("mtime") else { panic!("no mtime") };
    assert_eq!(*mtime as i64, metadata.mtime());
    let root = lab.call("file.stat", [("path", "/".into())]).await.unwrap();
    assert_eq!(root.get("user").unwrap().as_str(), Some("root"));
    let link = lab.call("file.stat", [("path", text(&lab.path("link"))), ("follow", false.into())]).await.unwrap();
    assert_eq!(link.get("target").unwrap().as_str(), Some("file"));
    assert_eq!(errno(lab.call("file.stat", [("path", text(&lab.path("none")))]).await), "ENOENT");
}

#[tokio::test]
async fn a_directory_is_listed_by_name_a_page_at_a_time() {
    let lab = Lab::new();
    for name in ["c", "a", "e", "b", "d"] {
        lab.write(name, name);
    }
    let list = |offset: i64, limit: i64| {
        lab.call("file.list", [("path", text(&lab.root())), ("offset", offset.into()), ("limit", limit.into())])
    };
    let first = list(0, 2).await.unwrap();
    assert_eq!((listed(&first), first.get("more")), (vec!["a", "b"], Some(&true.into())));
    assert_eq!(first.get("total"), Some(&Value::Int(5)));
    let last = list(4, 2).await.unwrap();
    assert_eq!((listed(&last), last.get("more")), (vec!["e"], Some(&false.into())));
    let past = list(50, 2).await.unwrap();
    assert_eq!((listed(&past), past.get("more")), (vec![], Some(&false.into())));
    for limit in [0, 10_001] {
        assert!(fault(list(0, limit).await).is(FaultCode::LimitExceeded));
    }
}

#[tokio::test]
async fn a_huge_directory_costs_a_page_and_tells_its_size() {
    let lab = Lab::new();
    for number in 0..20_000 {
        std::fs::File::create(lab.path(&format!("{number:05}"))).unwrap();
    }
    let listing = lab.call("file.list", [("path", text(&lab.root()))]).await.unwrap();
    assert_eq!(listing.get("total"), Some(&Value::Int(20_000)));
    let names = listed(&listing);
    assert_eq!((names.len(), names[0], names[999]), (1000, "00000", "00999"));
}

#[tokio::test]
async fn a_directory_is_made_with_the_mode_asked_for_and_not_twice() {
    let lab = Lab::new();
    let path = lab.path("new");
    lab.call("file.mkdir", [("path", text(&path)), ("mode", Value::Int(0o1777))]).await.unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(errno(lab.call("file.mkdir", [("path", text(&path))]).await), "EEXIST");
    assert_eq!(errno(lab.call("file.mkdir", [("path", text(&lab.path("x/y")))]).await), "ENOENT");
}

#[tokio::test]
async fn missing_parents_are_made_on_demand() {
    let lab = Lab::new();
    let path = lab.path("a/b/c");
    let make = |path: PathBuf| {
        let params = [("path", text(&path)), ("parents", true.into()), ("mode", Value::Int(0o700))];
        lab.call("file.mkdir", params)
    };
    make(path.clone()).await.unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
    assert_ne!(lab.path("a").metadata().unwrap().mode() & 0o777, 0o700);
    make(path.clone()).await.unwrap();
    lab.write("a/file", "");
    assert_eq!(errno(make(lab.path("a/file/x")).await), "ENOTDIR");
    assert!(fault(make(lab.path("a/none/../x")).await).is(FaultCode::InvalidParams));
    symlink("nowhere", lab.path("dangling")).unwrap();
    assert_eq!(errno(make(lab.path("dangling/x")).await), "ELOOP");
}

#[tokio::test]
async fn a_rename_spares_what_is_there_unless_told_otherwise() {
    let lab = Lab::new();
    let (a, b) = (lab.write("a", "a"), lab.write("b", "b"));
    let refused = fault(lab.call("file.rename", [("from", text(&a)), ("to", text(&b))]).await);
    assert!(refused.message.contains("overwrite=true"), "{refused}");
    assert_eq!(lab.text("b"), "b");
    lab.call("file.rename", [("from", text(&a)), ("to", text(&b)), ("overwrite", true.into())]).await.unwrap();
    assert_eq!((lab.text("b"), lab.names()), ("a".into(), vec!["b".into()]));
}

#[tokio::test]
async fn a_symlink_is_renamed_and_removed_itself() {
    let lab = Lab::new();
    lab.write("target", "x");
    symlink("target", lab.path("link")).unwrap();
    lab.call("file.rename", [("from", text(&lab.path("link"))), ("to", text(&lab.path("moved")))]).await.unwrap();
    assert_eq!(lab.names(), ["moved", "target"]);
    lab.call("file.remove", [("path", text(&lab.path("moved")))]).await.unwrap();
    assert_eq!(lab.names(), ["target"]);
}

#[tokio::test]
async fn a_full_directory_is_removed_only_recursively() {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path("d/e/f")).unwrap();
    lab.write("outside", "stays");
    lab.write("d/e/file", "x");
    symlink(lab.path("outside"), lab.path("d/link")).unwrap();
    symlink(lab.root(), lab.path("d/e/up")).unwrap();
    let refused = fault(lab.call("file.remove", [("path", text(&lab.path("d")))]).await);
    assert!(refused.message.contains("recursive=true"), "{refused}");
    lab.call("file.remove", [("path", text(&lab.path("d"))), ("recursive", true.into())]).await.unwrap();
    assert_eq!((lab.names(), lab.text("outside")), (vec!["outside".into()], "stays".into()));

    std::fs::create_dir(lab.path("empty")).unwrap();
    lab.call("file.remove", [("path", text(&lab.path("empty")))]).await.unwrap();
    assert_eq!(errno(lab.call("file.remove", [("path", text(&lab.path("none")))]).await), "ENOENT");
    let params = [("path", text(&lab.path("outside"))), ("recursive", true.into())];
    lab.call("file.remove", params).await.unwrap();
    assert!(lab.names().is_empty());
}

#[tokio::test]
async fn a_directory_of_many_entries_is_removed_in_batches() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("d")).unwrap();
    for number in 0..10_000 {
        std::fs::File::create(lab.path(&format!("d/{number}"))).unwrap();
    }
    lab.call("file.remove", [("path", text(&lab.path("d"))), ("recursive", true.into())]).await.unwrap();
    assert!(lab.names().is_empty());
}

#[tokio::test]
async fn a_tree_that_is_too_deep_is_refused_and_not_a_danger() {
    let lab = Lab::new();
    std::fs::create_dir_all(lab.path(&"d/".repeat(200))).unwrap();
    let outcome = lab.call("file.remove", [("path", text(&lab.path("d"))), ("recursive", true.into())]).await;
    assert!(fault(outcome).is(FaultCode::LimitExceeded));
}

#[tokio::test]
async fn the_root_is_neither_removed_nor_renamed() {
    let lab = Lab::new();
    for path in ["/", "/.."] {
        let removed = lab.call("file.remove", [("path", path.into())]).await;
        assert!(fault(removed).is(FaultCode::InvalidParams), "{path}");
    }
}
