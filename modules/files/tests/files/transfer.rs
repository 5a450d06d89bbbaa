//! Reading, writing, digests of what passed.

use std::os::unix::fs::PermissionsExt;

use agent_core::rpc::FaultCode;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn a_file_is_read_in_order_and_at_offsets() {
    let lab = Lab::new();
    let path = lab.write("a", "0123456789");
    let opened = lab.call("file.open", [("path", text(&path)), ("mode", "read".into())]).await.unwrap();
    assert_eq!(opened.get("size"), Some(&Value::Int(10)));
    assert_eq!(opened.get("path").unwrap().as_str(), path.to_str());
    let handle = handle(&opened);

    let read = |offset: Value, length: i64| {
        lab.call("file.read", [("handle", handle.into()), ("offset", offset), ("length", length.into())])
    };
    assert_eq!(data(&read(Value::Nil, 4).await), b"0123");
    assert_eq!(data(&read(Value::Nil, 4).await), b"4567");
    assert_eq!(data(&read(Value::Int(1), 2).await), b"12");
    let last = read(Value::Nil, 100).await;
    assert_eq!(data(&last), b"3456789");
    assert_eq!(last.unwrap().get("eof"), Some(&Value::Bool(true)));
    let past = read(Value::Int(1000), 1).await;
    assert_eq!(data(&past), b"");
    assert_eq!(past.unwrap().get("eof"), Some(&Value::Bool(true)));
}

#[tokio::test]
async fn the_end_is_told_with_the_last_bytes_so_that_nobody_asks_once_more() {
    let lab = Lab::new();
    let path = lab.write("a", "0123456789");
    let handle = lab.open(&path, "read").await;
    let params = [("handle", handle.into()), ("length", Value::Int(10))];
    assert_eq!(lab.call("file.read", params).await.unwrap().get("eof"), Some(&Value::Bool(true)));
}

#[tokio::test]
async fn a_file_of_proc_that_claims_to_be_empty_is_read() {
    let lab = Lab::new();
    let handle = lab.open(Path::new("/proc/version"), "read").await;
    let read = lab.call("file.read", [("handle", handle.into())]).await;
    assert!(data(&read).starts_with(b"Linux version"));
}

#[tokio::test]
async fn each_way_to_write_does_what_its_name_says() {
    let lab = Lab::new();
    let old = lab.write("old", "0123456789");

    let handle = lab.open(&old, "write").await;
    let written = lab.write_to(handle, b"AB").await;
    assert_eq!((written.get("written"), written.get("position")), (Some(&Value::Int(2)), Some(&Value::Int(2))));
    lab.call("file.write", [("handle", handle.into()), ("offset", Value::Int(8)), ("data", blob(b"YZ+"))])
        .await
        .unwrap();
    lab.close(handle).await.unwrap();
    assert_eq!(lab.text("old"), "AB234567YZ+");

    let handle = lab.open(&old, "append").await;
    let written = lab.write_to(handle, b"end").await;
    assert_eq!(written.get("position"), Some(&Value::Int(14)));
    lab.close(handle).await.unwrap();
    assert_eq!(lab.text("old"), "AB234567YZ+end");

    let handle = lab.open(&lab.path("new"), "create").await;
    lab.write_to(handle, b"new").await;
    lab.close(handle).await.unwrap();
    assert_eq!(lab.text("new"), "new");

    let open = |path: PathBuf, mode: &'static str| {
        let params = [("path", text(&path)), ("mode", mode.into())];
        lab.call("file.open", params)
    };
    assert_eq!(errno(open(old.clone(), "create").await), "EEXIST");
    assert_eq!(errno(open(lab.path("none"), "write").await), "ENOENT");
    assert_eq!(errno(open(lab.path("none"), "read").await), "ENOENT");
}

#[tokio::test]
async fn permissions_are_those_that_were_asked_for_whatever_the_umask() {
    let lab = Lab::new();
    for mode in ["create", "replace"] {
        let path = lab.path(mode);
        let params = [("path", text(&path)), ("mode", mode.into()), ("permissions", Value::Int(0o666))];
        let handle = handle(&lab.call("file.open", params).await.unwrap());
        lab.close(handle).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o666, "{mode}");
    }
    let params = [("path", text(&lab.path("x"))), ("mode", "create".into()), ("permissions", Value::Int(0o10000))];
    assert!(fault(lab.call("file.open", params).await).is(FaultCode::InvalidParams));
}

#[tokio::test]
async fn close_tells_what_passed_and_its_digest_in_the_configured_algorithm() {
    let lab = Lab::with("digest = 'sha256'");
    let path = lab.path("abc");
    let handle = lab.open(&path, "create").await;
    lab.write_to(handle, b"ab").await;
    lab.write_to(handle, b"c").await;
    let closed = lab.close(handle).await.unwrap();
    assert_eq!(closed.get("written"), Some(&Value::Int(3)));
    assert_eq!(closed.get("digest").unwrap().as_str(), Some(ABC));

    let handle = lab.open(&path, "read").await;
    lab.call("file.read", [("handle", handle.into())]).await.unwrap();
    let params = [("handle", handle.into()), ("digest", ABC.into())];
    let closed = lab.call("file.close", params).await.unwrap();
    assert_eq!(closed.get("read"), Some(&Value::Int(3)));
    assert_eq!(closed.get("digest").unwrap().as_str(), Some(ABC));

    let lab = Lab::with("digest = 'none'");
    let handle = lab.open(&path, "read").await;
    lab.call("file.read", [("handle", handle.into())]).await.unwrap();
    assert_eq!(lab.close(handle).await.unwrap().get("digest"), None);
}

