//! The wire of a running daemon: broken frames and what they may cost, and Python's XML-RPC as a foreign peer.

use std::process::Command;
use std::time::Duration;

use agent_core::encoding::{Encoding, decode_outcome};
use agent_core::frame::{Frame, Heads, Kind};
use agent_core::rpc::FaultCode;
use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Guest, LIMIT, Raw, Setup, is_root};
use virtagent_tests::process;

use crate::support::{refused, text};

/// A ping in XML, as bytes.
fn ping(tag: &str) -> Vec<u8> {
    call("text/xml", tag, b"<methodCall><methodName>va.ping</methodName></methodCall>")
}

fn call(content_type: &str, tag: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /RPC2 HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         X-Virtagent-Client-Tag: {tag}\r\n\r\n"
    );
    [b"\xff", head.as_bytes(), body].concat()
}

/// Asserts that the link answers as if nothing had been.
#[track_caller]
fn lives(raw: &mut Raw, tag: &str) {
    raw.bytes(&ping(tag)).expect("the link takes bytes");
    assert_eq!(raw.answer(tag).expect("an answer").expect("a pong"), "pong");
}

#[test]
fn garbage_before_between_and_inside_frames_costs_only_what_it_is_in() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    let noise: Vec<u8> = (0..=254).cycle().take(20_000).collect();
    raw.bytes(&noise)?;
    lives(&mut raw, "garbage-before");
    raw.bytes(b"HTTP/1.1 200 OK\r\n\r\n\0\0\r\n\r\nPOST")?;
    lives(&mut raw, "garbage-between");
    let whole = ping("garbage-inside");
    for at in [1, 5, 30, 60, whole.len() - 1] {
        raw.bytes(&[&whole[..at], b"\xff\0garbage\x01"].concat())?;
        lives(&mut raw, &format!("after-garbage-{at}"));
    }
    raw.bytes(&[&[0xff; 1000][..], &noise, &[0xff; 1000]].concat())?;
    lives(&mut raw, "between-sentinels");
    Ok(())
}

#[test]
fn a_frame_in_writes_of_one_byte_is_answered() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    for byte in ping("byte-by-byte") {
        raw.bytes(&[byte])?;
    }
    assert_eq!(raw.answer("byte-by-byte")??, "pong");
    Ok(())
}

#[test]
fn half_a_frame_is_replaced_by_the_next_and_dies_with_its_host() -> Result<()> {
    let guest = Guest::start()?;
    let whole = ping("half");
    for at in [1, 10, 50, whole.len() - 10] {
        let mut raw = guest.raw()?;
        raw.bytes(&whole[..at])?;
        lives(&mut raw, "behind-half");
        // The host leaves in mid-frame, and what it left is no part of what the next host says.
        raw.bytes(&whole[..at])?;
        drop(raw);
        let mut next = guest.raw()?;
        next.bytes(&whole[at..])?;
        lives(&mut next, "next-host");
    }
    Ok(())
}

#[test]
fn half_a_body_of_bytes_is_given_up_after_the_frame_timeout() -> Result<()> {
    let config = "[policy]\ndefault = \"allow\"\n[limits]\nframe_timeout = \"1s\"\n";
    let mut guest = Setup::default().config(config).start()?;
    let mut raw = guest.raw()?;
    let body = vec![0xff; 10_000];
    let whole = call("application/cbor", "half-body", &body);
    raw.bytes(&whole[..whole.len() / 2])?;
    guest.system().said("gave up on a half-read frame")?;
    lives(&mut raw, "next");
    Ok(())
}

#[test]
fn a_body_over_the_limit_is_answered_and_the_links_other_calls_live_on() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    raw.call_with(
        "slow",
        "exec.run",
        json!({"argv": ["cat", "/dev/fd/0"], "stdin": {"$base64": "bGl2ZXM="}}),
        patient(),
    )?;
    let limit = 2 << 20;
    for (kind, tag) in [("text/xml", "long-xml"), ("application/json", "long-json"), ("application/cbor", "long-cbor")]
    {
        raw.bytes(&call(kind, tag, &vec![b' '; limit + 1]))?;
        let (frame, outcome) = raw.answer_frame(tag)?;
        let fault = refused(outcome, FaultCode::LimitExceeded);
        assert!(fault.message.contains("limits.body") && fault.message.contains(&limit.to_string()), "{fault}");
        assert_eq!(frame.encoding.content_type(), kind);
    }
    lives(&mut raw, "after-long-bodies");
    Ok(())
}

#[test]
fn a_call_that_runs_survives_every_bad_frame_beside_it() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    let fifo = guest.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    raw.call_with("runs", "exec.run", json!({"argv": ["cat", fifo]}), patient())?;
    raw.bytes(&call("application/cbor", "bad-long", &vec![0xff; 3 << 20]))?;
    refused(raw.answer("bad-long")?, FaultCode::LimitExceeded);
    raw.bytes(&[b"\xffPOST ", &[b'h'; 10_000][..]].concat())?;
    raw.bytes(&call("text/html", "bad-type", b"<html>"))?;
    refused(raw.answer("bad-type")?, FaultCode::InvalidRequest);
    raw.bytes(&call("text/xml", "bad-xml", b"<methodCall"))?;
    refused(raw.answer("bad-xml")?, FaultCode::Parse);
    raw.bytes(b"\xffPOST / HTTP/1.1\r\nContent-Length: 0\r\nX-Virtagent-Client-Tag: no-body\r\n\r\n")?;
    refused(raw.answer("no-body")?, FaultCode::InvalidRequest);
    std::fs::write(&fifo, "still here")?;
    let done = raw.answer("runs")??;
    assert_eq!(text(&done["stdout"]), "still here");
    Ok(())
}

