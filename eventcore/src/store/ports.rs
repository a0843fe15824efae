//! The ports to the log itself.

use super::{
    AppendRequest, Appended, EventFilter, EventStoreError, LineageId, LogCursor, LogWatch, Page, PageSize, ReadStreams,
    StreamPage, StreamsRead,
};
use crate::{GlobalPosition, StreamId, StreamVersion, Timestamp};
use async_trait::async_trait;

/// The port that appends, and reads what commands need.
///
/// An implementer guarantees:
/// - An append is all or nothing, over all its streams, and durable when it is acknowledged.
/// - All expectations of an append, also those about streams it does not write, are judged under the same locks that its
///   events are written under. Of two appends that expect the same version one wins.
/// - Events get versions without gaps within their stream, and rising positions in the order of the request. An append
///   that began after another had returned is after it.
/// - The receipt of a command is looked up under lock before expectations are judged: a replay is answered with it, and
///   a command that conflicts stores none.
/// - Stored events never change, and come back byte for byte.
#[async_trait]
pub trait EventStore: Send + Sync {
    /// Appends all events of a request, or none.
    ///
    /// # Errors
    /// [`EventStoreError::Conflict`] names the first stream that was not as expected. See [`EventStoreError::kind`] for
    /// what a caller can do about the others.
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError>;

    /// Reads streams and a receipt as of one moment, in global order. It sees every append that was acknowledged before.
    ///
    /// # Errors
    /// [`EventStoreError::ReadTooLarge`] beyond the store's limit of events, else what the storage says.
    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError>;

    /// The version of a stream; 0 if it has no events.
    ///
    /// # Errors
    /// What the storage says.
    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError>;

    /// Whether a stream has events.
    ///
    /// # Errors
    /// What the storage says.
    async fn stream_exists(&self, stream_id: &StreamId) -> Result<bool, EventStoreError> {
        Ok(self.stream_version(stream_id).await?.get() > 0)
    }

    /// The highest position of all acknowledged appends; `None` while the log is empty.
    ///
    /// # Errors
    /// What the storage says.
    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError>;

    /// Forgets the receipts of commands recorded before `older_than`, and tells how many. Such a command, sent again,
    /// would have a second effect.
    ///
    /// # Errors
    /// What the storage says.
    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError>;

    /// Finishes what is queued, refuses what comes later with [`EventStoreError::Closed`], and waits until all is settled.
    /// A second call does nothing.
    ///
    /// # Errors
    /// What the storage says when it is closed.
    async fn close(&self) -> Result<(), EventStoreError>;
}

/// The port that follows the log by position.
///
/// An implementer guarantees that who reads page after page, each from the cursor of the one before, sees every event that
/// the filter wants exactly once and in order, whatever writers do meanwhile; and that what is visible is durable. A page
/// may end within an append; then all of the append is there, and the next page begins with the rest of it.
#[async_trait]
pub trait EventReader: Send + Sync {
    /// The events after a position, as many as the page holds. The filter is applied by the storage.
    ///
    /// # Errors
    /// What the storage says.
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError>;

    /// The events of one stream after a version, as many as the page holds.
    ///
    /// # Errors
    /// What the storage says.
    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError>;

    /// Makes sure that the log still holds the event of a cursor. Followers ask when they resume.
    ///
    /// # Errors
    /// [`EventStoreError::LogDiverged`] if another event or none stands there, else what the storage says.
    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError>;

    /// The identity of this log.
    fn lineage(&self) -> LineageId;

    /// Tells when there may be something new: at once for appends of this process, and as soon as the adapter notices for
    /// others. It may be late or spurious, so followers also look by themselves, every [`LogWatch::look_every`].
    fn watch_log(&self) -> LogWatch;
}
