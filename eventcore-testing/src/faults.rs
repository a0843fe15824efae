//! Faults on demand: lost answers, unavailable stores, rivals that are faster, leaderships that lapse.

use async_trait::async_trait;
use eventcore::{
    AppendRequest, Appended, Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore,
    Epoch, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, Leadership, LeadershipError,
    LineageId, LogCursor, LogWatch, Page, PageSize, ProjectionName, ProjectorCoordinator, ReadStreams, Snapshot,
    SnapshotKey, SnapshotStore, StreamId, StreamPage, StreamVersion, StreamsRead, Timestamp,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio::task::consume_budget;

/// A store in front of another one that fails as planned. Without a plan it only passes on.
///
/// Every call is a chance for other tasks to run, which a store in RAM does not give by itself.
///
/// ```
/// use eventcore::{EventStore, EventStoreError, ReadStreams};
/// use eventcore_memory::MemoryEventStore;
/// use eventcore_testing::{FaultyStore, ReadFault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = FaultyStore::new(MemoryEventStore::new());
/// store.faults().of_reads([ReadFault::Unavailable]);
/// let failed = store.read_streams(ReadStreams::new([])?).await;
/// assert!(matches!(failed, Err(EventStoreError::Unavailable { .. })));
/// assert!(store.read_streams(ReadStreams::new([])?).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FaultyStore<S> {
    store: S,
    faults: Faults,
}

/// The plan of a [`FaultyStore`]: each call takes the next fault of its kind. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    appends: VecDeque<AppendFault>,
    reads: VecDeque<ReadFault>,
    saves: VecDeque<SaveFault>,
    parks: VecDeque<SaveFault>,
    acquisitions: VecDeque<LeadershipFault>,
    cut: bool,
    snapshots: VecDeque<SnapshotFault>,
}

/// What happens with one append.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum AppendFault {
    /// Nothing: it is passed on. To let a later one fail.
    None,
    /// It is not passed on, and the caller is told so.
    Unavailable,
    /// It is not passed on, and the outcome is unknown to the caller.
    RequestLost,
    /// It is passed on, and the outcome is unknown to the caller.
    AnswerLost,
    /// As [`AnswerLost`](Self::AnswerLost), and then somebody else appends this.
    AnswerLostAndFollowed(AppendRequest),
    /// Somebody else appends this first.
    Preceded(AppendRequest),
    /// It is passed on after this time.
    Delayed(Duration),
}

/// What happens with one read, of streams or of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadFault {
    /// Nothing: it is passed on. To let a later one fail.
    None,
    /// It fails.
    Unavailable,
    /// It is passed on after this time.
    Delayed(Duration),
}

/// What happens with one checkpoint that is saved, or one dead letter that is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SaveFault {
    /// Nothing: it is passed on. To let a later one fail.
    None,
    /// It is not passed on, and the caller is told so.
    Unavailable,
    /// It is passed on, and the outcome is unknown to the caller.
    AnswerLost,
}

/// What happens with one leadership that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeadershipFault {
    /// Nothing: it is passed on. To let a later one fail.
    None,
    /// It is not passed on, and the caller is told so.
    Unavailable,
    /// It is given, but to others it is free, and the leader does not notice: as if it were paused and given up for dead.
    Lapsed,
}

/// What happens with one snapshot that is loaded or saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotFault {
    /// Nothing: it is passed on. To let a later one fail.
    None,
    /// It is not passed on, and the caller is told so.
    Unavailable,
    /// It is not passed on, and the caller is told that it was: nothing is found, or nothing is saved.
    Lost,
}

/// The cause of an injected error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a fault was injected")]
pub struct InjectedFault;

impl Faults {
    /// Plans what happens with the next appends.
    pub fn of_appends(&self, faults: impl IntoIterator<Item = AppendFault>) {
        self.plan(|plan| plan.appends.extend(faults));
    }

    /// Plans what happens with the next reads, of streams or of pages.
    pub fn of_reads(&self, faults: impl IntoIterator<Item = ReadFault>) {
        self.plan(|plan| plan.reads.extend(faults));
    }