#[test]
fn a_head_over_the_limit_costs_that_frame_only() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    let long = format!("POST /RPC2 HTTP/1.1\r\nX-Pad: {}\r\n", "p".repeat(5000));
    raw.bytes(&[b"\xff", long.as_bytes(), &ping("inside")[1..]].concat())?;
    lives(&mut raw, "after-a-long-head");
    let record = guest.audited("the frame", |record| record["event"] == "frame.refused")?;
    assert!(record.to_string().contains("limits.head"), "{record}");
    Ok(())
}

#[test]
fn bytes_that_look_like_frames_inside_a_refused_body_are_never_run() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    let evil = ping("evil").repeat(20_000);
    assert!(evil.len() > 2 << 20);
    raw.bytes(&call("application/cbor", "long", &evil))?;
    raw.bytes(&call("application/octet-stream", "type", &evil))?;
    raw.bytes(&ping("last"))?;
    let mut answered = Vec::new();
    while answered.last().is_none_or(|tag| tag != "last") {
        let frame = raw.next()?.expect("an answer");
        if frame.kind == Kind::Reply {
            answered.push(frame.tag.to_string());
        }
    }
    assert_eq!(answered, ["long", "type", "last"]);
    Ok(())
}

#[test]
fn a_reply_that_nobody_asked_for_is_dropped_and_recorded() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    raw.reply("foreign-tag-0001", Ok(agent_core::rpc::Value::Nil))?;
    lives(&mut raw, "after");
    guest.audited("the reply", |record| record["event"] == "reply.dropped")?;
    Ok(())
}

#[test]
fn json_rpc_takes_its_params_as_an_object_and_answers_with_its_id() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    std::fs::write(guest.path("file"), "by name")?;
    let path = guest.path("file");
    let body = json!({"jsonrpc": "2.0", "method": "va.getfile", "params": {"path": path}, "id": 7}).to_string();
    raw.bytes(&call("application/json", "by-name", body.as_bytes()))?;
    let (frame, outcome) = raw.answer_frame("by-name")?;
    assert_eq!(text(&outcome?), "by name");
    let reply: serde_json::Value = serde_json::from_slice(&frame.body)?;
    assert_eq!(reply["jsonrpc"], "2.0");
    assert!(reply.get("result").is_some() && reply.get("error").is_none(), "{reply}");
    let body = json!({"jsonrpc": "2.0", "method": "va.getfile", "params": {"paht": path}, "id": "x"}).to_string();
    raw.bytes(&call("application/json", "misnamed", body.as_bytes()))?;
    let (frame, outcome) = raw.answer_frame("misnamed")?;
    let fault = refused(outcome, FaultCode::InvalidParams);
    assert!(fault.message.contains("paht"), "{fault}");
    let reply: serde_json::Value = serde_json::from_slice(&frame.body)?;
    assert_eq!(reply["error"]["code"], -32602, "{reply}");
    Ok(())
}

#[test]
fn python_speaks_to_both_levels_and_gets_documented_faults() -> Result<()> {
    let guest = Setup::default().modules(&["files", "exec", "info"]).start()?;
    let file = guest.path("file");
    std::fs::write(&file, b"\0bytes \xff of a file\r\n")?;
    let script = process::root().join("tests/e2e/wire.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(guest.port()).arg(file);
    // A user's daemon needs a real second user, which only root can be.
    let _user = if is_root() { Some(guest.user("nobody")?) } else { None };
    if is_root() {
        command.arg("nobody");
    }
    let said = process::succeeded("python3 wire.py", process::run(&mut command, b"", LIMIT * 2)?)?;
    assert_eq!(said.trim(), "ok");
    Ok(())
}

#[test]
fn every_reply_comes_in_its_calls_encoding_faults_too() -> Result<()> {
    let guest = Guest::start()?;
    let mut raw = guest.raw()?;
    for encoding in Encoding::ALL {
        for method in ["va.ping", "no.such"] {
            let tag: agent_core::rpc::Tag = format!("{encoding}-{method}").parse()?;
            let call = agent_core::rpc::Call { method: method.parse()?, params: vec![] };
            let body = agent_core::encoding::encode_call(encoding, &call, &tag)?;
            raw.frame(Frame { kind: Kind::Call, tag: tag.clone(), encoding, heads: Heads::default(), body })?;
            let (frame, outcome) = raw.answer_frame(tag.as_str())?;
            assert_eq!(frame.encoding, encoding);
            assert_eq!(outcome.is_ok(), method == "va.ping");
            assert!(decode_outcome(encoding, &frame.body).is_ok());
        }
    }
    Ok(())
}

/// A call's heads that no 2011 host writes: it is not hurried.
fn patient() -> Heads {
    let timeout_ms = u64::try_from(Duration::from_secs(60).as_millis()).ok();
    Heads { timeout_ms, ..Heads::default() }
}
