//! A store with troubles that the test chooses.

use async_trait::async_trait;
use eventcore::{
    AppendRequest, Appended, Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore,
    Epoch, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, Leadership, LeadershipError,
    LineageId, LogCursor, LogWatch, Page, PageSize, Payload, ProjectionName, ProjectorCoordinator, ReadModel,
    ReadModelStore, ReadStreams, RecordedEvent, Snapshot, SnapshotKey, SnapshotStore, StreamId, StreamPage,
    StreamVersion, StreamsRead, Timestamp, VersionChange, VersionedUnitOfWork,
};
use eventcore_memory::MemoryEventStore;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

/// A memory store that can be made unreachable, and on which a commit can take long. It knows how many of the events that
/// it gave to followers are still held by them.
#[derive(Clone, Default)]
pub(crate) struct TroubledStore {
    /// What is beneath, without any trouble.
    pub(crate) store: MemoryEventStore,
    down: Arc<AtomicBool>,
    hidden: Arc<AtomicBool>,
    heads: Arc<AtomicU64>,
    /// How often a page lets others go first before it is read.
    yields: Arc<AtomicUsize>,
    /// How often a checkpoint lets others go first before it is saved.
    save_yields: Arc<AtomicUsize>,
    /// The checkpoints that are being saved.
    pub(crate) saving: Arc<Held>,
    /// How many events were asked for, by each read of a page.
    asked: Arc<Mutex<Vec<usize>>>,
    /// The positions of the checkpoints saved.
    saved: Arc<Mutex<Vec<u64>>>,
    /// The positions that were made sure of.
    verified: Arc<Mutex<Vec<u64>>>,
    /// The versions of the one read model that has some. The checkpoint of one that is built is not kept.
    pub(crate) model: Arc<Mutex<ReadModel>>,
    pages: Arc<AtomicU64>,
    /// Whether followers are told of everything, so that they hardly look by themselves.
    tended: Arc<AtomicBool>,
    snapshots: Arc<RwLock<()>>,
    /// Pages stand still as long as somebody writes this.
    reads: Arc<RwLock<()>>,
    /// The reads of pages that have begun and not ended.
    pub(crate) reading: Arc<Held>,
    pub(crate) held: Arc<Held>,
}

/// How many things there are now, and how many there have been at once.
#[derive(Default)]
pub(crate) struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Held {
    pub(crate) const fn new() -> Self {
        Self { now: AtomicUsize::new(0), most: AtomicUsize::new(0) }
    }

    pub(crate) fn begin(&self) {
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    }

    pub(crate) fn end(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }
}

/// A read of a page that is under way.
struct ReadUnderWay<'h>(&'h Held);

impl Drop for ReadUnderWay<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The bytes of a payload that a follower holds.
struct HeldBytes {
    bytes: bytes::Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.held.end();
    }
}

impl TroubledStore {
    pub(crate) fn unplug(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn plug_in(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    /// From now on those who begin to follow hardly look by themselves.
    pub(crate) fn tend(&self) {
        self.tended.store(true, Ordering::SeqCst);
    }

    /// How often the head was asked for.
    pub(crate) fn heads(&self) -> u64 {
        self.heads.load(Ordering::SeqCst)
    }

    /// From now on a page is not there at once.
    pub(crate) fn be_slow(&self) {
        self.yields.store(1_000, Ordering::SeqCst);
    }

    /// From now on a checkpoint is not saved at once.
    pub(crate) fn save_slowly(&self) {
        self.save_yields.store(100, Ordering::SeqCst);
    }

    /// How many events were asked for, by each read of a page.
    pub(crate) fn asked(&self) -> Vec<usize> {
        self.asked.lock().unwrap().clone()
    }

    /// The positions of the checkpoints saved.
    pub(crate) fn saved(&self) -> Vec<u64> {
        self.saved.lock().unwrap().clone()
    }

    /// The positions that were made sure of.
    pub(crate) fn verified(&self) -> Vec<u64> {
        self.verified.lock().unwrap().clone()
    }

    /// How often a page was read.
    pub(crate) fn pages(&self) -> u64 {
        self.pages.load(Ordering::SeqCst)
    }

    /// Pages stand still on their way out of the store until what this returns is dropped.
    pub(crate) async fn stall_reads(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.reads).write_owned().await
    }

    /// Snapshots stand still on their way into the store until what this returns is dropped.
    pub(crate) async fn stall_snapshots(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.snapshots).write_owned().await
    }

    /// From now on a commit to the stream `late` lasts: while it does, the stream is as empty as before.
    pub(crate) fn hide(&self) {
        self.hidden.store(true, Ordering::SeqCst);
    }

    /// The commit that took long comes to light.
    pub(crate) fn reveal(&self) {
        self.hidden.store(false, Ordering::SeqCst);
    }

