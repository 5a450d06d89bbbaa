//! The kernel's messages, from /dev/kmsg: a record a read, `priority,sequence,microseconds,flags;text`.
//! <https://docs.kernel.org/admin-guide/abi-testing.html#abi-file-testing-dev-kmsg>

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::error::Error;

/// No record is longer: CONSOLE_EXT_LOG_MAX of the kernel's internal.h.
const RECORD_MAX: usize = 8192;

/// The newest messages, at most `most` bytes of whole lines, and whether older ones were left out. Does not wait for new
/// ones.
pub(crate) fn newest(most: usize) -> Result<(String, bool), Error> {
    let flags = OFlag::O_NONBLOCK.bits();
    let kmsg =
        OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").map_err(Error::io("open /dev/kmsg"))?;
    newest_of(kmsg, most).map_err(Error::io("read /dev/kmsg"))
}

fn newest_of(mut kmsg: impl Read, most: usize) -> std::io::Result<(String, bool)> {
    let mut record = [0; RECORD_MAX];
    let mut lines = VecDeque::new();
    let (mut bytes, mut truncated) = (0, false);
    loop {
        let came = match kmsg.read(&mut record) {
            Ok(0) => break,
            Ok(came) => came,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // The kernel has overwritten records that were next; the following read goes on after them.
            Err(error) if error.raw_os_error() == Some(Errno::EPIPE as i32) => continue,
            Err(error) => return Err(error),
        };
        let Some(line) = line(&String::from_utf8_lossy(&record[..came])) else { continue };
        bytes += line.len();
        lines.push_back(line);
        while bytes > most {
            bytes -= lines.pop_front().map_or(0, |oldest| oldest.len());
            truncated = true;
        }
    }
    Ok((lines.into_iter().collect(), truncated))
}

/// A record as dmesg(1) shows it; the lines after its first are a dictionary for programs.
fn line(record: &str) -> Option<String> {
    let (prefix, text) = record.split_once(';')?;
    let microseconds: u64 = prefix.split(',').nth(2)?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some(format!("[{:5}.{:06}] {text}\n", microseconds / 1_000_000, microseconds % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers a record a read, then that there is no more for now.
    struct Records(VecDeque<std::io::Result<&'static str>>);

    impl Read for Records {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let record = self.0.pop_front().unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))?;
            buffer[..record.len()].copy_from_slice(record.as_bytes());
            Ok(record.len())
        }
    }

    fn records() -> Records {
        let overwritten = std::io::Error::from_raw_os_error(Errno::EPIPE as i32);
        Records(VecDeque::from([
            Ok("6,1,0,-;Linux version 6.1\n"),
            Err(overwritten),
            Ok("6,339,5140900,-;NET: family 10\n SUBSYSTEM=net\n DEVICE=+x\n"),
            Ok("4,400,123456789012,c;with ; and \\x1b\n"),
        ]))
    }

    #[test]
    fn records_become_lines_as_dmesg_writes_them() {
        let all = "[    0.000000] Linux version 6.1\n[    5.140900] NET: family 10\n[123456.789012] with ; and \\x1b\n";
        assert_eq!(newest_of(records(), 10_000).unwrap(), (all.into(), false));
    }

    #[test]
    fn only_the_newest_whole_lines_are_kept() {
        let (text, truncated) = newest_of(records(), 60).unwrap();
        assert_eq!((text.as_str(), truncated), ("[123456.789012] with ; and \\x1b\n", true));
        assert_eq!(newest_of(records(), 3).unwrap(), (String::new(), true));
    }
}
