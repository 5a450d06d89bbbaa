//! Peers that send too much or read too little: each slows only itself.

use std::time::{Duration, Instant};

use agent_core::frame::{Heads, Kind};
use agent_core::link::CallOptions;
use agent_core::rpc::{FaultCode, Value};
use anyhow::Result;
use serde_json::json;
use virtagent_tests::local::{Guest, HostDouble, LIMIT, Raw, account, call_frame, is_root};
use virtagent_tests::wait;

/// What a daemon may have in RAM at most, whatever its peers do, in MiB; a debug build at rest has about 20.
pub(crate) const RSS_MIB: u64 = 120;

/// How long an innocent party's ping may take beside a flood.
const PROMPT: Duration = Duration::from_secs(10);

pub(crate) fn session(guest: &Guest, name: &str) -> Result<Raw> {
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
    let long = Value::object([("handle", Value::Int(1)), ("data", Value::Bytes(vec![7; 1_000_000].into()))]);
    let calls: Vec<_> = (0..40)
        .map(|_| {
            let (link, long) = (host.link().clone(), long.clone());
            let options = CallOptions { username: Some("nobody".into()), ..CallOptions::default() };
            tokio::spawn(async move { link.call("file.write", vec![long], &options).await })
        })
        .collect();
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
    // A peer of 2011 would not be answered late, and so never fill anything.
    let patient = Heads { timeout_ms: Some(0), ..Heads::default() };
    let mut sent = 0;
    while sent < 300_000
        && host.call_with(&format!("flood-{sent:010}"), "system.listMethods", json!([]), patient.clone()).is_ok()
    {
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

#[test]
fn a_user_who_floods_with_replies_to_nothing_neither_fills_the_log_nor_delays_others() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let mut nobody = session(&guest, "nobody")?;
    let mut games = session(&guest, "games")?;
    for number in 0..20_000 {
        nobody.reply(&format!("stray-{number:010}"), Ok(Value::Nil))?;
        if number % 4_000 == 0 {
            let begin = Instant::now();
            let tag = format!("innocent-{number:07}");
            games.call_as("@system", &tag, "va.ping", json!([]))?;
            assert_eq!(games.answer(&tag)??, "pong");
            assert!(begin.elapsed() < PROMPT, "{:?}", begin.elapsed());
        }
    }
    nobody.call_as("@system", "the-last-of-them", "va.ping", json!([]))?;
    nobody.answer("the-last-of-them")??;
    let records = guest.events("reply.dropped");
    assert!(!records.is_empty() && records.len() < 1_000, "{} records", records.len());
    assert!(guest.system().rss_mib()? < RSS_MIB);
    Ok(())
}

#[test]
fn a_user_who_joins_and_leaves_again_and_again_costs_bounded_memory_and_no_other_user_anything() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let mut guest = Guest::start()?;
    let mut games = session(&guest, "games")?;
    let mut before = 0;
    for round in 0..60 {
        drop(session(&guest, "nobody")?);
        if round == 20 {
            before = guest.system().rss_mib()?;
        }
    }
    games.call_as("@system", "still-the-same00", "va.ping", json!([]))?;
    assert_eq!(games.answer("still-the-same00")??, "pong");
    let after = guest.system().rss_mib()?;
    assert!(after <= before + 5, "{before} MiB became {after} MiB");
    Ok(())
}
