//! The threads that start programs, so that the event loop never waits for a file system.
//!
//! They live as long as the daemon, by need: the kernel binds a child's life to the *thread* that made it
//! (PR_SET_PDEATHSIG), so one that went home after its work would take its programs with it. More than one, so that a
//! program on a dead network file system does not keep others from starting.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::SigSet;

use crate::child::Stack;

const MOST_THREADS: usize = 4;

type Job = Box<dyn FnOnce(&mut Stack) + Send>;

struct Pool {
    state: Mutex<State>,
    work: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

static POOL: Pool =
    Pool { state: Mutex::new(State { jobs: VecDeque::new(), idle: 0, threads: 0 }), work: Condvar::new() };

/// Runs a job on one of the threads, all of whose signals are blocked.
///
/// # Errors
/// There is no thread and none can be made; the job is dropped.
pub(crate) fn submit(job: impl FnOnce(&mut Stack) + Send + 'static) -> io::Result<()> {
    let mut state = POOL.lock();
    state.jobs.push_back(Box::new(job));
    if state.jobs.len() > state.idle && state.threads < MOST_THREADS {
        match std::thread::Builder::new().name("exec".to_owned()).spawn(work) {
            Ok(_) => state.threads += 1,
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                state.jobs.pop_back();
                return Err(error);
            }
        }
    }
    drop(state);
    POOL.work.notify_one();
    Ok(())
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Job {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return job;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

fn work() {
    // The daemon's signals are its event loop's; and what a child inherits must not run handlers before its program.
    let _ = SigSet::all().thread_block();
    let mut stack = Stack::new();
    loop {
        let job = POOL.next();
        // A panic must not end the thread, see above. It is reported by the daemon's panic hook, and the job's caller
        // finds its answer missing.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| job(&mut stack)));
    }
}
