//! Whatever is done to a log is found.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::audit::chain::{lock_path, rotated_path};

#[tokio::test]
async fn altering_any_byte_is_found() {
    let place = Place::new();
    place.sample().await;
    let original = std::fs::read(place.log()).unwrap();
    sound(&place.log());
    for at in 0..original.len() {
        for flip in [1, 0x80, b'\n' ^ original[at]] {
            let mut altered = original.clone();
            altered[at] ^= flip;
            if altered != original {
                std::fs::write(place.log(), &altered).unwrap();
                broken(&place.log());
            }
        }
    }
}

#[tokio::test]
async fn removing_inserting_or_swapping_lines_is_found_and_named() {
    let place = Place::new();
    place.sample().await;
    let original = place.content();
    let lines: Vec<&str> = original.lines().collect();
    let write = |lines: &[&str]| std::fs::write(place.log(), lines.join("\n") + "\n").unwrap();
    for at in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(at);
        write(&removed);
        assert_eq!(broken(&place.log()).line, at as u64 + 1, "removed line {}", at + 1);

        let mut inserted = lines.clone();
        inserted.insert(at, lines[2]);
        write(&inserted);
        broken(&place.log());

        for other in 0..at {
            let mut swapped = lines.clone();
            swapped.swap(at, other);
            write(&swapped);
            assert_eq!(broken(&place.log()).line, other as u64 + 1);
        }
    }
    write(&lines);
    sound(&place.log());
}

#[tokio::test]
async fn an_end_that_was_cut_off_is_found_before_and_after_the_next_start() {
    let place = Place::new();
    place.sample().await;
    let original = place.content();
    let end = original.trim_end().rfind('\n').unwrap();
    std::fs::write(place.log(), &original[..=end]).unwrap();
    assert!(broken(&place.log()).why.contains("its end was removed"));
    place.start().stop().await;
    let report = sound(&place.log());
    assert_eq!(report.recovered.len(), 1);
    assert!(report.recovered[0].what.starts_with("1 records are missing"), "{report}");
    let records = place.records();
    assert_eq!(kinds(&records[5..]), ["recovered", "start", "stop"]);
    assert_eq!(records[5]["seq"], 7, "numbers are not used twice");
}

#[tokio::test]
async fn a_last_record_that_was_altered_between_two_starts_is_found() {
    let place = Place::new();
    place.sample().await;
    let altered = place.content().replace("\"type\":\"stop\"", "\"type\":\"STOP\"");
    std::fs::write(place.log(), altered).unwrap();
    place.start().stop().await;
    assert!(broken(&place.log()).why.contains("altered"));
}

#[tokio::test]
async fn a_log_that_was_deleted_between_two_starts_is_found() {
    let place = Place::new();
    place.sample().await;
    std::fs::remove_file(place.log()).unwrap();
    place.start().stop().await;
    let report = sound(&place.log());
    assert!(report.recovered[0].what.starts_with("6 records are missing"), "{report}");
    assert_eq!(place.records()[0]["seq"], 7);
}

#[tokio::test]
async fn a_torn_end_is_recovered_and_told() {
    let place = Place::new();
    for torn in ["{\"seq\":7,\"time\":\"20", "\0\0\0\0", "garbage\nand {more"] {
        let _ = std::fs::remove_dir_all(place.dir.path());
        place.sample().await;
        std::fs::write(place.log(), place.content() + torn).unwrap();
        assert_eq!(broken(&place.log()).line, 7, "{torn:?}");
        place.start().stop().await;
        let report = sound(&place.log());
        assert!(report.recovered[0].what.starts_with("a write was cut short"), "{report}");
        // Started once more, there is nothing new to tell.
        place.start().stop().await;
        assert_eq!(sound(&place.log()).recovered.len(), 1);
    }
}

#[tokio::test]
async fn a_record_that_lacks_only_its_newline_is_kept() {
    let place = Place::new();
    place.sample().await;
    std::fs::write(place.log(), place.content().trim_end()).unwrap();
    place.start().stop().await;
    let report = sound(&place.log());
    assert_eq!((report.records, report.last), (9, 9));
}

#[tokio::test]
async fn a_torn_line_without_a_record_of_its_recovery_is_found() {
    let place = Place::new();
    place.sample().await;
    let original = place.content();
    let (before, after) = original.split_at(original.find('\n').unwrap() + 1);
    std::fs::write(place.log(), format!("{before}torn\n{after}")).unwrap();
    assert_eq!(broken(&place.log()).line, 2);
}

#[tokio::test]
async fn rotation_keeps_the_chain_over_files_and_restarts() {
    let place = Place::new();
    let settings = AuditSettings { rotate_size: AuditSettings::ROTATE_MIN, keep: 3, ..place.settings() };
    let write = async |from: u64, to: u64| {
        let audit = Audit::start(&settings).unwrap();
        for id in from..to {
            let recorded = audit.open(opening(id, "exec.run", None)).await.unwrap();
            audit.close(recorded, closing()).await;
        }
        audit.stop().await;
    };
    write(0, 350).await;
    let report = sound(&place.log());
    assert_eq!((report.first, report.files.len()), (1, 3), "{report}");
    write(350, 1000).await;
    let report = sound(&place.log());
    assert_eq!(report.files.len(), 4);
    assert!(report.first > 1);
    assert_eq!(report.last, report.first + report.records - 1);
    assert_eq!(place.records()[0]["type"], "rotate");
    for file in &report.files {
        assert!(file.metadata().unwrap().len() <= settings.rotate_size);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    }

    // What is removed or altered in a rotated file is found too.
    let second = rotated_path(&place.log(), 2);
    let original = std::fs::read_to_string(&second).unwrap();
    let cut = original.trim_end().rfind('\n').unwrap();
    std::fs::write(&second, &original[..=cut]).unwrap();
    let found = broken(&place.log());
    assert_eq!((found.file, found.line), (rotated_path(&place.log(), 1), 1));
    std::fs::remove_file(&second).unwrap();
    broken(&place.log());
    std::fs::write(&second, original).unwrap();
    sound(&place.log());
    std::fs::remove_file(rotated_path(&place.log(), 3)).unwrap();
    assert!(broken(&place.log()).why.contains("3 rotated files were kept"));
}

