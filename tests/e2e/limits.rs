//! Calls in flight and sizes: what goes over a limit costs that call, and says so.

use std::time::Instant;

use agent_core::frame::{Heads, Kind};
use agent_core::rpc::{FaultCode, Value};
use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Guest, LIMIT, Setup, is_root};

use crate::floods::{RSS_MIB, session};
use crate::support::refused;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_has_64_calls_of_the_host_in_flight_and_one_more_is_refused() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let mut nobody = session(&guest, "nobody")?;
    let mut games = session(&guest, "games")?;
    let mut calls: Vec<_> = (0..64).map(|_| host.start(Some("nobody"), "made.up", json!(null))).collect();
    let mut tags = Vec::new();
    while tags.len() < 64 {
        tags.push(nobody.next_call()?.0.tag);
    }
    let fault = refused(host.call_as("nobody", "made.up", json!(null)).await, FaultCode::LimitExceeded);
    assert!(fault.message.contains("64"), "{fault}");
    // That was nobody's limit, not games'.
    let call = host.start(Some("games"), "made.up", json!(null));
    let (frame, _) = games.next_call()?;
    games.reply(frame.tag.as_str(), Ok("fine".into()))?;
    assert_eq!(call.await??, "fine");
    // One answer makes room for one call.
    nobody.reply(tags[0].as_str(), Ok("first".into()))?;
    let (first, _, rest) = futures_first(calls).await;
    assert_eq!(first, "first");
    calls = rest;
    let call = host.start(Some("nobody"), "made.up", json!(null));
    let (frame, _) = nobody.next_call()?;
    nobody.reply(frame.tag.as_str(), Ok("room again".into()))?;
    assert_eq!(call.await??, "room again");
    assert_eq!(calls.len(), 63);
    Ok(())
}

type Started = tokio::task::JoinHandle<Result<serde_json::Value, agent_core::rpc::Fault>>;

/// The first of the calls that ends, and the others.
async fn futures_first(mut calls: Vec<Started>) -> (serde_json::Value, usize, Vec<Started>) {
    let begin = Instant::now();
    loop {
        if let Some(index) = calls.iter().position(|call| call.is_finished()) {
            let value = calls.swap_remove(index).await.expect("it ends").expect("an answer");
            return (value, index, calls);
        }
        assert!(begin.elapsed() < LIMIT, "no call ended");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_user_has_64_calls_to_the_host_in_flight_and_one_more_is_refused() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let mut host = guest.raw()?;
    // The guest says hello alone first, and one of ours is asked many things at a time.
    let (hello, _) = host.next_call()?;
    host.reply(hello.tag.as_str(), Ok(Value::Nil))?;
    let ours = Heads { version: Some("1".into()), ..Heads::default() };
    host.call_with("we-are-of-yours0", "va.ping", json!([]), ours)?;
    host.answer("we-are-of-yours0")??;
    let mut nobody = session(&guest, "nobody")?;
    for number in 0..64 {
        nobody.call(&format!("upwards-{number:08}"), "made.up", json!([]))?;
    }
    let mut seen = 0;
    while seen < 64 {
        seen += usize::from(host.next_call()?.1.method.as_str() == "made.up");
    }
    refused(nobody.ask("upwards-00000064", "made.up", json!([]))?, FaultCode::LimitExceeded);
    let mut games = session(&guest, "games")?;
    games.call("games-is-not-full", "made.up", json!([]))?;
    loop {
        let (frame, call) = host.next_call()?;
        if call.method.as_str() == "made.up" {
            assert_eq!(frame.heads.username.as_deref(), Some("games"));
            host.reply(frame.tag.as_str(), Ok("for games".into()))?;
            break;
        }
    }
    assert_eq!(games.answer("games-is-not-full")??, "for games");
    Ok(())
}

#[test]
fn the_host_has_1024_calls_in_flight_and_one_more_is_refused() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let config = "[limits]\ncalls_per_session = 2000\n[policy]\ndefault = \"allow\"\n";
    let mut guest = Setup::default().config(config).start()?;
    let mut nobody = session(&guest, "nobody")?;
    let mut host = guest.raw()?;
    for number in 0..1030 {
        host.call_as("nobody", &format!("many-{number:011}"), "made.up", json!([]))?;
    }
    let mut over = Vec::new();
    while over.len() < 6 {
        let frame = host.next()?.expect("open");
        if frame.kind == Kind::Reply {
            let outcome = agent_core::encoding::decode_outcome(frame.encoding, &frame.body)?;
            assert!(refused(outcome, FaultCode::LimitExceeded).message.contains("1024"));
            over.push(frame.tag.as_str().to_owned());
        }
    }
    assert!(over.iter().all(|tag| tag.as_str() >= "many-00000001024"), "{over:?}");
    for _ in 0..1024 {
        let (frame, _) = nobody.next_call()?;
        nobody.reply(frame.tag.as_str(), Ok(Value::Nil))?;
    }
    assert_eq!(host.ask("after-the-storm0", "va.ping", json!([]))??, "pong");
    assert!(guest.system().rss_mib()? < RSS_MIB);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_beyond_every_limit_cost_their_own_call_and_say_so() -> Result<()> {
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let long = "x".repeat(1 << 20);
    for (method, params) in [
        ("file.open", json!({"path": format!("/{long}"), "mode": "read"})),
        ("file.open", json!({"path": "/tmp/\u{0}", "mode": "read"})),
        ("file.open", json!({"path": "", "mode": "read"})),
        ("file.open", json!({"path": "/etc/hostname", "mode": long})),
        ("file.list", json!({"path": "/", "offset": -1})),
        ("file.list", json!({"path": "/", "limit": i64::MAX})),
        ("file.read", json!({"handle": i64::MAX})),
        ("file.read", json!({"handle": 1, "length": i64::MAX})),
        ("file.digest", json!({"path": "/etc/hostname", "offset": i64::MAX})),
        ("exec.run", json!({"argv": []})),
        ("exec.run", json!({"argv": [long]})),
        ("exec.run", json!({"argv": ["true"], "timeout_ms": -1})),
        ("exec.run", json!({"argv": ["true"], "output_limit": i64::MAX})),
        ("exec.run", json!({"argv": ["true"], "env": {"A=B": "c"}})),
        ("exec.run", json!({"argv": ["tr\u{0}ue"]})),
        ("exec.run", json!({"argv": ["true"], "cwd": long})),
        ("system.methodHelp", json!([long])),
        ("va.describe", json!([long])),
        ("va.cancel", json!([long])),
        ("system.multicall", json!([vec![json!({"methodName": "va.ping", "params": []}); 1000]])),
        ("system.multicall", json!([[{"methodName": "system.multicall", "params": [[]]}, 3, {"params": 1}, {}]])),
    ] {
        let shown: String = params.to_string().chars().take(60).collect();
        match host.call(method, params).await {
            Ok(done) => assert!(method == "system.multicall" || method == "file.list", "{method} {shown}: {done}"),
            Err(fault) => {
                assert!(fault.kind().is_some(), "{method} {shown}: {fault}");
                assert!(fault.message.len() < 2_000, "{method} {shown}: a message of {} bytes", fault.message.len());
                assert!(!fault.message.chars().any(char::is_control), "{method} {shown}: {fault:?}");
            }
        }
    }
    let deep = (0..500).fold(json!(1), |inner, _| json!([inner]));
    let nested = std::panic::catch_unwind(|| virtagent_tests::local::value(&deep));
    assert!(nested.is_err(), "500 levels can't even be written");
    assert_eq!(host.call("va.ping", json!(null)).await?, "pong");
    Ok(())
}
