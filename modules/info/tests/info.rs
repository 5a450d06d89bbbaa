//! The module through its real method table, on this machine.

use agent_core::module::Level;
use agent_core::module::testing::Harness;
use agent_core::rpc::{FaultCode, Value};
use virtagent_info::Info;

fn info() -> Harness<Info> {
    let settings = "bus = 'unix:path=/nonexistent/bus'".parse().unwrap_or_default();
    Harness::new(Level::System, "/root", settings)
}

#[tokio::test]
async fn the_guest_tells_what_it_is() {
    let guest = info().call("info.get", vec![]).await.unwrap();
    let text = |value: &Value, name: &str| value.get(name).unwrap().as_str().unwrap().to_owned();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(text(guest.get("kernel").unwrap(), "release"), release.trim());
    assert_eq!(text(&guest, "boot_id").len(), 36);
    assert!(!text(&guest, "hostname").is_empty());
    assert!(guest.get("os").unwrap().get("id").is_some());
    assert!(matches!(guest.get("uptime"), Some(Value::Double(seconds)) if *seconds > 0.0));
    assert!(guest.get("timezone").unwrap().get("offset").unwrap().as_int().is_some());
}

#[tokio::test]
async fn the_kernels_messages_are_bounded_by_what_was_asked_and_by_the_limit() {
    let info = info();
    match info.call("info.dmesg", vec![Value::Int(300)]).await {
        Ok(answer) => assert!(answer.get("text").unwrap().as_str().unwrap().len() <= 300),
        // Where /dev/kmsg is kept from us, the fault says so.
        Err(fault) => assert!(fault.is(FaultCode::Os) && fault.message.contains("/dev/kmsg"), "{fault}"),
    }
    if let Ok(text) = info.call("va.getdmesg", vec![]).await {
        assert!(text.as_str().unwrap().len() <= 16_384);
    }
    let refused = info.call("info.dmesg", vec![Value::Int(1 << 21)]).await.unwrap_err();
    assert!(refused.is(FaultCode::LimitExceeded), "{refused}");
}

#[tokio::test]
async fn without_a_bus_the_logins_are_unavailable_and_the_fault_says_why() {
    let refused = info().call("info.logins", vec![]).await.unwrap_err();
    assert!(refused.is(FaultCode::Unavailable), "{refused}");
}

#[tokio::test]
async fn nothing_takes_parameters_that_it_does_not_know() {
    let refused = info().call_named("info.get", [("verbose", true.into())]).await.unwrap_err();
    assert!(refused.is(FaultCode::InvalidParams), "{refused}");
}
