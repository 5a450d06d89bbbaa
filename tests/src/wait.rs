//! Waiting for a condition. The limit is for a machine that is slow; no test passes faster or slower by a fixed sleep.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until there is an answer; `what` completes the sentence "waited 120 s for ...".
///
/// # Errors
/// When the limit is over, or as soon as `ask` fails.
pub fn until<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if begin.elapsed() >= limit {
            bail!("waited {} s for {what}", limit.as_secs_f32());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
