//! What is written, when, and by whom.

use std::os::unix::net::UnixDatagram;

use futures_util::future::join_all;

use super::*;
use crate::rpc::{Fault, FaultCode};

#[tokio::test]
async fn a_call_is_in_the_file_before_it_may_run_and_its_outcome_follows() {
    let place = Place::new();
    let audit = place.start();
    let recorded = audit.open(opening(7, "exec.run", Some("alice"))).await.unwrap();
    let records = place.records();
    assert_eq!(kinds(&records), ["start", "call"]);
    let call = &records[1];
    assert_eq!((&call["id"], &call["user"], &call["uid"]), (&json!(7), &json!("alice"), &json!(1000)));
    assert_eq!((&call["seq"], &call["method"], &call["verdict"]), (&json!(2), &json!("exec.run"), &json!("allow")));
    audit.close(recorded, closing()).await;
    audit.stop().await;
    let records = place.records();
    assert_eq!(kinds(&records), ["start", "call", "outcome", "stop"]);
    assert_eq!((&records[2]["id"], &records[2]["duration_us"]), (&json!(7), &json!(1234)));
    assert_eq!(sound(&place.log()).unfinished, []);
}

#[tokio::test]
async fn a_refused_call_is_one_line_with_its_fault() {
    let place = Place::new();
    place.sample().await;
    let records = place.records();
    let denied = &records[3];
    assert_eq!((&denied["type"], &denied["verdict"]), (&json!("call"), &json!("deny")));
    assert_eq!(denied["fault"], json!({ "code": -32003, "name": "denied", "message": "not here" }));
    assert_eq!(sound(&place.log()).unfinished, []);
}

#[tokio::test]
async fn secrets_never_appear_in_the_file() {
    let place = Place::new();
    let audit = place.start();
    let secret = "correct horse battery staple";
    let params = [Value::object([
        ("user", "alice".into()),
        ("password", secret.into()),
        ("options", Value::Array(vec![Value::object([("password", Value::Array(vec![secret.into()]))])])),
    ])];
    let secrets = ["password"];
    let params = summarise(&params, &["user", "password", "options"], &secrets);
    let recorded = audit.open(Opening { params, ..opening(1, "user.set_password", None) }).await.unwrap();
    let result = Ok(Value::object([("password", secret.into())]));
    audit.close(recorded, Closing::new(&result, &secrets, Duration::ZERO, 0, 0)).await;
    audit.stop().await;
    assert!(place.content().contains("<hidden>"));
    assert!(!place.content().contains(secret));
}

#[tokio::test]
async fn two_daemons_cannot_write_one_log() {
    let place = Place::new();
    let audit = place.start();
    let error = Audit::start(&place.settings()).unwrap_err();
    assert_eq!(error, AuditError::Locked { file: place.log() });
    audit.stop().await;
    place.start().stop().await;
    sound(&place.log());
}

#[tokio::test]
async fn ten_thousand_calls_at_once_share_their_writes() {
    let place = Place::new();
    let audit = place.start();
    let opened = join_all((1..=10_000).map(|id| audit.open(opening(id, "exec.run", None)))).await;
    let writes = audit.writes();
    assert!(writes < 2500, "{writes} writes");
    for recorded in opened {
        audit.close(recorded.unwrap(), closing()).await;
    }
    audit.stop().await;
    let report = sound(&place.log());
    assert_eq!((report.records, report.unfinished.len()), (20_002, 0));
}

#[tokio::test]
async fn records_stand_in_the_order_of_their_calls_whoever_is_polled_first() {
    let place = Place::new();
    let audit = place.start();
    let mut opened: Vec<_> = (1..=500).map(|id| audit.open(opening(id, "exec.run", None))).collect();
    opened.reverse();
    join_all(opened).await.into_iter().for_each(|recorded| recorded.unwrap().forget());
    audit.stop().await;
    let ids = place.records().into_iter().filter(|record| record["type"] == "call").map(|call| call["id"].clone());
    assert!(ids.eq(1..=500));
}

