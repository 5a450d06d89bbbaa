//! How far a transfer is, on standard error when that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, or nothing where nobody looks.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar for `total` bytes; without a total it only counts.
    pub fn new(name: &str, total: Option<u64>, quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta}",
            None => "{msg} {spinner} {binary_bytes}  {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(crate::output::clean(name));
        Self(bar)
    }

    /// What was there before this run.
    pub fn begin_at(&self, position: u64) {
        self.0.set_position(position);
        self.0.reset_eta();
    }

    pub fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// The bytes are across; the guest digests or syncs.
    pub fn verifying(&self, name: &str) {
        self.0.set_message(format!("{} (verifying)", crate::output::clean(name)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