#[tokio::test]
async fn counts_are_written_at_rotation() {
    let place = Place::new();
    let settings = AuditSettings { rotate_size: AuditSettings::ROTATE_MIN, ..place.settings() };
    let audit = Audit::start(&settings).unwrap();
    let ping = audit.open(opening(1, "va.ping", None)).await.unwrap();
    audit.close(ping, closing()).await;
    while !rotated_path(&place.log(), 1).exists() {
        audit.event(Event::new("x").with("y".repeat(4000).into())).await;
        drop(audit.open(opening(2, "exec.run", None)).await.unwrap());
    }
    assert_eq!(kinds(&place.records())[..2], ["rotate", "counted"]);
    audit.stop().await;
    sound(&place.log());
}

#[tokio::test]
async fn a_log_that_logrotate_moved_goes_on_in_a_new_file_after_reopen() {
    let place = Place::new();
    let audit = place.start();
    drop(audit.open(opening(1, "exec.run", None)).await.unwrap());
    audit.reopen().await.unwrap();
    std::fs::rename(place.log(), rotated_path(&place.log(), 1)).unwrap();
    drop(audit.open(opening(2, "exec.run", None)).await.unwrap());
    assert!(!place.log().exists(), "the moved file is written on until it is said");
    audit.reopen().await.unwrap();
    drop(audit.open(opening(3, "exec.run", None)).await.unwrap());
    audit.stop().await;
    assert_eq!(place.records()[0]["moved"], true);
    assert_eq!(sound(&place.log()).files.len(), 2);
}

#[tokio::test]
async fn a_log_that_was_deleted_under_the_daemon_is_begun_anew() {
    let place = Place::new();
    let audit = place.start();
    drop(audit.open(opening(1, "exec.run", None)).await.unwrap());
    std::fs::remove_file(place.log()).unwrap();
    let _recorded = audit.open(opening(2, "exec.run", None)).await.unwrap();
    assert!(place.content().contains("\"id\":2"));
    audit.stop().await;
}

#[tokio::test]
async fn what_somebody_else_writes_into_the_log_is_found_and_spoils_no_record() {
    use std::io::Write;
    let place = Place::new();
    let audit = place.start();
    drop(audit.open(opening(1, "exec.run", None)).await.unwrap());
    audit.flush().await;
    let mut other = std::fs::OpenOptions::new().append(true).open(place.log()).unwrap();
    other.write_all(b"forged").unwrap();
    drop(audit.open(opening(2, "exec.run", None)).await.unwrap());
    audit.stop().await;
    assert!(place.content().contains("forged\n{"));
    assert!(place.content().contains("log.changed"));
    let lines = place.content().lines().position(|line| line == "forged").unwrap();
    assert_eq!(broken(&place.log()).line, lines as u64 + 1);
}

#[tokio::test]
async fn calls_that_a_crash_cut_short_are_listed() {
    let place = Place::new();
    let audit = place.start();
    let recorded = audit.open(opening(5, "exec.run", Some("alice"))).await.unwrap();
    audit.stop().await;
    // As after kill -9: the outcome was never written.
    audit.close(recorded, closing()).await;
    let unfinished = sound(&place.log()).unfinished;
    assert_eq!((unfinished[0].id, unfinished[0].cut_short), (5, false));
    place.start().stop().await;
    let report = sound(&place.log());
    assert_eq!((report.unfinished[0].method.as_str(), report.unfinished[0].cut_short), ("exec.run", true));
    assert!(report.to_string().contains("call #5 exec.run of alice"), "{report}");
}

#[tokio::test]
async fn a_log_is_verified_while_it_is_written() {
    let place = Place::new();
    let settings = AuditSettings { rotate_size: AuditSettings::ROTATE_MIN, keep: 100, ..place.settings() };
    let audit = Audit::start(&settings).unwrap();
    drop(audit.open(opening(0, "exec.run", None)).await.unwrap());
    let log = place.log();
    let verifier = tokio::task::spawn_blocking(move || (0..20).map(|_| sound(&log).records).max().unwrap());
    let mut id = 1;
    while !verifier.is_finished() {
        let calls = (0..50).map(|n| audit.open(opening(id + n, "exec.run", None)));
        for recorded in futures_util::future::join_all(calls).await {
            audit.close(recorded.unwrap(), closing()).await;
        }
        id += 50;
    }
    assert!(verifier.await.unwrap() > 0);
    audit.stop().await;
    sound(&place.log());
}

#[tokio::test]
async fn without_the_noted_last_record_the_chain_itself_is_still_checked() {
    let place = Place::new();
    place.sample().await;
    std::fs::remove_file(lock_path(&place.log())).unwrap();
    assert_eq!(sound(&place.log()).records, 6);
    place.start().stop().await;
    assert_eq!(sound(&place.log()).recovered, []);
}