#[tokio::test]
async fn counted_methods_write_nothing_but_the_counter() {
    let place = Place::new();
    let audit = place.start();
    for id in 0..1000 {
        let user = (id % 2 == 0).then_some("alice");
        let recorded = audit.open(opening(id, "va.ping", user)).await.unwrap();
        let outcome = if id == 0 { Err(Fault::new(FaultCode::TimedOut, "late")) } else { Ok(Value::Nil) };
        audit.close(recorded, Closing::new(&outcome, &[], Duration::ZERO, 0, 0)).await;
    }
    audit.flush().await;
    audit.flush().await;
    let records = place.records();
    assert_eq!(kinds(&records), ["start", "counted"]);
    let counts = json!([
        { "method": "va.ping", "ok": 500, "fault": 0 },
        { "method": "va.ping", "ok": 499, "fault": 1, "user": "alice" },
    ]);
    assert_eq!(records[1]["counts"], counts);
    audit.stop().await;
}

#[tokio::test]
async fn counts_are_written_when_their_time_is_over_and_not_again() {
    let place = Place::new();
    let audit = Audit::start_with(&place.settings(), Duration::from_millis(20), Path::new("/nonexistent")).unwrap();
    let mut expected = vec!["start"];
    for _ in 0..2 {
        let recorded = audit.open(opening(1, "va.ping", None)).await.unwrap();
        audit.close(recorded, closing()).await;
        expected.push("counted");
        let written = async {
            while kinds(&place.records()) != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), written).await.unwrap();
    }
    audit.stop().await;
    expected.push("stop");
    assert_eq!(kinds(&place.records()), expected);
}

#[tokio::test]
async fn a_denied_call_of_a_counted_method_is_written_all_the_same() {
    let place = Place::new();
    let audit = place.start();
    audit.refuse(opening(1, "va.ping", None), &Fault::new(FaultCode::Denied, "no")).await;
    audit.stop().await;
    assert_eq!(kinds(&place.records()), ["start", "call", "stop"]);
}

#[tokio::test]
async fn a_call_that_nobody_closes_is_closed_as_given_up() {
    let place = Place::new();
    let audit = place.start();
    drop(audit.open(opening(1, "exec.run", None)).await.unwrap());
    // Nobody waits for this one's record, so nobody will run it.
    drop(audit.open(opening(2, "exec.run", None)));
    audit.flush().await;
    audit.stop().await;
    let records = place.records();
    let outcomes: Vec<_> = records.iter().filter(|record| record["type"] == "outcome").collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|outcome| outcome["fault"]["name"] == "cancelled"));
    assert_eq!(sound(&place.log()).unfinished, []);
}

