//! `ping`: round trips, as ping(8) shows them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::{Global, Ping};
use crate::client::Client;
use crate::desk::Desk;
use crate::failure::{Failure, Result};
use crate::output::{note, print_json, println};

pub async fn run(global: &Global, options: &Ping) -> Result<u8> {
    let client = Client::connect(global, Desk::new()).await?;
    let who = client.user().unwrap_or("the system daemon").to_owned();
    if !global.json {
        let target = client.target();
        println(&format!("PING {} ({}): va.ping to {who}", target.name, target.address))?;
    }
    let mut times = Vec::new();
    let mut sent = 0u64;
    let mut last_failure = None;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Failure::usage(error.to_string()))?;
    let mut ticks = interval(options.interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while options.count == 0 || sent < options.count {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = interrupt.recv() => break,
        }
        let began = Instant::now();
        let answer = tokio::select! {
            answer = client.call_with("va.ping", Vec::new()) => answer,
            _ = interrupt.recv() => break,
        };
        sent += 1;
        match answer {
            Ok(_) => {
                let time = began.elapsed();
                times.push(time);
                if !global.json {
                    println(&format!("answer from {who}: seq={sent} time={} ms", milliseconds(time)))?;
                }
            }
            Err(failure @ Failure::NoConnection(_)) => return Err(failure),
            Err(failure) => {
                if !global.json {
                    note(&format!("seq={sent}: {failure}"));
                }
                last_failure = Some(failure);
            }
        }
    }
    let summary = Summary::of(&times);
    if global.json {
        let milliseconds: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        print_json(&json!({
            "sent": sent, "answered": times.len(), "milliseconds": milliseconds,
            "min": summary.min, "avg": summary.avg, "max": summary.max, "mdev": summary.mdev,
        }))?;
    } else if sent > 0 {
        let lost = 100.0 * (1.0 - times.len() as f64 / sent as f64);
        println(&format!("--- {} ping statistics ---", client.target().name))?;
        println(&format!("{sent} calls, {} answers, {lost:.0}% lost", times.len()))?;
        if !times.is_empty() {
            let Summary { min, avg, max, mdev } = summary;
            println(&format!("rtt min/avg/max/mdev = {min:.3}/{avg:.3}/{max:.3}/{mdev:.3} ms"))?;
        }
    }
    client.close().await;
    match last_failure {
        Some(failure) if times.is_empty() => Ok(failure.exit_code()),
        Some(_) => Ok(1),
        None => Ok(0),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

/// In milliseconds.
#[derive(Debug, Default, PartialEq)]
struct Summary {
    min: f64,
    avg: f64,
    max: f64,
    mdev: f64,
}

impl Summary {
    fn of(times: &[Duration]) -> Self {
        let times: Vec<_> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        if times.is_empty() {
            return Self::default();
        }
        let number = times.len() as f64;
        let avg = times.iter().sum::<f64>() / number;
        let variance = times.iter().map(|time| (time - avg).powi(2)).sum::<f64>() / number;
        let min = times.iter().copied().fold(f64::INFINITY, f64::min);
        let max = times.iter().copied().fold(0.0, f64::max);
        Self { min, avg, max, mdev: variance.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_of_all_answers_and_of_none() {
        let times = [1, 2, 3].map(Duration::from_millis);
        let Summary { min, avg, max, mdev } = Summary::of(&times);
        assert_eq!((min, avg, max), (1.0, 2.0, 3.0));
        assert!((mdev - 0.816).abs() < 0.001);
        assert_eq!(Summary::of(&[]), Summary::default());
    }
}