    /// Plans what happens with the next checkpoints that are saved.
    pub fn of_saves(&self, faults: impl IntoIterator<Item = SaveFault>) {
        self.plan(|plan| plan.saves.extend(faults));
    }

    /// Plans what happens with the next dead letters that are parked outside of a transaction.
    pub fn of_parks(&self, faults: impl IntoIterator<Item = SaveFault>) {
        self.plan(|plan| plan.parks.extend(faults));
    }

    /// Plans what happens with the next leaderships that are asked for.
    pub fn of_acquisitions(&self, faults: impl IntoIterator<Item = LeadershipFault>) {
        self.plan(|plan| plan.acquisitions.extend(faults));
    }

    /// From now on the store cannot be reached at all, until it is [restored](Self::restore).
    pub fn cut(&self) {
        self.plan(|plan| plan.cut = true);
    }

    /// The store can be reached again.
    pub fn restore(&self) {
        self.plan(|plan| plan.cut = false);
    }

    /// Plans what happens with the next snapshots that are loaded or saved.
    pub fn of_snapshots(&self, faults: impl IntoIterator<Item = SnapshotFault>) {
        self.plan(|plan| plan.snapshots.extend(faults));
    }

    /// Whether everything planned has happened.
    #[must_use]
    pub fn are_used_up(&self) -> bool {
        self.plan(|plan| {
            let saved = plan.saves.is_empty() && plan.parks.is_empty();
            plan.appends.is_empty()
                && plan.reads.is_empty()
                && saved
                && plan.acquisitions.is_empty()
                && plan.snapshots.is_empty()
        })
    }

    fn plan<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S> FaultyStore<S> {
    /// Stands before `store`, without faults for now.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self { store, faults: Faults::default() }
    }

    /// The plan.
    #[must_use]
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The store behind.
    #[must_use]
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Every call begins so.
    async fn reach(&self) -> Result<(), EventStoreError> {
        consume_budget().await;
        if self.faults.plan(|plan| plan.cut) { Err(EventStoreError::unavailable(InjectedFault)) } else { Ok(()) }
    }

    async fn before_read(&self) -> Result<(), EventStoreError> {
        self.reach().await?;
        match self.faults.plan(|plan| plan.reads.pop_front()) {
            None | Some(ReadFault::None) => Ok(()),
            Some(ReadFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault)),
            Some(ReadFault::Delayed(time)) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl<S: EventStore> EventStore for FaultyStore<S> {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        self.reach().await?;
        let unknown = |answer: Result<Appended, EventStoreError>| {
            // An error is an answer: only that it happened can be lost.
            answer.and(Err(EventStoreError::outcome_unknown(InjectedFault)))
        };
        match self.faults.plan(|plan| plan.appends.pop_front()) {
            None | Some(AppendFault::None) => self.store.append(request).await,
            Some(AppendFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault)),
            Some(AppendFault::RequestLost) => Err(EventStoreError::outcome_unknown(InjectedFault)),
            Some(AppendFault::AnswerLost) => unknown(self.store.append(request).await),
            Some(AppendFault::AnswerLostAndFollowed(other)) => {
                let answer = self.store.append(request).await;
                self.store.append(other).await?;
                unknown(answer)
            }
            Some(AppendFault::Preceded(other)) => {
                self.store.append(other).await?;
                self.store.append(request).await
            }
            Some(AppendFault::Delayed(time)) => {
                tokio::time::sleep(time).await;
                self.store.append(request).await
            }
        }
    }

    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        self.before_read().await?;
        self.store.read_streams(request).await
    }

    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.reach().await?;
        self.store.stream_version(stream_id).await
    }

    async fn stream_exists(&self, stream_id: &StreamId) -> Result<bool, EventStoreError> {
        self.reach().await?;
        self.store.stream_exists(stream_id).await
    }

    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.reach().await?;
        self.store.head().await
    }

    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.reach().await?;
        self.store.prune_receipts(older_than).await
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        self.reach().await?;
        self.store.close().await
    }
}

