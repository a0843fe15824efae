//! Telling how a projection gets on.

use crate::{Activity, GlobalPosition, Timestamp};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How a projection gets on, as told to [`ProjectionConfig::on_progress`](super::ProjectionConfig::on_progress).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ProgressReport {
    /// The last position that it is done with.
    pub position: Option<GlobalPosition>,
    /// The head of the log when it was asked last; it is asked for once per report.
    pub head: Option<GlobalPosition>,
    /// How many positions it is behind the head. Where the store leaves gaps, that is more than the number of events.
    pub lag: u64,
    /// How old its picture of the log is: the time since the last event that it is done with was recorded, by the clock of
    /// this machine; before it is done with any in this run, the first one that it read. Zero while it is caught up, `None`
    /// as long as it has read nothing. After a quiet time in the log the next event shows all of that time, until it is
    /// applied.
    pub lag_time: Option<Duration>,
    /// How many events it applied in this run, as far as they are committed.
    pub applied: u64,
    /// How many events it left out in this run, because they failed.
    pub skipped: u64,
    /// How many events failed in this run and became dead letters.
    pub parked: u64,
    /// How many events it applied per second since the report before, or since it began.
    pub rate: f64,
    /// What it is doing; [`Activity::Idle`] in the last report of a run.
    pub activity: Activity,
}

/// How far behind a follower is: in positions, and in time. `as_of` is when the last event it is done with was recorded.
pub(crate) fn lag(
    position: Option<GlobalPosition>,
    head: Option<GlobalPosition>,
    as_of: Option<Timestamp>,
    now: Timestamp,
) -> (u64, Option<Duration>) {
    let number = |position: Option<GlobalPosition>| position.map_or(0, GlobalPosition::get);
    match number(head).saturating_sub(number(position)) {
        0 => (0, Some(Duration::ZERO)),
        behind => {
            let age = |as_of: Timestamp| u64::try_from(now.as_micros().saturating_sub(as_of.as_micros())).unwrap_or(0);
            (behind, as_of.map(|as_of| Duration::from_micros(age(as_of))))
        }
    }
}

/// Who is told.
#[derive(Clone)]
pub(super) struct OnProgress(Arc<dyn Fn(&ProgressReport) + Send + Sync>);

impl OnProgress {
    pub(super) fn new(told: impl Fn(&ProgressReport) + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }

    /// Whether it took the report. One that panics is not called again, and the projection goes on: it does not depend on
    /// who watches it.
    pub(super) fn tell(&self, report: &ProgressReport) -> bool {
        let told = catch_unwind(AssertUnwindSafe(|| (self.0)(report)));
        if told.is_err() {
            tracing::error!("the progress callback of a projection panicked; it is not called again");
        }
        told.is_ok()
    }
}

impl fmt::Debug for OnProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnProgress")
    }
}

/// Says when a report is due, and how fast events were applied since the last one.
#[derive(Debug)]
pub(super) struct Meter {
    interval: Duration,
    at: Duration,
    events: u64,
}

impl Meter {
    pub(super) const fn new(interval: Duration) -> Self {
        Self { interval, at: Duration::ZERO, events: 0 }
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        now.saturating_sub(self.at) >= self.interval
    }

    /// How long it is until the next report is due. Who has nothing else to do need not wake up more often than every 100 ms.
    pub(super) fn until_due(&self, now: Duration) -> Duration {
        let interval = self.interval.max(Duration::from_millis(100));
        self.at.saturating_add(interval).saturating_sub(now)
    }

    /// Events per second since the last call, when `events` were applied by now. Some of them may have been taken back.
    pub(super) fn rate(&mut self, now: Duration, events: u64) -> f64 {
        let seconds = now.saturating_sub(self.at).as_secs_f64();
        let applied = events.saturating_sub(self.events);
        (self.at, self.events) = (now, events);
        if seconds > 0.0 { applied as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_caught_up_has_no_lag_and_who_is_behind_is_as_old_as_its_last_event() {
        let position = |number| Some(GlobalPosition::try_new(number).unwrap());
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(lag(None, None, None, at(9)), (0, Some(Duration::ZERO)), "an empty log");
        assert_eq!(lag(position(5), position(5), Some(at(1)), at(9)), (0, Some(Duration::ZERO)), "a quiet one");
        assert_eq!(lag(position(6), position(5), Some(at(1)), at(9)), (0, Some(Duration::ZERO)), "an old head");
        assert_eq!(lag(position(3), position(5), Some(at(1)), at(9)), (2, Some(8 * second)));
        assert_eq!(lag(position(3), position(5), Some(at(10)), at(9)), (2, Some(Duration::ZERO)), "a clock ahead");
        assert_eq!(lag(None, position(5), None, at(9)), (5, None), "nothing was read yet");
    }

    #[test]
    fn a_rate_counts_from_one_report_to_the_next() {
        let second = Duration::from_secs(1);
        let mut meter = Meter::new(second);
        assert!(!meter.is_due(second / 2) && meter.is_due(second));
        assert_eq!(meter.until_due(second / 4), second * 3 / 4);
        assert_eq!(meter.rate(2 * second, 10), 5.0);
        assert!(!meter.is_due(2 * second + second / 2) && meter.is_due(3 * second));
        assert_eq!(meter.rate(4 * second, 11), 0.5);
        assert_eq!(meter.rate(5 * second, 4), 0.0, "a page was rolled back");
        assert_eq!(meter.rate(5 * second, 9), 0.0, "no time has passed");
    }
}
