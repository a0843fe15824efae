//! The handle: locks, limits and the ports.

use crate::followers::Followers;
use crate::log::Log;
use crate::snapshots::Snapshots;
use async_trait::async_trait;
use eventcore::{
    AppendLimits, AppendRequest, Appended, Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId,
    DeadLetterStore, Epoch, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, Leadership,
    LeadershipError, LineageId, LogCursor, LogSignal, LogWatch, Page, PageSize, ProjectionName, ProjectorCoordinator,
    ReadStreams, Snapshot, SnapshotKey, SnapshotStore, StreamId, StreamPage, StreamVersion, StreamsRead, Timestamp,
};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// An event store in RAM. A clone is another handle to the same store; the last one that goes takes the events with it.
///
/// A payload is copied once, when it is appended, and shared with its readers from then on; whoever holds one keeps up to
/// 64 KiB of its neighbours in memory. Positions have no gaps.
#[derive(Clone)]
pub struct MemoryEventStore {
    shared: Arc<Shared>,
}

/// The limits of a [`MemoryEventStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryConfig {
    /// How large an event and an append may be. Default 1 MiB and 16 MiB.
    pub limits: AppendLimits,
    /// The most events that one consistent read may bring. Default 1,000,000.
    pub max_read_events: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { limits: AppendLimits::default(), max_read_events: 1_000_000 }
    }
}

struct Shared {
    config: MemoryConfig,
    lineage: LineageId,
    log: RwLock<Log>,
    followers: Followers,
    snapshots: Snapshots,
    signal: LogSignal,
    closed: AtomicBool,
}

impl MemoryEventStore {
    /// An empty store with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(MemoryConfig::default())
    }

    /// An empty store with limits of the caller's.
    ///
    /// ```
    /// use eventcore_memory::{MemoryConfig, MemoryEventStore};
    ///
    /// let store = MemoryEventStore::with_config(MemoryConfig { max_read_events: 10_000, ..MemoryConfig::default() });
    /// # drop(store);
    /// ```
    #[must_use]
    pub fn with_config(config: MemoryConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                config,
                lineage: LineageId::generate(),
                log: RwLock::default(),
                followers: Followers::default(),
                snapshots: Snapshots::default(),
                signal: LogSignal::tended(),
                closed: AtomicBool::new(false),
            }),
        }
    }

    /// The log for reading. A panic elsewhere leaves it whole, since `Log` changes only by steps that cannot fail.
    fn read(&self) -> Result<RwLockReadGuard<'_, Log>, EventStoreError> {
        let log = self.shared.log.read().unwrap_or_else(PoisonError::into_inner);
        self.open().map(|()| log)
    }

    /// The log for writing. `closed` is judged under the lock, so nothing is written once `close` has returned.
    fn write(&self) -> Result<RwLockWriteGuard<'_, Log>, EventStoreError> {
        let log = self.shared.log.write().unwrap_or_else(PoisonError::into_inner);
        self.open().map(|()| log)
    }

    fn open(&self) -> Result<(), EventStoreError> {
        if self.shared.closed.load(Ordering::Acquire) { Err(EventStoreError::Closed) } else { Ok(()) }
    }
}

impl Default for MemoryEventStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryEventStore").field("lineage", &self.shared.lineage).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for MemoryEventStore {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        self.shared.config.limits.check(&request)?;
        let mut log = self.write()?;
        // Under the lock, so that the times of events rise with their positions as far as the clock does.
        let appended = log.append(&request, Timestamp::now())?;
        drop(log);
        // Who begins to watch only now reads after this append and sees it without being woken.
        if !appended.replayed && !appended.events.is_empty() && self.shared.signal.is_watched() {
            self.shared.signal.notify();
        }
        Ok(appended)
    }

    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        self.read()?.read_streams(&request, self.shared.config.max_read_events)
    }

    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        Ok(self.read()?.stream_version(stream_id))
    }

    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        Ok(self.read()?.head())
    }

    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        Ok(self.write()?.prune_receipts(older_than))
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        // Under the lock, so that an append in hand is finished before.
        let log = self.shared.log.write().unwrap_or_else(PoisonError::into_inner);
        self.shared.closed.store(true, Ordering::Release);
        drop(log);
        // Followers that wait find out at once.
        self.shared.signal.notify();
        Ok(())
    }
}

#[async_trait]
impl EventReader for MemoryEventStore {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        Ok(self.read()?.read_page(filter, after, limit))
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        Ok(self.read()?.read_stream(stream_id, after, limit))
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.read()?.verify_cursor(cursor)
    }

    fn lineage(&self) -> LineageId {
        self.shared.lineage
    }

    fn watch_log(&self) -> LogWatch {
        self.shared.signal.watch()
    }
}

#[async_trait]
impl CheckpointStore for MemoryEventStore {
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.open()?;
        Ok(self.shared.followers.load(name))
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        self.open()?;
        self.shared.followers.save(checkpoint, epoch)
    }

    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        self.open()?;
        self.shared.followers.reset(name, epoch)
    }

    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        self.open()?;
        Ok(self.shared.followers.list())
    }
}

#[async_trait]
impl DeadLetterStore for MemoryEventStore {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        self.open()?;
        self.shared.followers.park(letter, epoch)
    }

    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        self.open()?;
        Ok(self.shared.followers.letters(handler, after, limit))
    }

    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        self.open()?;
        Ok(self.shared.followers.letter(id))
    }

    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        self.open()?;
        Ok(self.shared.followers.discard(id))
    }

    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        self.open()?;
        self.shared.followers.discard_after(handler, after, epoch)
    }
}

#[async_trait]
impl ProjectorCoordinator for MemoryEventStore {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        self.open()?;
        self.shared.followers.acquire(name)
    }

    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        drop(leadership);
        Ok(())
    }
}

#[async_trait]
impl SnapshotStore for MemoryEventStore {
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        self.open()?;
        Ok(self.shared.snapshots.load(key))
    }

    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        self.open()?;
        self.shared.snapshots.save(snapshot);
        Ok(())
    }

    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        self.open()?;
        self.shared.snapshots.delete(key);
        Ok(())
    }

    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.open()?;
        Ok(self.shared.snapshots.prune(older_than))
    }
}
