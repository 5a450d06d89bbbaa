//! The module through its real method table: real parameters, real faults, and a host that takes its calls.

use agent_core::module::testing::Harness;
use agent_core::module::{Level, OwnerId};
use agent_core::rpc::{Fault, FaultCode, Value};
use virtagent_template::Notes;

fn notes(settings: &str) -> Harness<Notes> {
    Harness::new(Level::User, "/nonexistent", settings.parse().unwrap_or_default())
}

fn listed(texts: &[&str]) -> Value {
    texts.iter().map(|text| Value::from(*text)).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn a_note_is_written_down_by_position_and_by_name() {
    let notes = notes("");
    assert_eq!(notes.call("notes.add", vec!["milk".into()]).await, Ok(listed(&["milk"])));
    assert_eq!(notes.call_named("notes.add", [("text", "bread".into())]).await, Ok(listed(&["milk", "bread"])));
}

#[tokio::test]
async fn each_caller_sees_its_own_notes_and_they_go_when_it_goes() {
    let notes = notes("");
    let (alice, bob) = (OwnerId(1), OwnerId(2));
    let add = |owner, text: &str| notes.call_as(owner, "notes.add", vec![text.into()]);
    add(alice, "milk").await.unwrap();
    assert_eq!(add(bob, "beer").await, Ok(listed(&["beer"])));
    notes.owner_gone(alice);
    assert_eq!(add(alice, "tea").await, Ok(listed(&["tea"])));
}

#[tokio::test]
async fn a_note_over_the_limit_is_refused_with_the_setting_to_change() {
    let notes = notes("max_notes = 1");
    notes.call("notes.add", vec!["milk".into()]).await.unwrap();
    let refused = notes.call("notes.add", vec!["bread".into()]).await.unwrap_err();
    assert!(refused.is(FaultCode::LimitExceeded) && refused.message.contains("module.notes.max_notes"), "{refused}");
}

#[tokio::test]
async fn the_host_is_told_and_its_fault_is_the_callers() {
    let notes = notes("");
    let mut calls = notes.host_calls();
    notes.call("notes.add", vec!["milk".into()]).await.unwrap();
    let (method, params) = calls.recv().await.unwrap();
    assert_eq!(method, "host.event");
    assert_eq!(params, [Value::object([("topic", "notes.added".into()), ("data", "milk".into())])]);

    notes.host_answers(Err(Fault::unavailable("the host is away")));
    let refused = notes.call("notes.add", vec!["bread".into()]).await.unwrap_err();
    assert_eq!(refused.message, "the host is away");
}

#[tokio::test]
async fn a_parameter_of_another_name_or_type_is_refused() {
    for params in [[("note", "milk".into())], [("text", Value::Int(1))]] {
        let refused = notes("").call_named("notes.add", params).await.unwrap_err();
        assert!(refused.is(FaultCode::InvalidParams), "{refused}");
    }
}
