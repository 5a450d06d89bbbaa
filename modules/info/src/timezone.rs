//! The time zone's name and its offset now.

use std::fs::{read, read_link, read_to_string};
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use tz::TimeZone;

use crate::error::Error;

/// A time zone.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Timezone {
    /// `Europe/Berlin`; where nobody wrote down a name, the abbreviation that holds now.
    name: String,
    /// Seconds east of UTC, now.
    offset: i32,
}

/// The zone of `etc/localtime`, UTC without it: localtime(5). Its name is the link's, or Debian's `etc/timezone`.
pub(crate) fn current(root: &Path) -> Result<Timezone, Error> {
    let localtime = root.join("etc/localtime");
    // The link's target is a path of that root; read is the file, whatever the link says.
    let Ok(data) = read(&localtime) else {
        return Ok(Timezone { name: "UTC".into(), offset: 0 });
    };
    let wrong = |error: tz::Error| Error::Malformed(format!("/etc/localtime: {error}"));
    let zone = TimeZone::from_tz_data(&data).map_err(|error| wrong(error.into()))?;
    let now = zone.find_current_local_time_type().map_err(|error| wrong(error.into()))?;
    let name = name_of_link(&localtime).or_else(|| written_name(root)).or_else(|| {
        let abbreviation = now.time_zone_designation();
        (!abbreviation.is_empty()).then(|| abbreviation.to_owned())
    });
    Ok(Timezone { name: name.unwrap_or_else(|| "local".into()), offset: now.ut_offset() })
}

fn name_of_link(localtime: &Path) -> Option<String> {
    let target = read_link(localtime).ok()?;
    let (_, name) = target.to_str()?.split_once("zoneinfo/")?;
    Some(name.to_owned())
}

fn written_name(root: &Path) -> Option<String> {
    let text = read_to_string(root.join("etc/timezone")).ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A zone of the current TZif version, without a transition but with a rule: always two hours east.
    fn two_hours_east() -> Vec<u8> {
        let header = |types: u8, characters: u8| {
            let mut header = b"TZif2".to_vec();
            header.extend([0; 15]);
            for count in [0, 0, 0, 0, types, characters] {
                header.extend([0, 0, 0, count]);
            }
            header
        };
        let block = [&7200i32.to_be_bytes()[..], &[0, 0], b"TEST\0"].concat();
        [header(1, 5), block.clone(), header(1, 5), block, b"\n<TEST>-2\n".to_vec()].concat()
    }

    #[test]
    fn the_links_name_comes_first_then_the_written_one_then_the_abbreviation() {
        let root = tempfile::tempdir().unwrap();
        let etc = root.path().join("etc");
        let zones = root.path().join("usr/share/zoneinfo/Test");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::create_dir_all(&zones).unwrap();
        assert_eq!(current(root.path()).unwrap(), Timezone { name: "UTC".into(), offset: 0 });

        std::fs::write(etc.join("localtime"), two_hours_east()).unwrap();
        assert_eq!(current(root.path()).unwrap(), Timezone { name: "TEST".into(), offset: 7200 });
        std::fs::write(etc.join("timezone"), "Test/Written\n").unwrap();
        assert_eq!(current(root.path()).unwrap(), Timezone { name: "Test/Written".into(), offset: 7200 });

        std::fs::write(zones.join("Linked"), two_hours_east()).unwrap();
        std::fs::remove_file(etc.join("localtime")).unwrap();
        symlink("../usr/share/zoneinfo/Test/Linked", etc.join("localtime")).unwrap();
        assert_eq!(current(root.path()).unwrap(), Timezone { name: "Test/Linked".into(), offset: 7200 });

        std::fs::write(zones.join("Linked"), "garbage").unwrap();
        assert!(current(root.path()).is_err());
    }
}
