//! Who a call reaches, by name and by number, and whom it must not reach.

use std::time::{Duration, Instant};

use agent_core::frame::{Heads, Kind};
use agent_core::rpc::{FaultCode, Value};
use anyhow::{Context, Result};
use serde_json::json;
use virtagent_tests::local::{Guest, HostDouble, account, is_root};

use crate::support::{refused, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_reaches_the_system_level_or_the_user_it_names_by_name_or_number() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let _nobody = guest.user("nobody")?;
    let _games = guest.user("games")?;
    let host = guest.host().await?;
    assert!(host.capabilities.ours);
    let whoami = json!({"argv": ["id", "-u"]});
    let nobody = account("nobody")?.uid.to_string();
    let games = account("games")?.uid.to_string();
    for (user, uid) in [("nobody", &nobody), (&nobody, &nobody), ("games", &games), (&games, &games)] {
        let done = host.call_as(user, "exec.run", whoami.clone()).await?;
        assert_eq!(done["exit_code"], 0, "{done}");
        assert_eq!(text(&done["stdout"]), format!("{uid}\n"), "as {user}");
    }
    let done = host.call("exec.run", whoami).await?;
    assert_eq!(text(&done["stdout"]), "0\n");
    let listed = host.call("session.list", json!(null)).await?;
    let names: Vec<_> = listed["sessions"].as_array().into_iter().flatten().map(|s| s["username"].clone()).collect();
    assert_eq!(names, ["games", "nobody"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_a_session_and_a_user_who_does_not_exist_are_told_apart_at_once() -> Result<()> {
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let begin = Instant::now();
    for user in ["nobody", "65534"] {
        refused(host.call_as(user, "va.ping", json!(null)).await, FaultCode::NoSession);
    }
    for user in ["no-such-user-here", "3999999999"] {
        let fault = refused(host.call_as(user, "va.ping", json!(null)).await, FaultCode::NoSuchUser);
        assert!(fault.message.contains(user), "{fault}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    // Names that are no names cost their own call only.
    for user in ["", " ", "@nobody", "../nobody", "nobody\u{0}", "ñobody", "-1", "0x0", &"n".repeat(300)] {
        assert!(host.call_as(user, "va.ping", json!(null)).await.is_err(), "{user:?} was somebody");
    }
    assert_eq!(host.call("va.ping", json!(null)).await?, "pong");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_username_that_a_user_daemon_writes_itself_is_overwritten() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let mut nobody = guest.session(account("nobody")?.uid.as_raw())?;
    nobody.hello()?;
    for (number, name) in ["root", "games", "0", "", "@active", "nobody"].into_iter().enumerate() {
        let tag = format!("spoofed-{number:08}");
        nobody.call_as(name, &tag, "host.event", json!({"topic": tag, "data": {}}))?;
        nobody.answer(&tag)??;
        let heard = host.double.wait_heard(&tag, |heard| heard.params.to_string().contains(&tag))?;
        assert_eq!(heard.username.as_deref(), Some("nobody"), "it said it was {name:?}");
    }
    let records = guest.audit();
    let events: Vec<_> = records.iter().filter(|record| record["method"] == "host.event").collect();
    let of = |name: &str| events.iter().filter(|record| record["origin"] == "user" && record["user"] == name).count();
    assert!(of("nobody") >= 6 && of("root") == 0 && of("games") == 0, "{events:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_reaches_of_the_system_level_only_ping_and_capabilities() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let mut nobody = guest.session(account("nobody")?.uid.as_raw())?;
    nobody.hello()?;
    let mut number = 0;
    let mut ask = |method: &str, params: serde_json::Value| {
        number += 1;
        let tag = format!("upwards-{number:08}");
        nobody.call_as("@system", &tag, method, params)?;
        nobody.answer(&tag)
    };
    assert_eq!(ask("va.ping", json!([]))??, "pong");
    assert_eq!(ask("va.capabilities", json!([]))??["level"], "system");
    let calls = json!([[{"methodName": "session.list", "params": []}]]);
    for (method, params) in [
        ("session.list", json!([])),
        ("exec.run", json!({"argv": ["id"]})),
        ("file.open", json!({"path": "/etc/shadow", "mode": "read"})),
        ("va.getfile", json!(["/etc/shadow"])),
        ("va.describe", json!(["exec.run"])),
        ("va.cancel", json!(["upwards-00000001"])),
        ("va.hello", json!([])),
        ("session.hello", json!({})),
        ("session.host_left", json!({})),
        ("session.replaced", json!({})),
        ("system.listMethods", json!([])),
        ("system.multicall", calls),
    ] {
        let outcome = ask(method, params)?;
        assert!(outcome.is_err(), "{method}: {outcome:?}");
        if !method.starts_with("session.h") {
            refused(outcome, FaultCode::Denied);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_never_reach_each_other() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host_with(HostDouble::that_pongs()).await?;
    let (nobody_id, games_id) = (account("nobody")?.uid.as_raw(), account("games")?.uid.as_raw());
    let mut nobody = guest.session(nobody_id)?;
    let mut games = guest.session(games_id)?;
    nobody.hello()?;
    games.hello()?;
    for (number, name) in ["nobody", &nobody_id.to_string(), "@active", "root", "@all", "@host"].into_iter().enumerate()
    {
        let tag = format!("sideways-{number:07}");
        games.call_as(name, &tag, "exec.run", json!({"argv": ["id"]}))?;
        // It goes where every user's call goes: to the host, in the caller's own name, and the host serves no such thing.
        refused(games.answer(&tag)?, FaultCode::MethodNotFound);
    }
    assert!(
        host.double
            .heard()
            .iter()
            .all(|heard| heard.method != "exec.run" || heard.username.as_deref() == Some("games"))
    );
    // Nothing of it came to the other user: what comes first is the host's own call.
    let call = host.start(Some("nobody"), "va.ping", json!(null));
    let (frame, call_seen) = nobody.next_call()?;
    assert_eq!(call_seen.method.as_str(), "va.ping");
    nobody.reply(frame.tag.as_str(), Ok("it is me".into()))?;
    assert_eq!(call.await??, "it is me");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_daemon_cannot_answer_another_users_call() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let mut nobody = guest.session(account("nobody")?.uid.as_raw())?;
    let mut games = guest.session(account("games")?.uid.as_raw())?;
    nobody.hello()?;
    games.hello()?;
    let call = host.start(Some("nobody"), "exec.run", json!({"argv": ["id"]}));
    let (frame, _) = nobody.next_call()?;
    let tag = frame.tag.as_str().to_owned();
    games.reply(&tag, Ok("forged".into()))?;
    // The host's own tags are guessed too, and a reply in another's name.
    games.reply("0000000000000000", Ok("forged".into()))?;
    games.frame(agent_core::frame::Frame {
        kind: Kind::Reply,
        tag: tag.parse()?,
        encoding: agent_core::encoding::Encoding::Json,
        heads: Heads { username: Some("nobody".into()), ..Heads::default() },
        body: "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"forged\"}".into(),
    })?;
    guest.audited("games' reply dropped", |record| record["event"] == "reply.dropped" && record["user"] == "games")?;
    // Whatever games sends is read in order: once it is answered, the forged replies have been taken.
    assert_eq!(ask_system(&mut games)?, "pong");
    nobody.reply(&tag, Ok("true".into()))?;
    assert_eq!(call.await??, "true");
    // A used tag is no tag any more.
    nobody.reply(&tag, Ok("again".into()))?;
    guest
        .audited("nobody's reply dropped", |record| record["event"] == "reply.dropped" && record["user"] == "nobody")?;
    assert_eq!(ask_system(&mut nobody)?, "pong");
    Ok(())
}

fn ask_system(user: &mut virtagent_tests::local::Raw) -> Result<serde_json::Value> {
    user.call_as("@system", "is-anybody-there", "va.ping", json!([]))?;
    user.answer("is-anybody-there")?.context("va.ping")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_answers_with_faults_of_its_own_and_the_host_gets_them() -> Result<()> {
    if !is_root() {
        return Ok(());
    }
    let guest = Guest::start()?;
    let host = guest.host().await?;
    let mut nobody = guest.session(account("nobody")?.uid.as_raw())?;
    nobody.hello()?;
    let call = host.start(Some("nobody"), "made.up", json!({"a": 1}));
    let (frame, seen) = nobody.next_call()?;
    assert_eq!(seen.params[0].get("a"), Some(&Value::Int(1)));
    let fault = agent_core::rpc::Fault { code: 4711, message: "not today".into(), data: None };
    nobody.reply(frame.tag.as_str(), Err(fault.clone()))?;
    assert_eq!(call.await?.unwrap_err(), fault);
    Ok(())
}
