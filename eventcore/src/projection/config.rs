//! How a projection is run.

use super::report::{OnProgress, ProgressReport};
use crate::validation::check_range;
use crate::{BackoffMultiplier, EventReader, LogWatch, MaxAttempts, PageSize, Progress, RetryPolicy, ValidationError};
use nutype::nutype;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn check_retries(value: &u32) -> Result<(), ValidationError> {
    check_range("MaxRetryAttempts", u64::from(*value), 0, 1_000)
}

/// How often an event is tried again: 0 to 1,000, by default 3.
#[nutype(
    validate(with = check_retries, error = ValidationError),
    default = 3,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct MaxRetryAttempts(u32);

fn check_failures(value: &u32) -> Result<(), ValidationError> {
    check_range("MaxConsecutiveFailures", u64::from(*value), 1, 1_000_000)
}

/// How many failures of the store in a row are endured: 1 to 1,000,000, by default 5.
#[nutype(
    validate(with = check_failures, error = ValidationError),
    default = 5,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct MaxConsecutiveFailures(u32);

fn check_pages(value: &u32) -> Result<(), ValidationError> {
    check_range("CheckpointPages", u64::from(*value), 1, 1_000_000)
}

/// After how many pages a checkpoint is saved: 1 to 1,000,000, by default 1.
#[nutype(
    validate(with = check_pages, error = ValidationError),
    default = 1,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct CheckpointPages(u32);

/// How a projection is run. The default is a batch: to the end of the log as it was when the run began.
///
/// ```
/// use eventcore::{PageSize, ProjectionConfig};
/// use tokio_util::sync::CancellationToken;
///
/// let shutdown = CancellationToken::new();
/// let config = ProjectionConfig::default().continuous().page_size(PageSize::try_new(500)?).shutdown(shutdown.clone());
/// # let _ = config;
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProjectionConfig {
    pub(super) continuous: bool,
    pub(super) page_size: PageSize,
    pub(super) poll_interval: Option<Duration>,
    pub(super) retry: RetryPolicy,
    pub(super) retries: MaxRetryAttempts,
    pub(super) max_failures: MaxConsecutiveFailures,
    pub(super) failure_delay: Duration,
    pub(super) hold_time: Duration,
    pub(super) checkpoint_pages: CheckpointPages,
    pub(super) checkpoint_interval: Duration,
    pub(super) batch_patience: Duration,
    pub(super) wait_for_leadership: bool,
    pub(super) accept_filter_change: bool,
    pub(super) shutdown: CancellationToken,
    pub(super) progress: Progress,
    pub(super) on_progress: Option<OnProgress>,
    pub(super) progress_interval: Duration,
    pub(super) aside: bool,
    /// Who reads pages and tells of new ones, if not the store itself.
    pub(super) reader: Option<PageSource>,
}

/// What reads pages in place of the store, and tells when there are new ones.
#[derive(Clone)]
pub(super) struct PageSource {
    /// Every run has a reader of its own, which knows what this run was told.
    pub(super) open: Arc<dyn Fn() -> Arc<dyn EventReader> + Send + Sync>,
}

impl fmt::Debug for PageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageSource")
    }
}

impl Default for ProjectionConfig {
    fn default() -> Self {
        Self {
            continuous: false,
            page_size: PageSize::default(),
            poll_interval: None,
            retry: RetryPolicy::default()
                .max_attempts(MaxAttempts::default())
                .base(Duration::from_millis(100))
                .multiplier(BackoffMultiplier::default())
                .cap(Duration::from_secs(5)),
            retries: MaxRetryAttempts::default(),
            max_failures: MaxConsecutiveFailures::default(),
            failure_delay: Duration::from_millis(100),
            hold_time: Duration::from_millis(50),
            checkpoint_pages: CheckpointPages::default(),
            checkpoint_interval: Duration::from_secs(5),
            batch_patience: Duration::from_secs(30),
            wait_for_leadership: false,
            accept_filter_change: false,
            shutdown: CancellationToken::new(),
            progress: Progress::default(),
            on_progress: None,
            progress_interval: Duration::from_secs(1),
            aside: false,
            reader: None,
        }
    }
}

impl ProjectionConfig {
    /// A run beside the one that the projection's dead letters are about: it throws none of them away.
    pub(crate) const fn aside(mut self) -> Self {
        self.aside = true;
        self
    }

