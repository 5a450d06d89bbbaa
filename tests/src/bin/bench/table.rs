//! The figures: a value of each side in each round, their medians and the ratio.

use std::fmt::Write;

use serde_json::{Value, json};

/// What is better.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// One thing that was measured, on both sides in the same rounds.
pub struct Row {
    pub what: String,
    pub unit: &'static str,
    pub better: Better,
    pub ours: Vec<f64>,
    pub theirs: Vec<f64>,
    /// The channel without an agent, where there is such a thing.
    pub raw: Vec<f64>,
}

impl Row {
    /// How many times better virtagent is, by the median of the rounds' own ratios: below 1 it is worse.
    pub fn ratio(&self) -> Option<f64> {
        let of = |(ours, theirs): (&f64, &f64)| match self.better {
            Better::Less => theirs / ours,
            Better::More => ours / theirs,
        };
        median(&self.ours.iter().zip(&self.theirs).map(of).collect::<Vec<_>>()).filter(|ratio| ratio.is_finite())
    }

    /// The ratio as text, or the two figures where one of them is nought.
    pub fn verdict(&self) -> String {
        match (self.ratio(), median(&self.ours), median(&self.theirs)) {
            (Some(ratio), ..) if ratio > 0.0 => format!("{}x", figure(ratio)),
            (_, Some(ours), Some(theirs)) => format!("{} : {}", figure(ours), figure(theirs)),
            _ => String::new(),
        }
    }
}

/// The rows of one place: this machine, or a guest.
pub struct Table {
    pub title: String,
    pub rows: Vec<Row>,
}

impl Table {
    pub fn new(title: String) -> Table {
        Table { title, rows: Vec::new() }
    }

    /// The row of that name, made if it is not there.
    pub fn row(&mut self, what: &str, unit: &'static str, better: Better) -> &mut Row {
        let at = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            let (ours, theirs, raw) = (vec![], vec![], vec![]);
            self.rows.push(Row { what: what.to_owned(), unit, better, ours, theirs, raw });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.title);
        let _ = writeln!(
            text,
            "{:<36} {:>9} {:>11} {:>11} {:>11} {:>13}",
            "", "", "virtagent", "qemu-ga", "raw", "better by"
        );
        for row in &self.rows {
            let cell = |values: &[f64]| median(values).map(figure).unwrap_or_else(|| "-".into());
            let _ = writeln!(
                text,
                "{:<36} {:>9} {:>11} {:>11} {:>11} {:>13}",
                row.what,
                row.unit,
                cell(&row.ours),
                cell(&row.theirs),
                cell(&row.raw),
                row.verdict()
            );
        }
        text
    }

    pub fn to_json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            json!({
                "what": row.what, "unit": row.unit, "less_is_better": row.better == Better::Less, "ratio": row.ratio(),
                "virtagent": median(&row.ours), "qemu-ga": median(&row.theirs), "raw": median(&row.raw),
                "rounds": {"virtagent": row.ours, "qemu-ga": row.theirs, "raw": row.raw},
            })
        });
        json!({"title": self.title, "rows": rows.collect::<Vec<_>>()})
    }
}

/// The middle value; nothing of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 0.5)
}

/// The value that this part of all values lies below.
pub fn percentile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 - 1.0) * part).round() as usize;
    sorted.get(at).copied()
}

/// Three figures that count.
pub fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
