//! The store: every port on one database.

use crate::append::{Appends, append_in_transaction};
use crate::checkpoint::Checkpoints;
use crate::connections::Connections;
use crate::dead_letter::DeadLetters;
use crate::feed::Feed;
use crate::leadership::Leases;
use crate::notify::Notifier;
use crate::read::Reads;
use crate::read_model::ReadModels;
use crate::retry::{Patience, repeatable};
use crate::rows::{column, one, position, version};
use crate::snapshot::Snapshots;
use crate::tail::Tail;
use crate::{ConnectError, PostgresConfig, schema};
use async_trait::async_trait;
use eventcore::{
    AppendRequest, Appended, Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore,
    Epoch, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, Leadership, LeadershipError,
    LineageId, LogCursor, LogWatch, Page, PageSize, ProjectionName, ProjectorCoordinator, ReadStreams, Snapshot,
    SnapshotKey, SnapshotStore, StreamId, StreamPage, StreamVersion, StreamsRead, Timestamp, WriterJoin,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// An event store on PostgreSQL 14 or later. Any number of instances, in any number of processes, share one log.
///
/// A clone is the same store. When the last one is gone its tasks end; [`close`](EventStore::close) also waits for them.
///
/// ```no_run
/// use eventcore_postgres::{PostgresConfig, PostgresEventStore};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = PostgresConfig::default().migrate_on_connect(true);
/// let store = PostgresEventStore::connect("postgres://app:secret@localhost/bank", config).await?;
/// println!("{:?}", store.health().await?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresEventStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connections: Connections,
    /// The two connections of the listener, and of beats and notifications.
    service: PgPool,
    owns_pool: bool,
    config: PostgresConfig,
    lineage: LineageId,
    appends: Appends,
    writer: WriterJoin,
    reads: Reads,
    feed: Arc<Feed>,
    tail: Arc<Tail>,
    notifier: Arc<Notifier>,
    checkpoints: Checkpoints,
    dead_letters: DeadLetters,
    snapshots: Snapshots,
    read_models: ReadModels,
    leases: Arc<Leases>,
    pages: Arc<Semaphore>,
    closed: CancellationToken,
    background: TaskTracker,
    /// Appends that wait for locks.
    waiting: TaskTracker,
    _stop: DropGuard,
}

impl PostgresEventStore {
    /// Connects with a pool of the store's own.
    ///
    /// # Errors
    /// [`ConnectError`] says what is wrong and what to do.
    pub async fn connect(url: &str, config: PostgresConfig) -> Result<Self, ConnectError> {
        let options: PgConnectOptions = url.parse().map_err(ConnectError::from_sqlx)?;
        Self::connect_with(options, config).await
    }