    /// Reads pages from what `open` makes, in place of the store, and waits for its wake-up. Each run with this configuration
    /// opens its own.
    pub(crate) fn reading<L: EventReader + 'static>(mut self, open: impl Fn() -> L + Send + Sync + 'static) -> Self {
        self.reader = Some(PageSource { open: Arc::new(move || Arc::new(open())) });
        self
    }

    /// How long to wait at most before looking again at a log that is watched like this.
    pub(super) fn look_every(&self, log: &LogWatch) -> Duration {
        // What is read in place of the store tells by itself.
        self.poll_interval.filter(|_| self.reader.is_none()).unwrap_or(log.look_every())
    }

    /// How long to wait before looking for a leadership again.
    pub(super) fn standby_interval(&self) -> Duration {
        self.poll_interval.unwrap_or(Duration::from_millis(100))
    }

    /// Follows the log until it is told to stop.
    #[must_use]
    pub const fn continuous(mut self) -> Self {
        self.continuous = true;
        self
    }

    /// How many events are read at once, and applied before the checkpoint is saved. By default 1,000.
    #[must_use]
    pub const fn page_size(mut self, size: PageSize) -> Self {
        self.page_size = size;
        self
    }

    /// How long to wait at most before looking again, should no wake-up come. By default as the store says:
    /// [`LogWatch::look_every`](crate::LogWatch::look_every).
    ///
    /// A projection that waits for a leadership looks for it as often, by default every 100 ms.
    #[must_use]
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = Some(interval);
        self
    }

    /// How often an event is tried again if the projector answers [`Retry`](super::FailureStrategy::Retry). By default 3.
    #[must_use]
    pub const fn retries(mut self, retries: MaxRetryAttempts) -> Self {
        self.retries = retries;
        self
    }

    /// The delay before an event is tried again, its growth and its cap. By default 100 ms, doubled, at most 5 s.
    #[must_use]
    pub const fn retry_delay(mut self, base: Duration, multiplier: BackoffMultiplier, cap: Duration) -> Self {
        self.retry = self.retry.base(base).multiplier(multiplier).cap(cap);
        self
    }

    /// How many failures of the store in a row are endured, and how far apart. By default 5, 100 ms apart.
    #[must_use]
    pub const fn read_failures(mut self, max: MaxConsecutiveFailures, delay: Duration) -> Self {
        self.max_failures = max;
        self.failure_delay = delay;
        self
    }

    /// How long a transaction is held before it is committed in the middle of a page, so that writers get their turn.
    /// By default 50 ms. Only for transactional contexts.
    #[must_use]
    pub const fn hold_time(mut self, time: Duration) -> Self {
        self.hold_time = time;
        self
    }

    /// Saves the checkpoint after so many pages, or after so long, whichever is first. By default after every page; with
    /// more pages the time is 5 s unless said otherwise. More events come again after a crash. A transactional context
    /// commits every page all the same.
    #[must_use]
    pub const fn checkpoint_every(mut self, pages: CheckpointPages, interval: Duration) -> Self {
        self.checkpoint_pages = pages;
        self.checkpoint_interval = interval;
        self
    }

    /// How long a batch waits for events that were acknowledged but are not in the feed yet. By default 30 s.
    #[must_use]
    pub const fn batch_patience(mut self, time: Duration) -> Self {
        self.batch_patience = time;
        self
    }

    /// Waits while another instance leads, instead of failing at once; and waits again when the leadership is lost.
    #[must_use]
    pub const fn wait_for_leadership(mut self) -> Self {
        self.wait_for_leadership = true;
        self
    }

    /// Goes on from a checkpoint that was reached with another filter. Events before it that only the new filter wants
    /// are left out for good.
    #[must_use]
    pub const fn accept_filter_change(mut self) -> Self {
        self.accept_filter_change = true;
        self
    }

    /// Stops when `token` is cancelled: the event in hand is finished and the checkpoint saved.
    #[must_use]
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.shutdown = token;
        self
    }

    /// Shows in `progress` how far the projection has come, for callers that wait until it has what they wrote.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Tells `told` how the projection gets on: at most every [`progress_interval`](Self::progress_interval), and once more
    /// when the run ends, however it does; not if the run is dropped. It is called between two events, so while one takes
    /// long nothing is told; with [partitions](Self::partitions), between two pages. A run that has caught up tells so too;
    /// for that it looks for more whenever a report is due, at most every 100 ms. For each report the store is asked once for
    /// its head, for 100 ms at most.
    ///
    /// It is called by the run itself and has to return soon. If it panics, that is logged, it is not called again, and the
    /// run goes on.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use eventcore::{Event, InMemory, ProjectionConfig, Projector, RecordedEvent, run_projection};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, Event)]
    /// # #[event(namespace = "bank")]
    /// # enum BankEvent { Deposited { cents: u64 } }
    /// # struct Total(u64);
    /// # impl Projector for Total {
    /// #     type Event = BankEvent;
    /// #     type Error = std::convert::Infallible;
    /// #     type Context = InMemory;
    /// #     fn name(&self) -> &str { "total" }
    /// #     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> {
    /// #         let BankEvent::Deposited { cents } = event.payload();
    /// #         self.0 += cents;
    /// #         Ok(())
    /// #     }
    /// # }
    /// # let store = eventcore_memory::MemoryEventStore::new();
    /// let config = ProjectionConfig::default()
    ///     .on_progress(|now| println!("{} behind, {:.0} events/s, {:?}", now.lag, now.rate, now.activity));
    /// run_projection(Total(0), &store, config).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn on_progress(mut self, told: impl Fn(&ProgressReport) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(OnProgress::new(told));
        self
    }

    /// How far apart reports of progress are at least, and over what time rates are measured. By default 1 s.
    #[must_use]
    pub const fn progress_interval(mut self, interval: Duration) -> Self {
        self.progress_interval = interval;
        self
    }
}
