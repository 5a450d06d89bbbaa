//! What people read.

use std::io::{self, Write};
use std::sync::mpsc;

use super::*;
use crate::audit::chain::rotated_path;

fn shown(log: &Path, filter: &Filter, how: Show) -> Vec<String> {
    let mut out = Vec::new();
    show(log, filter, how, &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

/// A line without its time, which comes first.
fn untimed(line: &str) -> &str {
    line.split_once(' ').unwrap().1
}

#[tokio::test]
async fn a_call_and_its_outcome_are_one_line() {
    let place = Place::new();
    place.sample().await;
    let lines = shown(&place.log(), &Filter::default(), Show::Text);
    assert!(untimed(&lines[0]).starts_with("start version="), "{lines:?}");
    let rest: Vec<_> = lines[1..].iter().map(|line| untimed(line)).collect();
    let expected = [
        r#"#1 host->alice exec.run argv=["id"] allow (default) ok 1.2 ms"#,
        r#"#2 host->system file.write argv=["id"] deny (policy.toml:3) denied: not here"#,
        "event host.away",
        "stop",
    ];
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn a_filter_takes_a_user_methods_and_a_time() {
    let place = Place::new();
    place.sample().await;
    let count = |filter: &Filter| shown(&place.log(), filter, Show::Text).len();
    assert_eq!(count(&Filter { user: Some("alice".into()), ..Filter::default() }), 1);
    assert_eq!(count(&Filter { method: Some("file.*".into()), ..Filter::default() }), 1);
    assert_eq!(count(&Filter { method: Some("*".into()), ..Filter::default() }), 2);
    let later = std::time::SystemTime::now() + Duration::from_secs(60);
    assert_eq!(count(&Filter { since: Some(later), ..Filter::default() }), 0);
    let bad = Filter { method: Some("{".into()), ..Filter::default() };
    assert!(matches!(show(&place.log(), &bad, Show::Text, &mut Vec::new()), Err(AuditError::Settings(_))));
}

#[tokio::test]
async fn programs_get_one_object_for_each_call() {
    let place = Place::new();
    place.sample().await;
    let filter = Filter { user: Some("alice".into()), ..Filter::default() };
    let lines = shown(&place.log(), &filter, Show::Json);
    let call: Json = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(
        (&call["method"], &call["duration_us"], &call["result"]),
        (&json!("exec.run"), &json!(1234), &Json::Null)
    );
    assert_eq!(call.get("prev"), None);
}

#[tokio::test]
async fn calls_without_an_outcome_are_shown_as_such() {
    let place = Place::new();
    let audit = place.start();
    audit.open(opening(1, "exec.run", None)).await.unwrap().forget();
    audit.stop().await;
    let audit = place.start();
    audit.open(opening(1, "exec.run", None)).await.unwrap().forget();
    audit.stop().await;
    let filter = Filter { method: Some("*".into()), ..Filter::default() };
    let lines = shown(&place.log(), &filter, Show::Text);
    assert!(lines[0].ends_with("cut short") && lines[1].ends_with("no outcome"), "{lines:?}");
}

/// Hands each line to the test, and fails when the test has seen enough.
struct Lines(mpsc::Sender<String>, Vec<u8>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        while let Some(at) = self.1.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.1.drain(..=at).collect();
            let line = String::from_utf8(line).unwrap();
            self.0.send(line.trim_end().to_owned()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn following_survives_rotation_and_misses_nothing() {
    let place = Place::new();
    let settings = AuditSettings { rotate_size: AuditSettings::ROTATE_MIN, keep: 100, ..place.settings() };
    let audit = Audit::start(&settings).unwrap();
    let (sender, lines) = mpsc::channel();
    let log = place.log();
    let follower = std::thread::spawn(move || {
        let filter = Filter { method: Some("exec.*".into()), ..Filter::default() };
        follow(&log, &filter, Show::Text, &mut Lines(sender, Vec::new()))
    });
    for id in 0..1000 {
        let recorded = audit.open(opening(id, "exec.run", None)).await.unwrap();
        audit.close(recorded, closing()).await;
    }
    audit.flush().await;
    let all: Vec<String> = (0..1000).map(|_| lines.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    for (id, line) in all.iter().enumerate() {
        assert!(untimed(line).starts_with(&format!("#{id} host->system exec.run")), "{id}: {line}");
    }
    assert!(rotated_path(&place.log(), 3).exists());

    // Moved away and begun anew, too.
    std::fs::rename(place.log(), place.dir.path().join("elsewhere")).unwrap();
    audit.reopen().await.unwrap();
    let recorded = audit.open(opening(1000, "exec.run", None)).await.unwrap();
    // Without an outcome for a while it is shown as running, then with its outcome.
    let running = lines.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(running.ends_with("running"), "{running}");
    audit.close(recorded, closing()).await;
    assert!(lines.recv_timeout(Duration::from_secs(20)).unwrap().ends_with("ok 1.2 ms"));

    drop(lines);
    let recorded = audit.open(opening(1001, "exec.run", None)).await.unwrap();
    audit.close(recorded, closing()).await;
    audit.stop().await;
    follower.join().unwrap().unwrap();
}
