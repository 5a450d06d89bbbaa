//! The system calls that make, signal and bury a child: the crate's only unsafe code.
//!
//! A child is made as `posix_spawn` makes one: it shares the daemon's memory until it executes its program, while the
//! thread that made it waits. So its price does not grow with the daemon, and a failure comes back with the step that
//! failed. `posix_spawn` itself can neither bind the child's life to the daemon's nor give it a terminal.
//!
//! Must never: decide what to run or when to end it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A program with everything that its process starts with.
pub(crate) struct Image<'a> {
    /// Where the program may be, tried in this order.
    pub candidates: &'a [CString],
    pub argv: &'a [CString],
    /// `NAME=value`, the whole environment.
    pub env: &'a [CString],
    pub directory: &'a CStr,
    /// Starts in `/` when the directory can't be entered.
    pub directory_or_root: bool,
    /// Standard input, output and error. All above 2: the daemon's own three are open.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Standard input is a terminal, which becomes the controlling one.
    pub terminal: bool,
}

/// The step at which a start failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Step {
    Process,
    Session,
    Directory,
    Program,
}

/// A stack for a child's way from its birth to its program.
pub(crate) struct Stack(Vec<u128>);

impl Stack {
    /// The way takes about 1 KiB; a build without optimisation takes more.
    const BYTES: usize = 64 << 10;

    pub(crate) fn new() -> Self {
        Self(vec![0; Self::BYTES / size_of::<u128>()])
    }
}

/// What the child reads, and where it says what failed. Plain pointers: the child must not allocate.
struct Orders {
    candidates: *const *const c_char,
    argv: *const *const c_char,
    env: *const *const c_char,
    directory: *const c_char,
    directory_or_root: bool,
    stdio: [RawFd; 3],
    terminal: bool,
    parent: libc::pid_t,
    failed: Option<(Step, c_int)>,
}

