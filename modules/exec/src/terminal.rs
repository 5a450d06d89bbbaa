//! Pseudo-terminals: opening one and its size.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};

use crate::child;
use crate::params::Terminal;

/// A terminal of that size: our end and the program's.
pub(crate) fn open_pair(wanted: &Terminal) -> Result<(OwnedFd, OwnedFd), Errno> {
    let ours = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname_r(&ours)?;
    let theirs = open(name.as_str(), OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())?;
    child::set_window_size(theirs.as_fd(), wanted.rows, wanted.cols)?;
    // Without it, erasing a character of several bytes would leave a part of it in the line.
    let mut modes = tcgetattr(&theirs)?;
    modes.input_flags |= InputFlags::IUTF8;
    tcsetattr(&theirs, SetArg::TCSANOW, &modes)?;
    Ok((ours.into(), theirs))
}
