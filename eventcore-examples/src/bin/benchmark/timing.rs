//! Callers in a closed loop, and how long each call took.

use crate::Failure;
use hdrhistogram::Histogram;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Done,
    /// It failed in a way that is counted rather than the end: the command gave up after its conflicts.
    GaveUp,
}

/// Calls and their times.
#[derive(Debug, Clone)]
pub(crate) struct Timed {
    pub(crate) done: u64,
    pub(crate) gave_up: u64,
    pub(crate) elapsed: Duration,
    /// In nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Timed {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self { done: 0, gave_up: 0, elapsed: Duration::ZERO, latency: Histogram::new(3)? })
    }

    pub(crate) fn record(&mut self, time: Duration) -> Result<(), Failure> {
        Ok(self.latency.record(u64::try_from(time.as_nanos())?)?)
    }

    /// Adds what was measured one after the other.
    pub(crate) fn then(&mut self, later: &Self) -> Result<(), Failure> {
        self.elapsed += later.elapsed;
        self.beside(later)
    }

    /// Adds what was measured at the same time.
    fn beside(&mut self, other: &Self) -> Result<(), Failure> {
        self.done += other.done;
        self.gave_up += other.gave_up;
        Ok(self.latency.add(&other.latency)?)
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// When a loop ends: after a time, after so many calls, or when told to.
#[derive(Debug, Clone)]
pub(crate) struct Until {
    pub(crate) time: Duration,
    pub(crate) calls: u64,
    pub(crate) stop: CancellationToken,
}

/// Runs `callers` at the same time; each calls again as soon as it has its answer.
pub(crate) async fn closed_loop<F, R>(callers: usize, until: &Until, call: F) -> Result<Timed, Failure>
where
    F: Fn(usize) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Call, Failure>> + Send,
{
    let left = Arc::new(AtomicU64::new(until.calls));
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for caller in 0..callers {
        let (left, until, call) = (Arc::clone(&left), until.clone(), call.clone());
        tasks.spawn(async move {
            let mut timed = Timed::new()?;
            let mut began = Instant::now();
            while began - started < until.time && !until.stop.is_cancelled() && take_one(&left) {
                match call(caller).await? {
                    Call::Done => timed.done += 1,
                    Call::GaveUp => timed.gave_up += 1,
                }
                let now = Instant::now();
                timed.record(now - began)?;
                began = now;
            }
            Ok::<_, Failure>(timed)
        });
    }
    let mut total = Timed::new()?;
    while let Some(timed) = tasks.join_next().await {
        total.beside(&timed??)?;
    }
    total.elapsed = started.elapsed();
    Ok(total)
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}
