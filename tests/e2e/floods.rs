//! Limits, and peers that send too much or read too little: each slows only itself.

use std::time::{Duration, Instant};

use agent_core::frame::{Heads, Kind};
use agent_core::rpc::FaultCode;
use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Guest, HostDouble, LIMIT, Raw, Setup, account, call_frame, is_root};
use virtagent_tests::wait;

use crate::support::{blob, refused};

/// What a daemon may have in RAM at most, whatever its peers do, in MiB; a debug build at rest has about 20.
const RSS_MIB: u64 = 120;

/// How long an innocent party's ping may take beside a flood.
const PROMPT: Duration = Duration::from_secs(2);

fn session(guest: &Guest, name: &str) -> Result<Raw> {
    let mut session = guest.session(account(name)?.uid.as_raw())?;
    session.hello()?;
    Ok(session)
}

/// Counts the replies of a kind that come before the one to `last`.
fn replies_until(raw: &mut Raw, last: &str) -> Result<(usize, usize)> {
    let (mut well, mut over) = (0, 0);
    loop {
        let frame = raw.next()?.ok_or_else(|| anyhow::anyhow!("closed"))?;
        if frame.kind != Kind::Reply {
            continue;
        }
        match agent_core::encoding::decode_outcome(frame.encoding, &frame.body)? {
            Err(fault) if fault.is(FaultCode::LimitExceeded) => over += 1,
            _ => well += 1,
        }
        if frame.tag.as_str() == last {
            return Ok((well, over));
        }
    }
}

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
    host.reply(hello.tag.as_str(), Ok(agent_core::rpc::Value::Nil))?;
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
        nobody.reply(frame.tag.as_str(), Ok(agent_core::rpc::Value::Nil))?;
    }
    assert_eq!(host.ask("after-the-storm0", "va.ping", json!([]))??, "pong");
    assert!(guest.system().rss_mib()? < RSS_MIB);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_floods_the_host_slows_only_itself() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    // A host that takes its time over nobody's calls, and serves games.
    let host = guest
        .host_with(HostDouble::new(|heard| match heard.username.as_deref() {
            Some("nobody") => None,
            _ => Some(Ok("served".into())),
        }))
        .await?;
    let mut nobody = session(&guest, "nobody")?;
    let mut games = session(&guest, "games")?;
    let flood = std::thread::spawn(move || {
        // Without reading one answer, until the daemon reads no further.
        nobody.stream().set_write_timeout(Some(Duration::from_millis(300)))?;
        let mut sent = 0_u32;
        while sent < 200_000 {
            if nobody.call(&format!("flood-{sent:010}"), "host.event", json!({"topic": "x", "data": "y"})).is_err() {
                break;
            }
            sent += 1;
        }
        anyhow::Ok((nobody, sent))
    });
    for number in 0..20 {
        let begin = Instant::now();
        let tag = format!("innocent-{number:07}");
        assert_eq!(games.ask(&tag, "host.event", json!({"topic": "mine", "data": {}}))??, "served");
        let call = host.start(Some("games"), "va.ping", json!(null));
        let (frame, _) = games.next_call()?;
        games.reply(frame.tag.as_str(), Ok("pong".into()))?;
        call.await??;
        host.call("va.ping", json!(null)).await?;
        assert!(begin.elapsed() < PROMPT, "round {number} took {:?}", begin.elapsed());
    }
    let (mut nobody, sent) = flood.join().expect("the flood ends")?;
    assert!(guest.system().rss_mib()? < RSS_MIB, "{} MiB after {sent} calls", guest.system().rss_mib()?);
    // What it was not allowed it was told, once it reads.
    if sent > 5_000 {
        let (_, over) = replies_until(&mut nobody, "flood-0000002000")?;
        assert!(over > 1_500, "only {over} of 2000 were refused");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_daemon_that_never_reads_slows_only_itself() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let host = guest.host().await?;
    let nobody = session(&guest, "nobody")?;
    let mut games = session(&guest, "games")?;
    // Long bodies, more of them than any budget of the host's link holds.
    let long = json!({"handle": 1, "data": blob(&vec![7; 1_000_000])});
    let calls: Vec<_> = (0..40).map(|_| host.start(Some("nobody"), "file.write", long.clone())).collect();
    for round in 0..10 {
        let begin = Instant::now();
        assert_eq!(host.call("va.ping", json!(null)).await?, "pong");
        let call = host.start(Some("games"), "va.ping", json!(null));
        let (frame, _) = games.next_call()?;
        games.reply(frame.tag.as_str(), Ok("pong".into()))?;
        call.await??;
        assert!(begin.elapsed() < PROMPT, "round {round} took {:?}", begin.elapsed());
    }
    assert!(guest.system().rss_mib()? < RSS_MIB, "{} MiB", guest.system().rss_mib()?);
    drop(nobody);
    for call in calls {
        assert!(call.await?.is_err());
    }
    Ok(())
}

#[test]
fn a_host_that_asks_for_a_thousand_reads_and_takes_none_costs_bounded_memory() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let file = guest.path("long");
    std::fs::write(&file, vec![0x5a; 1 << 20])?;
    let mut games = session(&guest, "games")?;
    let mut host = guest.raw()?;
    let open = host.ask("opening-the-file", "file.open", json!({"path": file, "mode": "read"}))??;
    let read = json!({"handle": open["handle"], "offset": 0, "length": 1 << 20});
    for number in 0..1000 {
        let patient = Heads { timeout_ms: Some(0), ..Heads::default() };
        host.frame(call_frame(&format!("read-{number:011}"), "file.read", read.clone(), patient)?)?;
    }
    let mut most = 0;
    for round in 0..40 {
        most = most.max(guest.system().rss_mib()?);
        let begin = Instant::now();
        let tag = format!("beside-it-{round:06}");
        games.call_as("@system", &tag, "va.ping", json!([]))?;
        assert_eq!(games.answer(&tag)??, "pong");
        assert!(begin.elapsed() < PROMPT, "a user's ping took {:?}", begin.elapsed());
    }
    assert!(most < RSS_MIB, "{most} MiB");
    // Once it reads, it gets them all, in whatever order.
    let mut read = 0;
    while read < 1000 {
        let frame = host.next()?.expect("open");
        if frame.tag.as_str().starts_with("read-") {
            assert!(
                frame.body.len() > 1 << 20,
                "{:?}",
                agent_core::encoding::decode_outcome(frame.encoding, &frame.body)
            );
            read += 1;
        }
    }
    most = most.max(guest.system().rss_mib()?);
    assert!(most < RSS_MIB, "{most} MiB");
    Ok(())
}

#[test]
fn a_host_that_floods_and_never_reads_is_read_no_further_and_users_still_answer() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let mut games = session(&guest, "games")?;
    let mut host = guest.raw()?;
    host.stream().set_write_timeout(Some(Duration::from_millis(500)))?;
    let mut sent = 0;
    while sent < 300_000 && host.call(&format!("flood-{sent:010}"), "system.listMethods", json!([])).is_ok() {
        sent += 1;
    }
    assert!(sent < 300_000, "the daemon reads on from a host that takes no answers");
    games.call_as("@system", "beside-the-flood", "va.ping", json!([]))?;
    assert_eq!(games.answer("beside-the-flood")??, "pong");
    assert!(guest.system().rss_mib()? < RSS_MIB, "{} MiB", guest.system().rss_mib()?);
    drop(host);
    wait::until(LIMIT, "the next host to be served", || {
        let mut host = guest.raw()?;
        Ok(host.ask("after-the-flood0", "va.ping", json!([])).ok())
    })??;
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