    fn hand_out(&self, event: RecordedEvent) -> RecordedEvent {
        let (header, payload) = event.into_parts();
        self.held.begin();
        let bytes = HeldBytes { bytes: payload.bytes().clone(), held: Arc::clone(&self.held) };
        RecordedEvent::new(header, Payload::json(bytes::Bytes::from_owner(bytes)))
    }

    fn check(&self) -> Result<(), EventStoreError> {
        if self.down.load(Ordering::SeqCst) { Err(EventStoreError::unavailable("unplugged")) } else { Ok(()) }
    }
}

#[async_trait]
impl EventStore for TroubledStore {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        self.store.append(request).await
    }
    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        let streams: Vec<StreamId> = request.streams().iter().map(|wanted| wanted.stream_id.clone()).collect();
        let mut read = self.store.read_streams(request).await?;
        if self.hidden.load(Ordering::SeqCst) {
            read.events.retain(|event| event.stream_id().as_str() != "late");
            for (stream, version) in streams.iter().zip(&mut read.versions) {
                if stream.as_str() == "late" {
                    *version = StreamVersion::default();
                }
            }
        }
        Ok(read)
    }
    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.store.stream_version(stream_id).await
    }
    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.heads.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        self.store.head().await
    }
    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.store.prune_receipts(older_than).await
    }
    async fn close(&self) -> Result<(), EventStoreError> {
        self.store.close().await
    }
}

#[async_trait]
impl EventReader for TroubledStore {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        self.asked.lock().unwrap().push(limit.get());
        self.reading.begin();
        let _under_way = ReadUnderWay(&self.reading);
        // Only who is held up waits here: a reader that yields to other tasks would look as if the store were slow.
        drop(tokio::task::unconstrained(self.reads.read()).await);
        for _ in 0..self.yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let mut page = self.store.read_page(filter, after, limit).await?;
        page.events = page.events.into_iter().map(|event| self.hand_out(event)).collect();
        Ok(page)
    }
    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        self.store.read_stream(stream_id, after, limit).await
    }
    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.check()?;
        self.verified.lock().unwrap().push(cursor.position.get());
        self.store.verify_cursor(cursor).await
    }
    fn lineage(&self) -> LineageId {
        self.store.lineage()
    }
    fn watch_log(&self) -> LogWatch {
        let mut watch = self.store.watch_log();
        if !self.tended.load(Ordering::SeqCst) {
            watch.set_look_every(Duration::from_millis(100));
        }
        watch
    }
}

#[async_trait]
impl CheckpointStore for TroubledStore {
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.store.load_checkpoint(name).await
    }
    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        self.saving.begin();
        for _ in 0..self.save_yields.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.saving.end();
        self.saved.lock().unwrap().extend(checkpoint.cursor.map(|cursor| cursor.position.get()));
        self.store.save_checkpoint(checkpoint, epoch).await
    }
    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        self.store.reset_checkpoint(name, epoch).await
    }
    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        self.store.list_checkpoints().await
    }
}

#[async_trait]
impl ProjectorCoordinator for TroubledStore {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        self.store.acquire(name).await
    }
    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        self.store.release(leadership).await
    }
}

#[async_trait]
impl DeadLetterStore for TroubledStore {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        self.check()?;
        self.store.park_dead_letter(letter, epoch).await
    }
    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        self.check()?;
        self.store.dead_letters(handler, after, limit).await
    }
    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        self.store.dead_letter(id).await
    }
    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        self.store.discard_dead_letter(id).await
    }
    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        self.store.discard_dead_letters_after(handler, after, epoch).await
    }
}

#[async_trait]
impl SnapshotStore for TroubledStore {
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        self.store.load_snapshot(key).await
    }
    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        let _moving = self.snapshots.read().await;
        self.store.save_snapshot(snapshot).await
    }
    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        self.store.delete_snapshot(key).await
    }
    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.store.prune_snapshots(older_than).await
    }
}

#[async_trait]
impl ReadModelStore for TroubledStore {
    async fn read_model(&self, _: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError> {
        Ok(Some(self.model.lock().unwrap().clone()))
    }
    async fn request_rebuild(&self, _: &ProjectionName) -> Result<ReadModel, CheckpointError> {
        let mut model = self.model.lock().unwrap();
        model.requested = true;
        Ok(model.clone())
    }
}

#[async_trait]
impl VersionedUnitOfWork<()> for TroubledStore {
    async fn commit_version(
        &self,
        (): (),
        _: &Checkpoint,
        _: &ProjectionName,
        _: Epoch,
    ) -> Result<(), CheckpointError> {
        Ok(())
    }
    async fn commit_change(
        &self,
        (): (),
        name: &ProjectionName,
        change: &VersionChange,
        _: Epoch,
    ) -> Result<ReadModel, CheckpointError> {
        let mut model = self.model.lock().unwrap();
        let next = model.after(change);
        *model = next.ok_or_else(|| CheckpointError::version_change(name, change, &model))?;
        Ok(model.clone())
    }
}