    /// As [`connect`](Self::connect), with options instead of a URL.
    ///
    /// # Errors
    /// [`ConnectError`] says what is wrong and what to do.
    pub async fn connect_with(options: PgConnectOptions, config: PostgresConfig) -> Result<Self, ConnectError> {
        let options = own_options(options, &config);
        // A first connection by itself: a pool would try again for a while before it says what is wrong.
        let mut connection = PgConnection::connect_with(&options).await.map_err(ConnectError::from_sqlx)?;
        let lineage = prepare(&mut connection, &config).await?;
        connection.close().await.map_err(ConnectError::from_sqlx)?;
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections.max(2))
            .acquire_timeout(config.retry_for.max(Duration::from_secs(1)))
            // A connection in steady use needs no question whether it lives.
            .test_before_acquire(false)
            .before_acquire(|connection, usage| {
                Box::pin(async move {
                    if usage.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Ok(Self::start(pool, true, lineage, config))
    }

    /// Uses a pool of the caller's. Two more connections with the pool's options, but without its hooks, are opened for
    /// wake-up and leadership.
    ///
    /// ```no_run
    /// use eventcore_postgres::sqlx::postgres::PgPoolOptions;
    /// use eventcore_postgres::{PostgresConfig, PostgresEventStore};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = PgPoolOptions::new().max_connections(20).connect("postgres://app:secret@localhost/bank").await?;
    /// let store = PostgresEventStore::with_pool(pool, PostgresConfig::default()).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError`] says what is wrong and what to do.
    pub async fn with_pool(pool: PgPool, config: PostgresConfig) -> Result<Self, ConnectError> {
        let mut connection = pool.acquire().await.map_err(ConnectError::from_sqlx)?;
        let lineage = prepare(&mut connection, &config).await?;
        drop(connection);
        Ok(Self::start(pool, false, lineage, config))
    }

    fn start(pool: PgPool, owns_pool: bool, lineage: LineageId, config: PostgresConfig) -> Self {
        let options = own_options(PgConnectOptions::clone(&pool.connect_options()), &config);
        let service = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(config.retry_for.max(Duration::from_secs(1)))
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(options);
        // Some connections stay for appends and reads, whatever the projections do: as many as these use side by side.
        let total = pool.options().get_max_connections() as usize;
        let pages = total.saturating_sub((total * 2 / 5).clamp(2, 5)).max(1);
        let connections = Connections::new(pool, total.saturating_sub(pages));
        let (background, waiting) = (TaskTracker::new(), TaskTracker::new());
        let closed = CancellationToken::new();
        let (appends, writer) = Appends::spawn(connections.clone(), &config, &waiting);
        let tail = Arc::new(Tail::new(connections.clone(), &config));
        let notifier = Arc::new(Notifier::new(service.clone(), &config));
        let leases = Arc::new(Leases::new(Connections::new(service.clone(), 0), &config));
        background.spawn(connections.clone().give_back(closed.clone()));
        background.spawn(Arc::clone(&tail).run(closed.clone()));
        background.spawn(Arc::clone(&notifier).send(closed.clone()));
        background.spawn(Arc::clone(&notifier).listen(Arc::clone(&tail), closed.clone()));
        background.spawn(Arc::clone(&leases).run(closed.clone()));
        Self(Arc::new(Shared {
            reads: Reads::spawn(connections.clone(), &config),
            feed: Arc::new(Feed::new(connections.clone(), config.schema.clone(), Patience::of(&config))),
            checkpoints: Checkpoints::new(connections.clone(), &config),
            dead_letters: DeadLetters::new(connections.clone(), &config),
            snapshots: Snapshots::new(connections.clone(), &config),
            read_models: ReadModels::new(connections.clone(), &config),
            pages: Arc::new(Semaphore::new(pages)),
            _stop: closed.clone().drop_guard(),
            connections,
            service,
            owns_pool,
            config,
            lineage,
            appends,
            writer,
            tail,
            notifier,
            leases,
            closed,
            background,
            waiting,
        }))
    }

    /// Appends within a transaction of the caller's, which may write tables of its own beside. What is answered holds if
    /// the caller commits. Then call [`wake_followers`](Self::wake_followers).
    ///
    /// While the transaction is open, followers do not get past it, and appends to the same streams wait. So it comes last,
    /// shortly before the commit; the server ends the transaction if it stands still for longer than
    /// [`transaction_idle_timeout`](PostgresConfig::transaction_idle_timeout).
    ///
    /// ```no_run
    /// use eventcore::AppendRequest;
    /// use eventcore_postgres::{PostgresEventStore, sqlx};
    ///
    /// # async fn example(store: &PostgresEventStore, request: AppendRequest) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut transaction = store.pool().begin().await?;
    /// sqlx::query("insert into invoices (number) values ($1)").bind(4711).execute(&mut *transaction).await?;
    /// store.append_in_transaction(&mut transaction, request).await?;
    /// transaction.commit().await?;
    /// store.wake_followers();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`append`](EventStore::append), except that nothing is retried. After a conflict, and after a command id that
    /// belongs to another command, the transaction is still good; after an error of the server it can only be rolled back.
    /// Any isolation level but read committed is refused.
    pub async fn append_in_transaction(
        &self,
        connection: &mut PgConnection,
        request: AppendRequest,
    ) -> Result<Appended, EventStoreError> {
        self.open()?;
        append_in_transaction(connection, &self.0.config, &request).await
    }

    /// Says that something was appended past this store, so that followers look at once rather than at the next poll, and
    /// whoever reads a page of the log through this store finds it.
    pub fn wake_followers(&self) {
        self.0.tail.ask_again();
        self.announce();
    }

    /// Wakes those who follow, here and in other processes. Readers of this process ask for what was acknowledged.
    fn announce(&self) {
        self.0.tail.appended();
        self.0.notifier.appended();
    }

    /// The pool that the store works on. Closing the store closes it, unless it is the caller's.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        self.0.connections.pool()
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.0.connections
    }

    pub(crate) fn config(&self) -> &PostgresConfig {
        &self.0.config
    }

    pub(crate) fn is_listening(&self) -> bool {
        self.0.notifier.is_listening()
    }

    /// Leave for one more page to hold a connection.
    pub(crate) async fn page_permit(&self) -> Result<OwnedSemaphorePermit, EventStoreError> {
        self.open()?;
        Arc::clone(&self.0.pages).acquire_owned().await.map_err(|_| EventStoreError::Closed)
    }

    pub(crate) fn checkpoints(&self) -> Result<&Checkpoints, EventStoreError> {
        self.open()?;
        Ok(&self.0.checkpoints)
    }

    pub(crate) fn read_models(&self) -> Result<&ReadModels, EventStoreError> {
        self.open()?;
        Ok(&self.0.read_models)
    }

    fn open(&self) -> Result<(), EventStoreError> {
        if self.0.closed.is_cancelled() { Err(EventStoreError::Closed) } else { Ok(()) }
    }
}

fn own_options(options: PgConnectOptions, config: &PostgresConfig) -> PgConnectOptions {
    let timeout = format!("{}ms", crate::config::millis(config.statement_timeout));
    // Statements are small, whatever the planner thinks of a large log: compiling one takes longer than it runs.
    options.options([("statement_timeout", timeout.as_str()), ("jit", "off")])
}

/// Migrates if that is wanted, and checks what the guarantees stand on.
async fn prepare(connection: &mut PgConnection, config: &PostgresConfig) -> Result<LineageId, ConnectError> {
    if config.migrate_on_connect {
        schema::migrate(connection, &config.schema).await?;
    }
    schema::check(connection, config).await
}

#[async_trait]
impl EventStore for PostgresEventStore {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        self.open()?;
        let shared = &self.0;
        let appended = shared.appends.append(request).await?;
        if !appended.events.is_empty() && !appended.replayed {
            shared.tail.acknowledge(appended.events.last().map(|event| event.position));
            self.announce();
        }
        Ok(appended)
    }

    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        self.open()?;
        self.0.reads.read(request).await
    }

    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.open()?;
        let schema = &self.0.config.schema;
        let sql = format!("select version from {schema}.events where stream = $1 order by version desc limit 1");
        let last = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(stream_id.as_str());
        let rows = repeatable(&self.0.connections, Patience::of(&self.0.config), last).await?;
        rows.first().map_or(Ok(StreamVersion::default()), |row| version(column(row, 0)?))
    }

    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.open()?;
        let sql = format!("select max(position) from {}.events", self.0.config.schema);
        let ask = || sqlx::query(AssertSqlSafe(sql.as_str()));
        let row = one(repeatable(&self.0.connections, Patience::of(&self.0.config), ask).await?)?;
        let head = column::<Option<i64>>(&row, 0)?.map(position).transpose()?;
        // Who follows through this store up to there is not kept waiting for the next poll.
        self.0.tail.acknowledge(head);
        Ok(head)
    }

    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.open()?;
        let sql = format!(
            "with pruned as (delete from {}.receipts where recorded_at < $1 returning 1) select count(*) from pruned",
            self.0.config.schema
        );
        let prune = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(older_than.as_datetime());
        let row = one(repeatable(&self.0.connections, Patience::of(&self.0.config), prune).await?)?;
        Ok(u64::try_from(column::<i64>(&row, 0)?).unwrap_or_default())
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        let shared = &self.0;
        shared.appends.close();
        shared.writer.clone().join().await?;
        shared.waiting.close();
        shared.waiting.wait().await;
        shared.leases.abandon();
        shared.closed.cancel();
        shared.background.close();
        shared.background.wait().await;
        shared.service.close().await;
        if shared.owns_pool {
            shared.connections.pool().close().await;
        }
        Ok(())
    }
}