#[tokio::test]
async fn a_transfer_out_of_order_has_no_digest() {
    let lab = Lab::new();
    let handle = lab.open(&lab.path("a"), "create").await;
    lab.write_to(handle, b"ab").await;
    let params = [("handle", handle.into()), ("offset", Value::Int(7)), ("data", blob(b"c"))];
    lab.call("file.write", params).await.unwrap();
    assert_eq!(lab.close(handle).await.unwrap().get("digest"), None);
}

#[tokio::test]
async fn reads_over_the_limit_are_refused_with_the_limit() {
    let lab = Lab::with("max_read = 4096");
    let path = lab.write("a", [7; 10_000]);
    let handle = lab.open(&path, "read").await;
    assert_eq!(data(&lab.call("file.read", [("handle", handle.into())]).await).len(), 4096);
    let refused = fault(lab.call("file.read", [("handle", handle.into()), ("length", Value::Int(4097))]).await);
    assert!(refused.is(FaultCode::LimitExceeded) && refused.message.contains("4096"), "{refused}");
    let refused = fault(lab.call("file.read", [("handle", handle.into()), ("offset", Value::Int(-1))]).await);
    assert!(refused.is(FaultCode::InvalidParams), "{refused}");
}

#[tokio::test]
async fn a_handle_reads_or_writes_as_it_was_opened() {
    let lab = Lab::new();
    let path = lab.write("a", "x");
    let reading = lab.open(&path, "read").await;
    let writing = lab.open(&path, "write").await;
    let refused = lab.call("file.write", [("handle", reading.into()), ("data", blob(b"y"))]).await;
    assert!(fault(refused).is(FaultCode::InvalidParams));
    assert!(fault(lab.call("file.read", [("handle", writing.into())]).await).is(FaultCode::InvalidParams));
}

#[tokio::test]
async fn a_directory_is_refused_with_the_method_that_lists_it() {
    let lab = Lab::new();
    let refused = fault(lab.call("file.open", [("path", text(&lab.root())), ("mode", "read".into())]).await);
    assert!(refused.message.contains("file.list") && refused.message.contains("EISDIR"), "{refused}");
}

#[tokio::test]
async fn a_fifo_without_a_writer_neither_blocks_its_opening_nor_a_read() {
    let lab = Lab::new();
    let path = lab.path("fifo");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let reading = lab.open(&path, "read").await;
    let read = || lab.call("file.read", [("handle", reading.into())]);
    assert_eq!(read().await.unwrap().get("eof"), Some(&Value::Bool(true)));

    let writing = lab.open(&path, "write").await;
    let nothing = read().await;
    assert_eq!((data(&nothing), nothing.as_ref().unwrap().get("eof")), (&b""[..], Some(&Value::Bool(false))));
    lab.write_to(writing, b"through").await;
    assert_eq!(data(&read().await), b"through");
    let refused = lab.call("file.read", [("handle", reading.into()), ("offset", Value::Int(0))]).await;
    assert!(fault(refused).is(FaultCode::InvalidParams));

    let full = lab.write_to(writing, &vec![0; 1 << 20]).await.get("written").unwrap().as_int().unwrap();
    assert!(full > 0 && full < 1 << 20, "a FIFO takes what fits: {full}");
}

#[tokio::test]
async fn an_endless_device_is_read_no_further_than_asked() {
    let lab = Lab::new();
    let handle = lab.open(Path::new("/dev/zero"), "read").await;
    let read = lab.call("file.read", [("handle", handle.into()), ("length", Value::Int(5000))]).await;
    assert_eq!(data(&read), [0; 5000]);
    let refused = fault(lab.call("file.digest", [("path", "/dev/zero".into())]).await);
    assert!(refused.is(FaultCode::InvalidParams), "{refused}");
}

#[tokio::test]
async fn a_file_or_a_part_of_it_is_digested_without_being_sent() {
    let lab = Lab::new();
    let path = lab.write("a", "xxabcyy");
    let whole = lab.call("file.digest", [("path", text(&path))]).await.unwrap();
    assert!(whole.get("digest").unwrap().as_str().unwrap().starts_with("xxh3-128:"));
    assert_eq!(whole.get("size"), Some(&Value::Int(7)));
    let params = vec![text(&path), "sha256".into(), Value::Int(2), Value::Int(3)];
    let part = lab.files.call("file.digest", params).await.unwrap();
    assert_eq!((part.get("digest").unwrap().as_str(), part.get("size")), (Some(ABC), Some(&Value::Int(3))));
}

#[tokio::test]
async fn a_cancelled_digest_stops() {
    let lab = Lab::new();
    let path = lab.write("a", "abc");
    let context = lab.files.context(ALICE);
    context.cancel.cancel();
    let outcome = lab.files.call_with(context, "file.digest", vec![text(&path)]).await;
    assert!(fault(outcome).is(FaultCode::Cancelled));
}

#[tokio::test]
async fn the_2011_method_answers_the_bytes_alone_and_bounds_them() {
    let lab = Lab::with("max_read = 4096");
    let path = lab.write("a", [7; 4096]);
    let got = lab.files.call("va.getfile", vec![text(&path)]).await.unwrap();
    assert_eq!(got.as_bytes().unwrap().len(), 4096);
    let path = lab.write("b", [7; 4097]);
    assert!(fault(lab.files.call("va.getfile", vec![text(&path)]).await).is(FaultCode::LimitExceeded));

    let user = Lab::at(Level::User, "");
    assert!(fault(user.files.call("va.getfile", vec![text(&path)]).await).is(FaultCode::MethodNotFound));
}
