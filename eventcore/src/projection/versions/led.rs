//! A store as the versions of one read model see it.

use crate::{
    AppendRequest, Appended, Checkpoint, CheckpointError, DeadLetter, DeadLetterId, DeadLetterStore, Epoch,
    EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, Leadership, LeadershipError, LineageId,
    LogCursor, LogWatch, Page, PageSize, ProjectionContext, ProjectionName, ProjectorCoordinator, ReadStreams,
    StreamId, StreamPage, StreamVersion, StreamsRead, Timestamp, UnitOfWork, VersionedUnitOfWork,
};
use async_trait::async_trait;
use std::error::Error as StdError;
use tokio_util::sync::CancellationToken;

/// The store, under the leadership of the projection: every version has it, and none can give it up.
#[derive(Clone)]
pub(super) struct Led<B> {
    pub(super) backend: B,
    pub(super) leader: ProjectionName,
    pub(super) epoch: Epoch,
    pub(super) lost: CancellationToken,
}

#[async_trait]
impl<B: ProjectorCoordinator> ProjectorCoordinator for Led<B> {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        Ok(Leadership::new(name.clone(), self.epoch, self.lost.clone(), ()))
    }

    async fn release(&self, _: Leadership) -> Result<(), LeadershipError> {
        Ok(())
    }
}

/// There is no overlap with the contexts of every `CheckpointStore`, as this is none.
#[async_trait]
impl<C: ProjectionContext, B: VersionedUnitOfWork<C>> UnitOfWork<C> for Led<B> {
    async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.backend.resume(name).await
    }

    async fn begin(&self, _: &ProjectionName, epoch: Epoch) -> Result<C, CheckpointError> {
        self.backend.begin(&self.leader, epoch).await
    }

    async fn commit(&self, context: C, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        if checkpoint.name == self.leader {
            return self.backend.commit(context, checkpoint, epoch).await;
        }
        self.backend.commit_version(context, checkpoint, &self.leader, epoch).await
    }

    async fn rollback(&self, context: C) -> Result<(), CheckpointError> {
        self.backend.rollback(context).await
    }

    async fn is_sound(
        &self,
        context: &mut C,
        error: &(dyn StdError + Send + Sync + 'static),
    ) -> Result<(), CheckpointError> {
        self.backend.is_sound(context, error).await
    }

    async fn park(&self, context: &mut C, letter: &DeadLetter, epoch: Epoch) -> Result<(), CheckpointError> {
        self.backend.park(context, letter, epoch).await
    }

    async fn unpark(&self, context: &mut C, id: &DeadLetterId) -> Result<bool, CheckpointError> {
        self.backend.unpark(context, id).await
    }
}

#[async_trait]
impl<B: DeadLetterStore> DeadLetterStore for Led<B> {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        self.backend.park_dead_letter(letter, epoch).await
    }

    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        self.backend.dead_letters(handler, after, limit).await
    }

    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        self.backend.dead_letter(id).await
    }

    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        self.backend.discard_dead_letter(id).await
    }

    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        if *handler == self.leader {
            return self.backend.discard_dead_letters_after(handler, after, epoch).await;
        }
        // A version that is being built has none behind its checkpoint: it began without, and they commit with the page.
        Ok(0)
    }
}

#[async_trait]
impl<B: EventStore> EventStore for Led<B> {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        self.backend.append(request).await
    }

    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        self.backend.read_streams(request).await
    }

    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.backend.stream_version(stream_id).await
    }

    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.backend.head().await
    }

    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.backend.prune_receipts(older_than).await
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        self.backend.close().await
    }
}

#[async_trait]
impl<B: EventReader> EventReader for Led<B> {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        self.backend.read_page(filter, after, limit).await
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        self.backend.read_stream(stream_id, after, limit).await
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.backend.verify_cursor(cursor).await
    }

    fn lineage(&self) -> LineageId {
        self.backend.lineage()
    }

    fn watch_log(&self) -> LogWatch {
        self.backend.watch_log()
    }
}
