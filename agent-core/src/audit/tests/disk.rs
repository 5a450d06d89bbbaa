//! A disk that is full.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};

use super::*;

/// A file system of 64 KiB; nothing, and it says so, when this process may not mount one.
struct SmallDisk {
    place: Place,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let place = Place::new();
        let mounted = mount(Some("tmpfs"), place.dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=64k"));
        if let Err(errno) = mounted {
            println!("skipped: no tmpfs can be mounted here ({errno})");
            return None;
        }
        Some(Self { place })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount(self.place.dir.path()).unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_calls_and_takes_them_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    let place = &disk.place;
    let settings = AuditSettings { rotate_size: 0, ..place.settings() };
    let audit = Audit::start(&settings).unwrap();
    let early = audit.open(opening(1, "exec.run", None)).await.unwrap();
    let ballast = place.dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 32 << 10]).unwrap();

    let mut id = 1;
    let error = loop {
        id += 1;
        match audit.open(opening(id, "exec.run", None)).await {
            Ok(recorded) => recorded.forget(),
            Err(error) => break error,
        }
    };
    assert_eq!(error, AuditError::Write { file: place.log().as_path().into(), errno: Errno::ENOSPC });
    let fault = crate::rpc::Fault::from(error);
    assert!(fault.is(crate::rpc::FaultCode::Unavailable), "{fault}");
    assert!(fault.message.contains("No space left on device (ENOSPC)"), "{fault}");
    assert!(place.content().ends_with('\n'), "no half a record is left");
    sound(&place.log());

    // What came of a call that ran is kept until there is room.
    audit.close(early, closing()).await;
    assert!(audit.open(opening(id + 1, "exec.run", None)).await.is_err());
    std::fs::remove_file(&ballast).unwrap();
    audit.open(opening(id + 2, "exec.run", None)).await.unwrap().forget();
    audit.stop().await;
    let records = place.records();
    let outcomes: Vec<_> = records.iter().filter(|record| record["type"] == "outcome").collect();
    assert_eq!((outcomes.len(), &outcomes[0]["id"]), (1, &json!(1)));
    assert!(!records.iter().any(|record| record["id"] == id || record["id"] == id + 1), "refused calls are not in it");
    sound(&place.log());
}

#[tokio::test]
async fn a_daemon_starts_on_a_full_disk_and_refuses_calls() {
    let Some(disk) = SmallDisk::mount() else { return };
    let place = &disk.place;
    place.sample().await;
    let ballast = place.dir.path().join("ballast");
    let filled = std::fs::write(&ballast, vec![0; 128 << 10]);
    assert!(filled.is_err());
    // The log's own last page still has some room.
    let room = 4096 - place.content().len() % 4096;
    std::fs::write(place.dir.path().join("note"), "").ok();
    let audit = place.start();
    let long = Opening { params: "x".repeat(room).into(), ..opening(1, "exec.run", None) };
    assert!(audit.open(long).await.is_err());
    std::fs::remove_file(&ballast).unwrap();
    audit.open(opening(2, "exec.run", None)).await.unwrap().forget();
    audit.stop().await;
    let records = place.records();
    assert_eq!(kinds(&records[6..]), ["start", "call", "stop"]);
    sound(&place.log());
}

#[tokio::test]
async fn a_log_that_cannot_rotate_for_want_of_room_is_written_on() {
    let Some(disk) = SmallDisk::mount() else { return };
    let place = &disk.place;
    // No more files than those that are there: the log, its lock and the directory.
    umount(place.dir.path()).unwrap();
    let options = Some("size=1m,nr_inodes=3");
    mount(Some("tmpfs"), place.dir.path(), Some("tmpfs"), MsFlags::empty(), options).unwrap();
    let settings = AuditSettings { rotate_size: AuditSettings::ROTATE_MIN, ..place.settings() };
    let audit = Audit::start(&settings).unwrap();
    for id in 0..300 {
        audit.open(opening(id, "exec.run", None)).await.unwrap().forget();
    }
    audit.stop().await;
    assert!(place.log().metadata().unwrap().len() > settings.rotate_size);
    assert_eq!(sound(&place.log()).files.len(), 1);
}
