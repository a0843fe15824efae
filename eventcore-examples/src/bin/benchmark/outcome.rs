//! What a measurement came to.

use crate::resources::Cost;
use crate::timing::Timed;
use hdrhistogram::Histogram;
use serde::Serialize;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    pub(crate) workload: &'static str,
    pub(crate) what: String,
    pub(crate) concurrency: usize,
    /// How many events were in the store, where that is what is varied.
    pub(crate) events: Option<u32>,
}

impl Case {
    pub(crate) fn new(workload: &'static str, what: impl Into<String>, concurrency: usize) -> Self {
        Self { workload, what: what.into(), concurrency, events: None }
    }
}

/// One run of one case.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) case: Case,
    pub(crate) run: u32,
    pub(crate) operations: u64,
    /// Commands that gave up after all their attempts.
    pub(crate) failed: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    pub(crate) latency: Option<Percentiles>,
    /// Operations per commit.
    pub(crate) group: Option<f64>,
    pub(crate) client_cpu_seconds: Option<f64>,
    pub(crate) server_cpu_seconds: Option<f64>,
    pub(crate) peak_rss_bytes: Option<u64>,
    pub(crate) limit: Option<Limit>,
    /// Throughput to the limit's: 1 is as fast. Of latencies: the median to the limit's, 1 is as fast, 2 takes twice as long.
    pub(crate) ratio: Option<f64>,
    /// The 99th percentile to the limit's.
    pub(crate) ratio_p99: Option<f64>,
    /// Processor time of client and server for an operation.
    pub(crate) cpu_micros: Option<f64>,
    /// Processor time of client and server to the time that passed, of what does nothing but wait: 0.01 is one percent of a core.
    pub(crate) core: Option<f64>,
    /// Sessions of a PostgreSQL server meanwhile.
    pub(crate) sessions: Option<u64>,
    /// What the limit spends on an operation to what this spends: 1 is as cheap. Of all figures the one that suffers least
    /// from what else the machine does.
    pub(crate) cpu_ratio: Option<f64>,
}

/// What hand-written code did.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Limit {
    Throughput(Throughput),
    Latency(Percentiles),
}

impl From<Throughput> for Limit {
    fn from(throughput: Throughput) -> Self {
        Self::Throughput(throughput)
    }
}

impl From<Percentiles> for Limit {
    fn from(latency: Percentiles) -> Self {
        Self::Latency(latency)
    }
}

/// How fast, and for how much.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Throughput {
    pub(crate) per_second: f64,
    /// Processor time of client and server for an operation.
    pub(crate) cpu_micros: Option<f64>,
}

impl Throughput {
    pub(crate) fn of(timed: &Timed, cost: Cost) -> Self {
        Self { per_second: timed.per_second(), cpu_micros: cost.cpu_micros(timed.done) }
    }

    /// In operations that consist of so many of those measured.
    pub(crate) fn grouped(self, by: u32) -> Self {
        let by = f64::from(by);
        Self { per_second: self.per_second / by, cpu_micros: self.cpu_micros.map(|cpu| cpu * by) }
    }
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Percentiles {
    pub(crate) fn of(nanoseconds: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1_000.0;
        (!nanoseconds.is_empty()).then(|| Self { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}

impl Outcome {
    pub(crate) fn new(case: Case, timed: &Timed, cost: Cost) -> Self {
        Self {
            case,
            run: 0,
            operations: timed.done,
            failed: timed.gave_up,
            seconds: timed.elapsed.as_secs_f64(),
            per_second: timed.per_second(),
            latency: Percentiles::of(&timed.latency),
            group: None,
            client_cpu_seconds: cost.client_cpu,
            server_cpu_seconds: cost.server_cpu,
            peak_rss_bytes: cost.peak_rss,
            limit: None,
            ratio: None,
            ratio_p99: None,
            cpu_micros: cost.cpu_micros(timed.done),
            core: None,
            sessions: None,
            cpu_ratio: None,
        }
    }

    /// Of what did nothing but wait.
    pub(crate) fn idle(mut self, sessions: Option<u64>) -> Self {
        let spent = self.client_cpu_seconds.map(|client| client + self.server_cpu_seconds.unwrap_or_default());
        self.core = spent.map(|spent| spent / self.seconds);
        self.sessions = sessions;
        self
    }

    pub(crate) fn group(mut self, commits: u64) -> Self {
        self.group = (commits > 0).then(|| self.operations as f64 / commits as f64);
        self
    }

    pub(crate) fn against(mut self, limit: Option<Limit>) -> Self {
        match (limit, self.latency) {
            (Some(Limit::Throughput(limit)), _) => {
                self.ratio = Some(self.per_second / limit.per_second);
                self.cpu_ratio = limit
                    .cpu_micros
                    .zip(self.cpu_micros)
                    .map(|(limit, own)| limit / own)
                    .filter(|ratio| ratio.is_finite());
            }
            (Some(Limit::Latency(limit)), Some(own)) => {
                self.ratio = Some(own.p50 / limit.p50);
                self.ratio_p99 = Some(own.p99 / limit.p99);
            }
            _ => {}
        }
        self.limit = limit;
        self
    }
}

/// The run in the middle, by throughput or, of latencies, by median latency.
pub(crate) fn median<'a>(runs: &[&'a Outcome]) -> Option<&'a Outcome> {
    let mut runs = runs.to_vec();
    let key = |outcome: &Outcome| match (outcome.limit, outcome.latency) {
        (Some(Limit::Latency(_)), Some(latency)) => latency.p50,
        // Of what waits, by what it spends.
        _ => outcome.core.unwrap_or(outcome.per_second),
    };
    runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
    runs.get(runs.len().saturating_sub(1) / 2).copied()
}
