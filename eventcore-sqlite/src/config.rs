//! How a store is opened.

use eventcore::{AppendLimits, Problem, QueueCapacity, ValidationError};
use nutype::nutype;
use std::time::Duration;

/// How a store is opened. Every value has a default.
///
/// ```
/// use eventcore_sqlite::{ReaderPoolSize, SqliteConfig};
/// use std::time::Duration;
///
/// let config = SqliteConfig::default()
///     .create_if_missing(false)
///     .reader_pool_size(ReaderPoolSize::try_new(8)?)
///     .busy_timeout(Duration::from_secs(1));
/// # let _ = config;
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteConfig {
    pub(crate) create_if_missing: bool,
    pub(crate) limits: AppendLimits,
    pub(crate) queue_capacity: QueueCapacity,
    pub(crate) reader_pool_size: ReaderPoolSize,
    pub(crate) busy_timeout: Duration,
    pub(crate) max_page_count: Option<u32>,
    pub(crate) synchronous: Synchronous,
    pub(crate) poll_interval: PollInterval,
    pub(crate) max_read_events: usize,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            create_if_missing: true,
            limits: AppendLimits::default(),
            queue_capacity: QueueCapacity::default(),
            reader_pool_size: ReaderPoolSize::default(),
            busy_timeout: Duration::from_secs(5),
            max_page_count: None,
            synchronous: Synchronous::default(),
            poll_interval: PollInterval::default(),
            max_read_events: 1_000_000,
        }
    }
}

impl SqliteConfig {
    /// Whether a file that does not exist is created. Default true.
    #[must_use]
    pub fn create_if_missing(mut self, create: bool) -> Self {
        self.create_if_missing = create;
        self
    }

    /// How large an event and an append may be. Default 1 MiB and 16 MiB.
    #[must_use]
    pub fn limits(mut self, limits: AppendLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How many appends may wait for the writer, and how many reads for a reader; when as many do, callers wait.
    /// Default 1,024.
    #[must_use]
    pub fn queue_capacity(mut self, capacity: QueueCapacity) -> Self {
        self.queue_capacity = capacity;
        self
    }

    /// How many reads run at the same time, each on a thread and a connection of its own. Short ones are made by one
    /// thread after the other; more threads are used when many wait, or some take long. Default 4.
    #[must_use]
    pub fn reader_pool_size(mut self, size: ReaderPoolSize) -> Self {
        self.reader_pool_size = size;
        self
    }

    /// How long a write waits for another process, or for a projection's page, before it fails as unavailable.
    /// Default 5 seconds.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// How many pages of 4 KiB the file may have. A store that is full can still be read. Default: as many as the disk
    /// holds.
    #[must_use]
    pub fn max_page_count(mut self, pages: u32) -> Self {
        self.max_page_count = Some(pages);
        self
    }

    /// When a commit is on the disk. Default [`Synchronous::Full`].
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How often commits of other processes are looked for while somebody watches the log. Default 20 ms.
    #[must_use]
    pub fn poll_interval(mut self, interval: PollInterval) -> Self {
        self.poll_interval = interval;
        self
    }

    /// The most events that one consistent read of streams may bring. Default 1,000,000.
    #[must_use]
    pub fn max_read_events(mut self, events: usize) -> Self {
        self.max_read_events = events;
        self
    }
}

/// When a commit is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// Before it is acknowledged: it survives a crash of the process, of the system and of the power.
    #[default]
    Full,
    /// Some time later: it survives a crash of the process. A crash of the system or of the power can take the last
    /// commits back, never damage the file. For tests and for what can be imported again.
    Normal,
}

impl Synchronous {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

fn check_readers(value: &u8) -> Result<(), ValidationError> {
    check_range("ReaderPoolSize", *value, 1, 64)
}

/// How many reads run at the same time: 1 to 64, by default 4.
#[nutype(
    validate(with = check_readers, error = ValidationError),
    default = 4,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct ReaderPoolSize(u8);

fn check_interval(value: &u8) -> Result<(), ValidationError> {
    check_range("PollInterval", *value, 1, 25)
}

/// How often commits of other processes are looked for, in milliseconds: 1 to 25, by default 20.
#[nutype(
    validate(with = check_interval, error = ValidationError),
    default = 20,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct PollInterval(u8);

impl PollInterval {
    pub(crate) fn get(self) -> Duration {
        Duration::from_millis(u64::from(self.into_inner()))
    }
}

fn check_range(what: &'static str, value: u8, min: u8, max: u8) -> Result<(), ValidationError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let problem = Problem::OutOfRange { value: value.into(), min: min.into(), max: max.into() };
    Err(ValidationError::new(what, problem))
}
