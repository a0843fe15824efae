//! All ports at once, and the ports through references and pointers.

use super::{
    AppendRequest, Appended, Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore,
    Epoch, EventFilter, EventReader, EventStore, EventStoreError, Leadership, LeadershipError, LineageId, LogCursor,
    LogWatch, Page, PageSize, ProjectionName, ProjectorCoordinator, ReadStreams, Snapshot, SnapshotKey, SnapshotStore,
    StreamPage, StreamsRead,
};
use crate::{GlobalPosition, StreamId, StreamVersion, Timestamp};
use async_trait::async_trait;
use std::pin::Pin;
use std::sync::Arc;

/// Everything an application needs of a store. What implements all ports is one; hold it as `Arc<dyn Backend>`.
pub trait Backend:
    EventStore + EventReader + CheckpointStore + ProjectorCoordinator + DeadLetterStore + SnapshotStore
{
}

impl<T> Backend for T where
    T: EventStore + EventReader + CheckpointStore + ProjectorCoordinator + DeadLetterStore + SnapshotStore + ?Sized
{
}

/// What `async_trait` makes of an `async fn` of a store.
type Answer<'f, T> = Pin<Box<dyn Future<Output = Result<T, EventStoreError>> + Send + 'f>>;

macro_rules! forward_ports {
    ($($pointer:ty),+) => {$(
        #[async_trait]
        impl<T: EventStore + ?Sized> EventStore for $pointer {
            // What commands ask for is handed on as it is: an `async fn` would put it into a second box.
            fn append<'s, 'f>(&'s self, request: AppendRequest) -> Answer<'f, Appended>
            where
                's: 'f,
                Self: 'f,
            {
                (**self).append(request)
            }
            fn read_streams<'s, 'f>(&'s self, request: ReadStreams) -> Answer<'f, StreamsRead>
            where
                's: 'f,
                Self: 'f,
            {
                (**self).read_streams(request)
            }
            async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
                (**self).stream_version(stream_id).await
            }
            async fn stream_exists(&self, stream_id: &StreamId) -> Result<bool, EventStoreError> {
                (**self).stream_exists(stream_id).await
            }
            async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
                (**self).head().await
            }
            async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
                (**self).prune_receipts(older_than).await
            }
            async fn close(&self) -> Result<(), EventStoreError> {
                (**self).close().await
            }
        }

        #[async_trait]
        impl<T: EventReader + ?Sized> EventReader for $pointer {
            async fn read_page(
                &self,
                filter: &EventFilter,
                after: Option<GlobalPosition>,
                limit: PageSize,
            ) -> Result<Page, EventStoreError> {
                (**self).read_page(filter, after, limit).await
            }
            async fn read_stream(
                &self,
                stream_id: &StreamId,
                after: StreamVersion,
                limit: PageSize,
            ) -> Result<StreamPage, EventStoreError> {
                (**self).read_stream(stream_id, after, limit).await
            }
            async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
                (**self).verify_cursor(cursor).await
            }
            fn lineage(&self) -> LineageId {
                (**self).lineage()
            }
            fn watch_log(&self) -> LogWatch {
                (**self).watch_log()
            }
        }

        #[async_trait]
        impl<T: CheckpointStore + ?Sized> CheckpointStore for $pointer {
            async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
                (**self).load_checkpoint(name).await
            }
            async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
                (**self).save_checkpoint(checkpoint, epoch).await
            }
            async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
                (**self).reset_checkpoint(name, epoch).await
            }
            async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
                (**self).list_checkpoints().await
            }
        }

        #[async_trait]
        impl<T: DeadLetterStore + ?Sized> DeadLetterStore for $pointer {
            async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
                (**self).park_dead_letter(letter, epoch).await
            }
            async fn dead_letters(
                &self,
                handler: Option<&ProjectionName>,
                after: Option<&DeadLetterId>,
                limit: PageSize,
            ) -> Result<Vec<DeadLetter>, EventStoreError> {
                (**self).dead_letters(handler, after, limit).await
            }
            async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
                (**self).dead_letter(id).await
            }
            async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
                (**self).discard_dead_letter(id).await
            }
            async fn discard_dead_letters_after(
                &self,
                handler: &ProjectionName,
                after: Option<GlobalPosition>,
                epoch: Option<Epoch>,
            ) -> Result<u64, CheckpointError> {
                (**self).discard_dead_letters_after(handler, after, epoch).await
            }
        }

        #[async_trait]
        impl<T: ProjectorCoordinator + ?Sized> ProjectorCoordinator for $pointer {
            async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
                (**self).acquire(name).await
            }
            async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
                (**self).release(leadership).await
            }
        }

        #[async_trait]
        impl<T: SnapshotStore + ?Sized> SnapshotStore for $pointer {
            async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
                (**self).load_snapshot(key).await
            }
            async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
                (**self).save_snapshot(snapshot).await
            }
            async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
                (**self).delete_snapshot(key).await
            }
            async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
                (**self).prune_snapshots(older_than).await
            }
        }
    )+};
}

forward_ports!(&T, Arc<T>, Box<T>);
