//! How live projections are run.

use super::WindowLimits;
use crate::validation::check_range;
use crate::{BackoffMultiplier, CheckpointPages, PageSize, ProjectionConfig, RetryPolicy, ValidationError};
use nutype::nutype;
use std::time::Duration;

fn check_restarts(value: &u32) -> Result<(), ValidationError> {
    check_range("MaxRestarts", u64::from(*value), 0, 1_000_000)
}

/// How often a projection is started again without having caught up in between: 0 to 1,000,000, by default 100.
#[nutype(
    validate(with = check_restarts, error = ValidationError),
    default = 100,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct MaxRestarts(u32);

/// How live projections are run.
///
/// What it does not say is as in [`ProjectionConfig::default`]; so an event whose projector answers
/// [`Retry`](crate::FailureStrategy::Retry) is tried again 3 times.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveConfig {
    checkpoint_interval: Duration,
    reconnect: RetryPolicy,
    max_restarts: MaxRestarts,
    page_size: PageSize,
    window: WindowLimits,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            checkpoint_interval: Duration::from_secs(5),
            reconnect: RetryPolicy::default().base(Duration::from_secs(1)).cap(Duration::from_secs(30)),
            max_restarts: MaxRestarts::default(),
            page_size: PageSize::default(),
            window: WindowLimits::default(),
        }
    }
}

impl LiveConfig {
    /// How often a checkpoint is saved, where it is not saved with every page's transaction. By default every 5 s.
    #[must_use]
    pub const fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.checkpoint_interval = interval;
        self
    }

    /// How long to wait before a projection that ended is started again: `base`, doubling up to `max`, of which a random
    /// half is waited at least. By default 1 s up to 30 s. It begins anew once the projection has caught up.
    #[must_use]
    pub fn reconnect_delay(mut self, base: Duration, max: Duration) -> Self {
        self.reconnect = self.reconnect.base(base).multiplier(BackoffMultiplier::default()).cap(max);
        self
    }

    /// How often a projection is started again without having caught up in between. By default 100.
    #[must_use]
    pub const fn max_restarts(mut self, restarts: MaxRestarts) -> Self {
        self.max_restarts = restarts;
        self
    }

    /// How many events are read at once. By default 1,000.
    #[must_use]
    pub const fn page_size(mut self, size: PageSize) -> Self {
        self.page_size = size;
        self
    }

    /// How much of the end of the log is kept in memory, read once for all projections. By default 10,000 events and 16 MiB.
    /// A projection that falls behind that reads on its own until it has come near.
    #[must_use]
    pub const fn shared_window(mut self, limits: WindowLimits) -> Self {
        self.window = limits;
        self
    }

    pub(super) const fn window(&self) -> (WindowLimits, PageSize) {
        (self.window, self.page_size)
    }

    pub(super) fn run(&self) -> ProjectionConfig {
        // Time alone decides when a checkpoint is saved.
        let pages = CheckpointPages::try_new(1_000_000).unwrap_or_default();
        ProjectionConfig::default()
            .continuous()
            .wait_for_leadership()
            .page_size(self.page_size)
            .checkpoint_every(pages, self.checkpoint_interval)
    }

    pub(super) fn delay(&self, restart: u32, jitter: f64) -> Duration {
        self.reconnect.delay(restart, 0.5 + jitter / 2.0)
    }

    pub(super) fn restarts(&self) -> u32 {
        self.max_restarts.into_inner()
    }
}