#[async_trait]
impl<S: EventReader> EventReader for FaultyStore<S> {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        self.before_read().await?;
        self.store.read_page(filter, after, limit).await
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        self.before_read().await?;
        self.store.read_stream(stream_id, after, limit).await
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.reach().await?;
        self.store.verify_cursor(cursor).await
    }

    fn lineage(&self) -> LineageId {
        self.store.lineage()
    }

    fn watch_log(&self) -> LogWatch {
        self.store.watch_log()
    }
}

#[async_trait]
impl<S: CheckpointStore> CheckpointStore for FaultyStore<S> {
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.reach().await?;
        self.store.load_checkpoint(name).await
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        self.reach().await?;
        match self.faults.plan(|plan| plan.saves.pop_front()) {
            None | Some(SaveFault::None) => self.store.save_checkpoint(checkpoint, epoch).await,
            Some(SaveFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault).into()),
            Some(SaveFault::AnswerLost) => {
                self.store.save_checkpoint(checkpoint, epoch).await?;
                Err(EventStoreError::outcome_unknown(InjectedFault).into())
            }
        }
    }

    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        self.reach().await?;
        self.store.reset_checkpoint(name, epoch).await
    }

    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        self.reach().await?;
        self.store.list_checkpoints().await
    }
}

#[async_trait]
impl<S: DeadLetterStore> DeadLetterStore for FaultyStore<S> {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        consume_budget().await;
        match self.faults.plan(|plan| plan.parks.pop_front()) {
            None | Some(SaveFault::None) => self.store.park_dead_letter(letter, epoch).await,
            Some(SaveFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault).into()),
            Some(SaveFault::AnswerLost) => {
                self.store.park_dead_letter(letter, epoch).await?;
                Err(EventStoreError::outcome_unknown(InjectedFault).into())
            }
        }
    }

    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        consume_budget().await;
        self.store.dead_letters(handler, after, limit).await
    }

    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        consume_budget().await;
        self.store.dead_letter(id).await
    }

    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        consume_budget().await;
        self.store.discard_dead_letter(id).await
    }

    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        consume_budget().await;
        self.store.discard_dead_letters_after(handler, after, epoch).await
    }
}

#[async_trait]
impl<S: ProjectorCoordinator> ProjectorCoordinator for FaultyStore<S> {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        self.reach().await?;
        match self.faults.plan(|plan| plan.acquisitions.pop_front()) {
            None | Some(LeadershipFault::None) => self.store.acquire(name).await,
            Some(LeadershipFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault).into()),
            Some(LeadershipFault::Lapsed) => {
                let leadership = self.store.acquire(name).await?;
                let lapsed = Leadership::new(name.clone(), leadership.epoch(), leadership.lost().clone(), ());
                self.store.release(leadership).await?;
                Ok(lapsed)
            }
        }
    }

    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        self.reach().await?;
        self.store.release(leadership).await
    }
}

#[async_trait]
impl<S: SnapshotStore> SnapshotStore for FaultyStore<S> {
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        self.reach().await?;
        match self.faults.plan(|plan| plan.snapshots.pop_front()) {
            None | Some(SnapshotFault::None) => self.store.load_snapshot(key).await,
            Some(SnapshotFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault)),
            Some(SnapshotFault::Lost) => Ok(None),
        }
    }

    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        self.reach().await?;
        match self.faults.plan(|plan| plan.snapshots.pop_front()) {
            None | Some(SnapshotFault::None) => self.store.save_snapshot(snapshot).await,
            Some(SnapshotFault::Unavailable) => Err(EventStoreError::unavailable(InjectedFault)),
            Some(SnapshotFault::Lost) => Ok(()),
        }
    }

    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        self.reach().await?;
        self.store.delete_snapshot(key).await
    }

    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.reach().await?;
        self.store.prune_snapshots(older_than).await
    }
}
