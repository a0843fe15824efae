//! What is printed: a table for people, JSON for machines.

use crate::Failure;
use crate::outcome::{Limit, Outcome, Percentiles, median};
use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;

const HEADER: [&str; 14] = [
    "",
    "what",
    "callers",
    "per second",
    "p50",
    "p99",
    "p99.9",
    "group",
    "CPU client",
    "CPU server",
    "peak RSS",
    "limit",
    "ratio",
    "CPU ratio",
];

/// Everything that was measured, with what it was measured on.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) store: &'static str,
    pub(crate) seconds: f64,
    pub(crate) runs: u32,
    pub(crate) outcomes: &'a [Outcome],
}

impl Report<'_> {
    pub(crate) fn json(&self) -> Result<(), Failure> {
        Ok(writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(self)?)?)
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        write(path, &serde_json::to_string_pretty(self)?)
    }

    /// Every run, and after several the one in the middle.
    pub(crate) fn table(&self) -> Result<(), Failure> {
        let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
        let mut cases = Vec::new();
        for outcome in self.outcomes {
            if !cases.contains(&&outcome.case) {
                cases.push(&outcome.case);
            }
        }
        for case in cases {
            let runs: Vec<_> = self.outcomes.iter().filter(|outcome| &outcome.case == case).collect();
            if runs.len() > 1 {
                rows.extend(runs.iter().map(|outcome| row(outcome, &format!("{}.{}", case.workload, outcome.run))));
            }
            rows.extend(median(&runs).map(|outcome| row(outcome, case.workload)));
        }
        let widths: Vec<usize> =
            (0..HEADER.len()).map(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0)).collect();
        let mut out = io::stdout().lock();
        for (index, row) in rows.iter().enumerate() {
            let cells =
                row.iter().zip(&widths).enumerate().map(|(n, (cell, &width))| {
                    if n < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                });
            writeln!(out, "| {} |", cells.collect::<Vec<_>>().join(" | "))?;
            if index == 0 {
                let rules = widths.iter().enumerate().map(|(n, &width)| {
                    if n < 2 { "-".repeat(width + 2) } else { format!("{}:", "-".repeat(width + 1)) }
                });
                writeln!(out, "|{}|", rules.collect::<Vec<_>>().join("|"))?;
            }
        }
        Ok(())
    }
}

fn row(outcome: &Outcome, name: &str) -> Vec<String> {
    let at = |pick: fn(&Percentiles) -> f64| outcome.latency.as_ref().map(pick).map(micros).unwrap_or_default();
    let limit = match outcome.limit {
        Some(Limit::Throughput(limit)) => thousands(limit.per_second),
        Some(Limit::Latency(limit)) => format!("p50 {}, p99 {}", micros(limit.p50), micros(limit.p99)),
        None => String::new(),
    };
    let ratio = match (outcome.ratio, outcome.ratio_p99) {
        (Some(p50), Some(p99)) => format!("p50 {p50:.1}x, p99 {p99:.1}x"),
        (Some(ratio), None) => format!("{ratio:.2}"),
        _ => String::new(),
    };
    let failed = if outcome.failed > 0 { format!(", {} FAILED", outcome.failed) } else { String::new() };
    let size =
        outcome.case.events.map(|events| format!(", {} in the store", thousands(events.into()))).unwrap_or_default();
    let idle = outcome.core.map(|core| format!(", {:.2} % of a core", core * 100.0)).unwrap_or_default();
    let sessions = outcome.sessions.map(|sessions| format!(", {sessions} sessions")).unwrap_or_default();
    let seconds = |cpu: Option<f64>| cpu.map(|cpu| format!("{cpu:.2} s")).unwrap_or_default();
    vec![
        name.to_owned(),
        format!("{}{size}{failed}{idle}{sessions}", outcome.case.what),
        outcome.case.concurrency.to_string(),
        if outcome.operations > 0 { thousands(outcome.per_second) } else { String::new() },
        at(|latency| latency.p50),
        at(|latency| latency.p99),
        at(|latency| latency.p999),
        outcome.group.map(|group| format!("{group:.1}")).unwrap_or_default(),
        seconds(outcome.client_cpu_seconds),
        seconds(outcome.server_cpu_seconds),
        outcome.peak_rss_bytes.map(|bytes| format!("{} MiB", bytes >> 20)).unwrap_or_default(),
        limit,
        ratio,
        outcome.cpu_ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
    ]
}

/// Microseconds, as long as they are few.
fn micros(micros: f64) -> String {
    match micros {
        small if small < 10.0 => format!("{small:.1} us"),
        medium if medium < 1_000.0 => format!("{medium:.0} us"),
        large if large < 100_000.0 => format!("{:.1} ms", large / 1_000.0),
        larger => format!("{:.0} ms", larger / 1_000.0),
    }
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a file that somebody asked for.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

/// Makes sure of it before anything is measured.
pub(crate) fn is_writable(path: &Path) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map(drop).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    format!("cannot write {}: {error}", path.display()).into()
}
