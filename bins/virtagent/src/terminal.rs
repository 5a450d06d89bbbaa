//! The user's terminal: raw mode and back, the window's size, and the way out of a session that does not react.
//!
//! Owns the terminal's settings. They are put back when the guard goes, on every way out: return, error, panic.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Once, PoisonError};

use nix::sys::termios::{self, SetArg, Termios};

use crate::failure::{Failure, Result};

/// The settings to put back when a panic comes first.
static SAVED: Mutex<Option<Arc<Saved>>> = Mutex::new(None);
static HOOK: Once = Once::new();

struct Saved(Mutex<Option<Termios>>);

impl Saved {
    fn restore(&self) {
        if let Some(settings) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &settings);
        }
    }
}

/// Raw mode, until it is dropped.
pub struct RawMode(Arc<Saved>);

impl RawMode {
    /// Passes every key on as it is typed.
    pub fn enter() -> Result<Self> {
        let failed =
            |errno: nix::Error| Failure::usage(format!("can't set the terminal to raw mode: {}", errno.desc()));
        let stdin = io::stdin();
        let settings = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = settings.clone();
        termios::cfmakeraw(&mut raw);
        let saved = Arc::new(Saved(Mutex::new(Some(settings))));
        *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&saved));
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(saved) = saved {
                    saved.restore();
                }
                usual(info);
            }));
        });
        // What was typed ahead is for the guest.
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).map_err(failed)?;
        Ok(Self(saved))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        self.0.restore();
    }
}

/// The window's rows and columns; what a terminal has always had, when they can't be known.
pub fn size() -> (u16, u16) {
    let known = terminal_size::terminal_size_of(io::stdout()).or_else(|| terminal_size::terminal_size_of(io::stdin()));
    match known {
        Some((terminal_size::Width(columns), terminal_size::Height(rows))) if columns > 0 && rows > 0 => {
            (rows, columns)
        }
        _ => (24, 80),
    }
}

/// Whether standard input is a terminal.
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Finds the keys that leave a session: Ctrl-] anywhere, `~.` at the beginning of a line; `~~` there is one `~`.
pub struct Escape {
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    LineStart,
    Tilde,
    Inside,
}

/// Ctrl-].
const CTRL_BRACKET: u8 = 0x1d;

impl Escape {
    pub fn new() -> Self {
        Self { state: State::LineStart }
    }

    /// What of `typed` goes to the guest, and whether the user wants to leave.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            if key == CTRL_BRACKET {
                return (passed, true);
            }
            match (self.state, key) {
                (State::LineStart, b'~') => {
                    self.state = State::Tilde;
                    continue;
                }
                (State::Tilde, b'.') => return (passed, true),
                (State::Tilde, b'~') => {}
                (State::Tilde, _) => passed.push(b'~'),
                _ => {}
            }
            passed.push(key);
            self.state = if matches!(key, b'\r' | b'\n') { State::LineStart } else { State::Inside };
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(chunks: &[&str]) -> (String, bool) {
        let mut escape = Escape::new();
        let mut all = Vec::new();
        for chunk in chunks {
            let (passed, leave) = escape.filter(chunk.as_bytes());
            all.extend(passed);
            if leave {
                return (String::from_utf8(all).unwrap(), true);
            }
        }
        (String::from_utf8(all).unwrap(), false)
    }

    #[test]
    fn tilde_dot_at_the_beginning_of_a_line_leaves() {
        assert_eq!(typed(&["~."]), (String::new(), true));
        assert_eq!(typed(&["ls\r", "~", ".x"]), ("ls\r".to_owned(), true));
    }

    #[test]
    fn a_tilde_elsewhere_is_a_tilde() {
        assert_eq!(typed(&["ls ~.\r"]), ("ls ~.\r".to_owned(), false));
        assert_eq!(typed(&["~/bin\r"]), ("~/bin\r".to_owned(), false));
        assert_eq!(typed(&["~~.\r"]), ("~.\r".to_owned(), false));
    }

    #[test]
    fn ctrl_bracket_leaves_anywhere() {
        assert_eq!(typed(&["vi\x1d:q"]), ("vi".to_owned(), true));
    }
}
