//! Signals by name. Must never send one.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::libc::{SIGRTMAX, SIGRTMIN};
use nix::sys::signal::Signal;

use crate::child::LAST_SIGNAL;
use crate::error::ExecError;
use crate::params::{SignalName, WaitResult};

/// `SIGKILL`, `SIGRTMIN+1`, or the number where there is no name.
pub(crate) fn name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) if number == SIGRTMIN() => "SIGRTMIN".to_owned(),
        Err(_) if (SIGRTMIN()..=SIGRTMAX()).contains(&number) => format!("SIGRTMIN+{}", number - SIGRTMIN()),
        Err(_) => number.to_string(),
    }
}

/// The number of a signal that a caller named.
pub(crate) fn number(signal: &SignalName) -> Result<i32, ExecError> {
    let found = match signal {
        SignalName::Number(number) => i32::try_from(*number).ok(),
        SignalName::Name(name) => by_name(name),
    };
    found.filter(|number| (1..=LAST_SIGNAL).contains(number)).ok_or_else(|| {
        let came = match signal {
            SignalName::Number(number) => number.to_string(),
            SignalName::Name(name) => format!("{name:?}"),
        };
        ExecError::Params(format!(
            "no signal is called {came}: give a name such as TERM or a number, 1 to {LAST_SIGNAL}"
        ))
    })
}

fn by_name(name: &str) -> Option<i32> {
    let upper = name.trim().to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    if let Some(rest) = short.strip_prefix("RTMIN") {
        return Some(SIGRTMIN() + offset(rest, '+')?).filter(|number| *number <= SIGRTMAX());
    }
    if let Some(rest) = short.strip_prefix("RTMAX") {
        return Some(SIGRTMAX() - offset(rest, '-')?).filter(|number| *number >= SIGRTMIN());
    }
    short.parse().ok().or_else(|| format!("SIG{short}").parse::<Signal>().ok().map(|signal| signal as i32))
}

/// How a program ended.
pub(crate) fn ending(status: ExitStatus) -> WaitResult {
    WaitResult { exit_code: status.code(), signal: status.signal().map(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_found_by_every_usual_name_and_named_back() {
        for (text, number) in [("TERM", 15), ("SIGTERM", 15), ("sigkill", 9), ("9", 9), ("RTMIN", SIGRTMIN())] {
            assert_eq!(super::number(&SignalName::Name(text.into())).unwrap(), number, "{text}");
        }
        assert_eq!(super::number(&SignalName::Number(64)).unwrap(), 64);
        assert_eq!(by_name("SIGRTMIN+2"), Some(SIGRTMIN() + 2));
        assert_eq!(by_name("RTMAX-1"), Some(SIGRTMAX() - 1));
        assert_eq!(name(SIGRTMIN() + 2), "SIGRTMIN+2");
        assert_eq!(name(9), "SIGKILL");
    }

    #[test]
    fn what_is_no_signal_is_refused_with_its_name() {
        for wrong in ["", "SIG", "NOPE", "RTMIN+99", "RTMAX-99", "0", "65", "-9", "RTMIN-1"] {
            let error = super::number(&SignalName::Name(wrong.into())).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
        assert!(super::number(&SignalName::Number(0)).is_err());
        assert!(super::number(&SignalName::Number(i64::MAX)).is_err());
    }
}
