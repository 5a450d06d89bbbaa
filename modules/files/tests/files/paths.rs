//! Paths: what a caller names is what is touched, and nothing that was put there since.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use agent_core::rpc::FaultCode;

use super::*;

#[tokio::test]
async fn a_symlink_that_is_swapped_in_after_policy_resolved_the_path_is_refused() {
    let lab = Lab::new();
    let secret = lab.write("secret", "secret");
    std::fs::create_dir(lab.path("public")).unwrap();
    symlink("public", lab.path("swapped")).unwrap();
    symlink(&secret, lab.path("public/file")).unwrap();
    // Policy saw real files; now a symlink is the last component of one and a directory of the other.
    for judged in [lab.path("public/file"), lab.path("swapped/other")] {
        for (method, more) in [
            ("file.open", vec!["read".into()]),
            ("file.open", vec!["write".into()]),
            ("file.open", vec!["append".into()]),
            ("file.list", vec![]),
            ("file.digest", vec![]),
            ("va.getfile", vec![]),
            ("file.stat", vec![]),
        ] {
            let context = lab.files.context_with_path("path", &judged);
            let params = [vec![text(&judged)], more].concat();
            let outcome = lab.files.call_with(context, method, params).await;
            let name = errno(outcome);
            assert!(name == "ELOOP" || (method == "file.list" && name == "ENOTDIR"), "{method} {judged:?}: {name}");
        }
    }
    assert_eq!(lab.text("secret"), "secret");
}

#[tokio::test]
async fn what_is_done_is_done_to_the_path_that_policy_judged() {
    let lab = Lab::new();
    lab.write("judged", "judged");
    lab.write("other", "other");
    let context = lab.files.context_with_path("path", lab.path("judged"));
    let got = lab.files.call_with(context, "va.getfile", vec![text(&lab.path("other"))]).await.unwrap();
    assert_eq!(got.as_bytes().unwrap().as_ref(), b"judged");
}

#[tokio::test]
async fn an_entry_is_not_touched_when_policy_judged_what_it_leads_to() {
    let lab = Lab::new();
    lab.write("target", "x");
    symlink("target", lab.path("link")).unwrap();
    let (link, target) = (lab.path("link"), lab.path("target"));
    for (method, parameter, params) in [
        ("file.remove", "path", vec![text(&link)]),
        ("file.rename", "from", vec![text(&link), text(&lab.path("new"))]),
        ("file.rename", "to", vec![text(&target), text(&link)]),
        ("file.stat", "path", vec![text(&link), false.into()]),
    ] {
        let context = lab.files.context_with_path(parameter, &target);
        let refused = fault(lab.files.call_with(context, method, params).await);
        assert!(refused.is(FaultCode::Denied), "{method}: {refused}");
    }
    let context = lab.files.context_with_path("path", &link);
    let stat = lab.files.call_with(context, "file.stat", vec![text(&link), false.into()]).await.unwrap();
    assert_eq!(stat.get("type").unwrap().as_str(), Some("symlink"));
    let context = lab.files.context_with_path("path", lab.path("link"));
    lab.files.call_with(context, "file.remove", vec![text(&lab.path("link"))]).await.unwrap();
    assert_eq!(lab.names(), ["target"]);
}

#[tokio::test]
async fn without_a_rule_about_paths_symlinks_are_followed_as_usual() {
    let lab = Lab::new();
    std::fs::create_dir(lab.path("real")).unwrap();
    lab.write("real/file", "content");
    symlink("real", lab.path("link")).unwrap();
    let opened = lab.call("file.open", [("path", text(&lab.path("link/../link/file"))), ("mode", "read".into())]).await;
    assert_eq!(opened.unwrap().get("path").unwrap().as_str(), lab.path("real/file").to_str());
}

#[tokio::test]
async fn a_dangling_symlink_makes_no_file_where_it_points() {
    let lab = Lab::new();
    symlink(lab.path("elsewhere"), lab.path("link")).unwrap();
    for mode in ["append", "create", "replace", "write"] {
        let outcome = lab.call("file.open", [("path", text(&lab.path("link"))), ("mode", mode.into())]).await;
        assert!(outcome.is_err(), "{mode}");
    }
    assert_eq!(lab.names(), ["link"]);
}

#[tokio::test]
async fn at_user_level_paths_begin_at_home() {
    let lab = Lab::at(Level::User, "");
    lab.write("notes", "mine");
    for path in ["notes", "~/notes", "./notes", "~/../../."] {
        let outcome = lab.call("file.stat", [("path", path.into())]).await;
        assert!(outcome.is_ok(), "{path}: {outcome:?}");
    }
    let home = lab.call("file.list", [("path", "~".into())]).await.unwrap();
    assert_eq!(home.get("total"), Some(&Value::Int(1)));
}

#[tokio::test]
async fn at_system_level_a_path_begins_with_a_slash() {
    let lab = Lab::new();
    for path in ["notes", "~/notes", "../etc/passwd"] {
        let refused = fault(lab.call("file.stat", [("path", path.into())]).await);
        assert!(refused.is(FaultCode::InvalidParams) && refused.message.contains("begins with /"), "{refused}");
    }
}

#[tokio::test]
async fn a_path_that_the_kernel_would_cut_or_refuse_never_reaches_it() {
    let lab = Lab::new();
    for path in ["".to_owned(), "/etc/passwd\0.txt".to_owned(), "/a".repeat(3000)] {
        let refused = fault(lab.call("file.stat", [("path", path.into())]).await);
        assert!(refused.is(FaultCode::InvalidParams), "{refused}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_utf_8_comes_and_goes_as_bytes() {
    let lab = Lab::new();
    let name = std::ffi::OsStr::from_bytes(b"na\xffme");
    let path = lab.root().join(name);
    std::fs::write(&path, "odd").unwrap();
    let listed = lab.call("file.list", [("path", text(&lab.root()))]).await.unwrap();
    let entry = &listed.get("entries").unwrap().as_array().unwrap()[0];
    assert_eq!(entry.get("name").unwrap().as_str(), Some("na\u{fffd}me"));
    assert_eq!(entry.get("name_bytes").unwrap().as_bytes().unwrap().as_ref(), b"na\xffme");

    let params = [("path", blob(path.as_os_str().as_bytes())), ("mode", "read".into())];
    let opened = lab.call("file.open", params).await.unwrap();
    assert_eq!(opened.get("path_bytes").unwrap().as_bytes().unwrap().as_ref(), path.as_os_str().as_bytes());
    lab.call("file.remove", [("path", blob(path.as_os_str().as_bytes()))]).await.unwrap();
    assert!(lab.names().is_empty());
}
