//! What an application can choose about its store.

use crate::SchemaName;
use eventcore::{AppendLimits, GroupLimits, QueueCapacity};
use std::time::Duration;

/// What an application can choose about its store. The defaults suit most.
///
/// ```
/// use eventcore_postgres::PostgresConfig;
///
/// let config = PostgresConfig::default().schema("billing".parse()?).migrate_on_connect(true);
/// # let _ = config;
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone)]
pub struct PostgresConfig {
    pub(crate) schema: SchemaName,
    pub(crate) migrate_on_connect: bool,
    pub(crate) max_connections: u32,
    pub(crate) limits: AppendLimits,
    pub(crate) group: GroupLimits,
    pub(crate) queue: QueueCapacity,
    pub(crate) max_read_events: usize,
    pub(crate) retry_for: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) notifications: bool,
    pub(crate) beat_interval: Duration,
    pub(crate) page_idle_timeout: Duration,
    pub(crate) page_answer_timeout: Duration,
    pub(crate) transaction_idle_timeout: Duration,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            schema: SchemaName::default(),
            migrate_on_connect: false,
            max_connections: 10,
            limits: AppendLimits::default(),
            group: GroupLimits::default(),
            queue: QueueCapacity::default(),
            max_read_events: 1_000_000,
            retry_for: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
            poll_interval: Duration::from_millis(100),
            notifications: true,
            beat_interval: Duration::from_secs(1),
            page_idle_timeout: Duration::from_secs(3),
            page_answer_timeout: Duration::from_secs(10),
            transaction_idle_timeout: Duration::from_secs(60),
        }
    }
}

impl PostgresConfig {
    /// How many missed beats make a leader stop applying.
    pub(crate) const LOST_AFTER_BEATS: u32 = 2;
    /// How many missed beats make a candidate take over: more than the above, so that the old leader has stopped by then.
    pub(crate) const TAKEN_AFTER_BEATS: u32 = 3;

    /// The Postgres schema of the log. Default `eventcore`.
    #[must_use]
    pub fn schema(mut self, schema: SchemaName) -> Self {
        self.schema = schema;
        self
    }

    /// Whether connecting brings the schema up to date. By default it does not: a schema that is missing or old is an
    /// error, and [`migrate`](crate::migrate) is for whoever deploys.
    #[must_use]
    pub fn migrate_on_connect(mut self, migrate: bool) -> Self {
        self.migrate_on_connect = migrate;
        self
    }

    /// The most connections of the pool that [`connect`](crate::PostgresEventStore::connect) makes, at least 2, and 3 for
    /// exactly-once projections; two more are held for wake-up and leadership. Default 10. Not used with a pool of the
    /// caller's.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(2);
        self
    }

    /// How large an event and an append may be. Default 1 MiB and 16 MiB.
    #[must_use]
    pub fn append_limits(mut self, limits: AppendLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How many requests, and how many bytes of events, go to the server in one statement. Default 512 and 8 MiB.
    #[must_use]
    pub fn group_limits(mut self, limits: GroupLimits) -> Self {
        self.group = limits;
        self
    }

    /// How many appends may wait for the writer before callers wait. Default 1,024.
    #[must_use]
    pub fn queue_capacity(mut self, capacity: QueueCapacity) -> Self {
        self.queue = capacity;
        self
    }

    /// The most events that one consistent read may bring. Default 1,000,000.
    #[must_use]
    pub fn max_read_events(mut self, events: usize) -> Self {
        self.max_read_events = events.max(1);
        self
    }

    /// How long faults that pass by themselves (a restart of the server, a deadlock, a lost connection) are retried before
    /// they become an error. Default 10 s.
    #[must_use]
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// How long an append waits for the locks of its streams. Default 5 s.
    #[must_use]
    pub fn lock_timeout(mut self, time: Duration) -> Self {
        self.lock_timeout = time;
        self
    }

    /// The server's limit on one statement, set on the connections that the store opens itself. Default 60 s. With a pool
    /// of the caller's that pool decides.
    #[must_use]
    pub fn statement_timeout(mut self, time: Duration) -> Self {
        self.statement_timeout = time;
        self
    }

    /// How often the log is looked at when nothing says that there is something new, and so what a lost notification
    /// costs at most. Default 100 ms.
    #[must_use]
    pub fn poll_interval(mut self, time: Duration) -> Self {
        self.poll_interval = time.max(Duration::from_millis(1));
        self
    }

    /// Whether LISTEN and NOTIFY wake followers in other processes. Default yes. Switch it off behind a pooler in
    /// transaction mode, where LISTEN does not work; polling does the rest.
    #[must_use]
    pub fn notifications(mut self, on: bool) -> Self {
        self.notifications = on;
        self
    }

    /// How often a leader shows that it lives. Default 1 s: it stops applying after 2 beats that failed, and is replaced
    /// after 3 that nobody saw. The same in all instances.
    #[must_use]
    pub fn beat_interval(mut self, time: Duration) -> Self {
        self.beat_interval = time.max(Duration::from_millis(10));
        self
    }

    /// How long the transaction of an exactly-once page may stand still before the server ends it. Default 3 s: so long a
    /// stopped leader can hold up its successor, and so long `apply` may wait for something else than the database.
    ///
    /// No event is blamed for a connection that is gone, so one whose `apply` always idles longer, or breaks its connection in
    /// another way, is neither skipped nor parked, whatever `on_error` would say: its page comes again until the run ends
    /// after its limit of failures ([`read_failures`](eventcore::ProjectionConfig::read_failures)). The way out: give `apply`
    /// more time here, do what takes long elsewhere, or let `apply` return `Ok` for this event before it uses the connection.
    #[must_use]
    pub fn page_idle_timeout(mut self, time: Duration) -> Self {
        self.page_idle_timeout = time;
        self
    }

    /// How long the answer to each of the store's own statements in an exactly-once page (its begin, its dead letters, its
    /// checkpoint, its end) is waited for, should a connection fall silent. Default 10 s. After that the connection is given
    /// up and the outcome of the page is unknown: the projection asks for its checkpoint, which the server answers when the
    /// page has ended there, and goes on from it. The statements of `apply` are the projector's own; a leader that lost its
    /// leadership does not wait for them.
    #[must_use]
    pub fn page_answer_timeout(mut self, time: Duration) -> Self {
        self.page_answer_timeout = time;
        self
    }

    /// How long a transaction that [`append_in_transaction`](crate::PostgresEventStore::append_in_transaction) joined may
    /// stand still before the server ends it, since it holds back followers. Default 60 s.
    #[must_use]
    pub fn transaction_idle_timeout(mut self, time: Duration) -> Self {
        self.transaction_idle_timeout = time;
        self
    }
}

/// A time in whole milliseconds for the server, at least 1: 0 would mean "without limit" there.
pub(crate) fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX).max(1)
}