/// Starts a process that leads a session and a process group of its own, dies with the thread that calls this, and has
/// nothing of the daemon's: no file descriptors but the three, default signal dispositions, no signal blocked, umask 022.
///
/// The calling thread must have all signals blocked. Answers a pidfd too where the kernel has them (Linux 5.3).
pub(crate) fn spawn(image: &Image<'_>, stack: &mut Stack) -> Result<(Pid, Option<OwnedFd>), (Step, Errno)> {
    let candidates = pointers(image.candidates);
    let argv = pointers(image.argv);
    let env = pointers(image.env);
    let mut orders = Orders {
        candidates: candidates.as_ptr(),
        argv: argv.as_ptr(),
        env: env.as_ptr(),
        directory: image.directory.as_ptr(),
        directory_or_root: image.directory_or_root,
        stdio: image.stdio.map(|fd| fd.as_raw_fd()),
        terminal: image.terminal,
        parent: nix::unistd::getpid().as_raw(),
        failed: None,
    };
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: the child runs `child` on `stack`, which nothing else uses while this exclusive borrow lasts and which
    // grows down from its aligned end. CLONE_VFORK suspends this thread until the child executed a program or exited,
    // so everything that `orders` points to outlives the child's use of it, and nobody here touches it meanwhile.
    // `pidfd` is where the kernel writes CLONE_PIDFD's result.
    let pid = unsafe {
        let top = stack.0.as_mut_ptr_range().end.cast::<c_void>();
        libc::clone(child, top, flags, ptr::from_mut(&mut orders).cast(), ptr::from_mut(&mut pidfd))
    };
    if pid < 0 {
        return Err((Step::Process, Errno::last()));
    }
    // SAFETY: the kernel opened it for us; nobody else knows it.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    // SAFETY: `orders` is a live local; the read is volatile because another process wrote it behind the compiler's back.
    match unsafe { ptr::read_volatile(&raw const orders.failed) } {
        None => Ok((Pid::from_raw(pid), pidfd)),
        Some((step, errno)) => {
            let _ = bury(Pid::from_raw(pid), true);
            Err((step, Errno::from_raw(errno)))
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// The child's life before its program. Shares the parent's memory: no allocation, no locks, no panics.
extern "C" fn child(orders: *mut c_void) -> c_int {
    // SAFETY: it is the `Orders` that `spawn` passed and keeps alive and untouched.
    let orders = unsafe { &mut *orders.cast::<Orders>() };
    // SAFETY: this is the fresh child that `become_program` asks for.
    orders.failed = Some(unsafe { become_program(orders) });
    // SAFETY: ends only this process, without running the parent's exit handlers.
    unsafe { libc::_exit(127) }
}

/// Returns only when it failed.
///
/// # Safety
/// Only in a child that `spawn` made: it changes the whole process. `orders` holds valid pointers.
unsafe fn become_program(orders: &Orders) -> (Step, c_int) {
    // SAFETY: plain system calls on this process's own state, all of them safe between clone and exec; the pointers
    // are valid by this function's contract and the arrays end with a null pointer.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
        // The daemon may have died before the line above took effect.
        if libc::getppid() != orders.parent {
            libc::_exit(127);
        }
        // Ignored signals survive exec, and the parent's handlers must not run here. The kernel's own call, because the
        // C library's refuses the two signals it keeps for itself; all zeroes is SIG_DFL without flags or mask on every
        // architecture. SIGKILL and SIGSTOP refuse, which is right.
        let default = [0_u64; 8];
        let mut signal = 1;
        while signal <= LAST_SIGNAL {
            let none = ptr::null_mut::<c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>());
            signal += 1;
        }
        if libc::setsid() < 0 {
            return (Step::Session, Errno::last_raw());
        }
        let [stdin, stdout, stderr] = orders.stdio;
        if orders.terminal && libc::ioctl(stdin, libc::TIOCSCTTY, 0) < 0 {
            return (Step::Session, Errno::last_raw());
        }
        if libc::dup2(stdin, 0) < 0 || libc::dup2(stdout, 1) < 0 || libc::dup2(stderr, 2) < 0 {
            return (Step::Session, Errno::last_raw());
        }
        // All are close-on-exec anyway; this holds for what a library might have opened without (Linux 5.9).
        libc::syscall(libc::SYS_close_range, 3 as c_uint, c_uint::MAX, 0 as c_uint);
        libc::umask(0o022);
        if libc::chdir(orders.directory) < 0 {
            let errno = Errno::last_raw();
            if !orders.directory_or_root || libc::chdir(c"/".as_ptr()) < 0 {
                return (Step::Directory, errno);
            }
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());

        let mut verdict = libc::ENOENT;
        let mut candidate = orders.candidates;
        while !(*candidate).is_null() {
            libc::execve(*candidate, orders.argv, orders.env);
            match Errno::last_raw() {
                // The next directory of PATH may have it; a file that may not be run is worth more than none.
                errno @ (libc::ENOENT | libc::ENOTDIR) if verdict != libc::EACCES => verdict = errno,
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => verdict = libc::EACCES,
                errno => return (Step::Program, errno),
            }
            candidate = candidate.add(1);
        }
        (Step::Program, verdict)
    }
}

/// Linux's highest signal number on every architecture but MIPS.
pub(crate) const LAST_SIGNAL: c_int = 64;

/// Sends a signal to every process of a group. The caller holds the group's leader unburied.
pub(crate) fn signal_group(leader: Pid, signal: c_int) -> Result<(), Errno> {
    // SAFETY: sends a signal; touches no memory.
    Errno::result(unsafe { libc::kill(-leader.as_raw(), signal) }).map(drop)
}

/// Kills one process, if `still` says that it is the meant one after its number can't change hands any more.
pub(crate) fn kill_checked(pid: Pid, still: impl FnOnce() -> bool) {
    // SAFETY: answers a new descriptor or fails.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0 as c_uint) };
    let Ok(fd @ 0..) = c_int::try_from(fd) else {
        return;
    };
    // SAFETY: the kernel opened it for us; nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    if still() {
        let no_info = ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null siginfo is allowed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), libc::SIGKILL, no_info, 0 as c_uint) };
    }
}

/// Whether our child has ended; it stays unburied.
pub(crate) fn has_ended(pid: Pid) -> bool {
    // SAFETY: all zeroes is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: writes to `info` only.
    let result = unsafe { libc::waitid(libc::P_PID, pid.as_raw().unsigned_abs(), &raw mut info, flags) };
    // SAFETY: zeroed above or filled by waitid for a child. An error means that somebody else buried it.
    result < 0 || unsafe { info.si_pid() } != 0
}

/// Takes our ended child's status and with it its number; nothing if it runs and we shall not wait.
pub(crate) fn bury(pid: Pid, wait: bool) -> Result<Option<ExitStatus>, Errno> {
    let flags = if wait { 0 } else { libc::WNOHANG };
    loop {
        let mut status: c_int = 0;
        // SAFETY: writes to `status` only.
        match Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, flags) }) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(ExitStatus::from_raw(status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Lets ended children wait for us, should whoever started the daemon have asked the kernel to forget them at once.
pub(crate) fn keep_ended_children() {
    // SAFETY: all zeroes is a valid sigaction; the calls read and write only it, and only an ignored SIGCHLD changes.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let known = libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut action) == 0;
        if known && action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
        }
    }
}

/// Registers a descriptor with the event loop.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and nothing replaces it while the `AsyncFd` has it.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Sets a terminal's size.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<(), Errno> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}