#[tokio::test]
async fn what_was_queued_before_a_stop_is_written_and_what_comes_after_is_refused() {
    let place = Place::new();
    let audit = place.start();
    let recorded = audit.open(opening(1, "exec.run", None)).await.unwrap();
    let late = audit.open(opening(2, "exec.run", None)).await.unwrap();
    let events: Vec<_> = (0..3000).map(|_| audit.event(Event::new("session.connected"))).collect();
    let close = audit.close(recorded, closing());
    tokio::join!(join_all(events), close, audit.stop());
    assert_eq!(audit.open(opening(3, "exec.run", None)).await.unwrap_err(), AuditError::Stopped);
    audit.close(late, closing()).await;
    audit.stop().await;
    let records = place.records();
    assert_eq!(records.iter().filter(|record| record["type"] == "event").count(), 3000);
    assert_eq!(records.last().unwrap()["type"], "stop");
    let unfinished = sound(&place.log()).unfinished;
    assert_eq!(unfinished.iter().map(|call| call.id).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_disabled_log_lets_calls_run() {
    let audit = Audit::disabled();
    let recorded = audit.open(opening(1, "exec.run", None)).await.unwrap();
    assert_eq!(recorded.id(), CallId(1));
    audit.close(recorded, closing()).await;
    audit.flush().await;
    audit.reopen().await.unwrap();
    audit.stop().await;
}

fn fields(datagram: &[u8]) -> Vec<&str> {
    std::str::from_utf8(datagram).unwrap().lines().collect()
}

#[tokio::test]
async fn each_record_goes_to_journald_with_its_fields() {
    let place = Place::new();
    let socket = place.dir.path().join("journal");
    let receiver = UnixDatagram::bind(&socket).unwrap();
    let settings = AuditSettings { journal: true, ..place.settings() };
    let audit = Audit::start_with(&settings, Duration::from_secs(60), &socket).unwrap();
    let recorded = audit.open(opening(7, "exec.run", Some("alice"))).await.unwrap();
    audit.close(recorded, closing()).await;
    audit.stop().await;
    let mut buffer = [0; 65536];
    let mut entries = Vec::new();
    for _ in 0..4 {
        let length = receiver.recv(&mut buffer).unwrap();
        entries.push(fields(&buffer[..length]).into_iter().map(str::to_owned).collect::<Vec<_>>());
    }
    let call = &entries[1];
    let has = |entry: &Vec<String>, field: &str| assert!(entry.iter().any(|f| f == field), "{field}: {entry:?}");
    for field in [
        "SYSLOG_IDENTIFIER=virtagentd",
        "PRIORITY=6",
        "VIRTAGENT_TYPE=call",
        "VIRTAGENT_ID=7",
        "VIRTAGENT_METHOD=exec.run",
        "VIRTAGENT_USER=alice",
        "VIRTAGENT_VERDICT=allow",
        "VIRTAGENT_RULE=default",
        "VIRTAGENT_SEQ=2",
        "MESSAGE=#7 host calls exec.run of alice",
    ] {
        has(call, field);
    }
    has(&entries[2], "VIRTAGENT_OUTCOME=ok");
    let line = place.content().lines().nth(1).unwrap().to_owned();
    has(call, &format!("VIRTAGENT_HASH={}", LineHash::of(line.as_bytes())));
}

#[tokio::test]
async fn a_journald_that_takes_nothing_never_stops_the_log_and_the_loss_is_told() {
    let place = Place::new();
    let socket = place.dir.path().join("journal");
    let receiver = UnixDatagram::bind(&socket).unwrap();
    let settings = AuditSettings { journal: true, ..place.settings() };
    let audit = Audit::start_with(&settings, Duration::from_secs(60), &socket).unwrap();
    for id in 0..2000 {
        let recorded = audit.open(opening(id, "exec.run", None)).await.unwrap();
        audit.close(recorded, closing()).await;
    }
    audit.stop().await;
    drop(receiver);
    let records = place.records();
    assert_eq!(records.len(), 4002);
    assert!(records.iter().any(|record| record["journal_lost"].as_u64() > Some(0)));
    sound(&place.log());
}

#[tokio::test]
async fn with_the_journal_as_the_only_log_a_record_that_it_does_not_take_refuses_its_call() {
    let place = Place::new();
    let socket = place.dir.path().join("journal");
    let settings = AuditSettings { file: None, journal: true, ..AuditSettings::default() };
    let audit = Audit::start_with(&settings, Duration::from_secs(60), &socket).unwrap();
    let error = audit.open(opening(1, "exec.run", None)).await.unwrap_err();
    assert!(matches!(error, AuditError::Journal { .. }), "{error}");
    let receiver = UnixDatagram::bind(&socket).unwrap();
    let recorded = audit.open(opening(2, "exec.run", None)).await.unwrap();
    let mut buffer = [0; 65536];
    // The start, which was kept, and the call.
    for kind in ["start", "call"] {
        let length = receiver.recv(&mut buffer).unwrap();
        let entry = fields(&buffer[..length]);
        let record = entry.iter().find_map(|field| field.strip_prefix("VIRTAGENT_RECORD=")).unwrap();
        assert_eq!(serde_json::from_str::<Json>(record).unwrap()["type"], kind);
    }
    audit.close(recorded, closing()).await;
    audit.stop().await;
}