#[async_trait]
impl EventReader for PostgresEventStore {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        self.open()?;
        self.0.feed.page(&self.0.tail, filter, after, limit).await
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        self.open()?;
        self.0.feed.stream_page(stream_id, after, limit).await
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.open()?;
        self.0.feed.verify(cursor).await
    }

    fn lineage(&self) -> LineageId {
        self.0.lineage
    }

    fn watch_log(&self) -> LogWatch {
        self.0.tail.watch()
    }
}

#[async_trait]
impl CheckpointStore for PostgresEventStore {
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.open()?;
        self.0.checkpoints.load(name).await
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        self.open()?;
        self.0.checkpoints.save(checkpoint, epoch).await
    }

    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        self.open()?;
        self.0.checkpoints.reset(name, epoch).await
    }

    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        self.open()?;
        self.0.checkpoints.list().await
    }
}

#[async_trait]
impl DeadLetterStore for PostgresEventStore {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        self.open()?;
        self.0.dead_letters.park(letter, epoch).await
    }

    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        self.open()?;
        self.0.dead_letters.list(handler, after, limit).await
    }

    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        self.open()?;
        self.0.dead_letters.load(id).await
    }

    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        self.open()?;
        self.0.dead_letters.discard(id).await
    }

    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        self.open()?;
        self.0.dead_letters.discard_after(handler, after, epoch).await
    }
}

#[async_trait]
impl ProjectorCoordinator for PostgresEventStore {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        self.open()?;
        self.0.leases.acquire(name).await
    }

    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        self.0.leases.release(leadership).await
    }
}

#[async_trait]
impl SnapshotStore for PostgresEventStore {
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        self.open()?;
        self.0.snapshots.load(key).await
    }

    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        self.open()?;
        self.0.snapshots.save(snapshot).await
    }

    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        self.open()?;
        self.0.snapshots.delete(key).await
    }

    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.open()?;
        self.0.snapshots.prune(older_than).await
    }
}
