//! The read index: what reads beside the writer.

use crate::head::Head;
use crate::patrol::Patrol;
use crate::read::{Begun, Reader};
use crate::stretch::Stretch;
use crate::workers::{Worker, Workers};
use async_trait::async_trait;
use eventcore::{
    EventFilter, EventReader, EventStoreError, GlobalPosition, LineageId, LogCursor, LogWatch, Page, PageSize,
    ReadStreams, StreamId, StreamPage, StreamVersion, StreamsRead,
};
use std::fmt;
use std::sync::Arc;

/// Reads beside the writer, on connections that are never blocked by it. A clone shares them.
///
/// It sees every append that was acknowledged before, by this process or another one.
#[derive(Clone)]
pub struct ReadIndex(Arc<Shared>);

struct Shared {
    readers: Workers<Reader>,
    lineage: LineageId,
    max_read_events: usize,
    head: Arc<Head>,
    poller: Patrol,
}

impl ReadIndex {
    pub(crate) fn new(
        readers: Workers<Reader>,
        lineage: LineageId,
        max_read_events: usize,
        head: Arc<Head>,
        poller: Patrol,
    ) -> Self {
        Self(Arc::new(Shared { readers, lineage, max_read_events, head, poller }))
    }

    /// Reads streams and a receipt as of one moment, in global order.
    ///
    /// # Errors
    /// [`EventStoreError::ReadTooLarge`] beyond the limit of the configuration, else what SQLite says.
    pub async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        let limit = self.0.max_read_events;
        let read = move |worker: &mut Worker<'_, Reader>| {
            let (reader, leave) = worker.resource_and_leave()?;
            reader.read_streams(&request, limit, leave)
        };
        let Begun { read, rest } = self.0.readers.run_with_worker(read).await?;
        match rest {
            Some(rest) => self.read_rest(read, rest).await,
            None => Ok(read),
        }
    }

    /// What is left of a long stream, read by two threads if they are free.
    async fn read_rest(&self, mut read: StreamsRead, rest: Stretch) -> Result<StreamsRead, EventStoreError> {
        let (older, younger) = rest.halves()?;
        let older = self.read_long(move |reader| reader.read_stretch(&older));
        let younger = self.read_long(move |reader| reader.read_stretch(&younger));
        let (older, younger) = tokio::try_join!(older, younger)?;
        read.events.reserve_exact(older.len() + younger.len());
        read.events.extend(older);
        read.events.extend(younger);
        Ok(read)
    }

    /// The version of a stream; 0 if it has no events.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        let stream_id = stream_id.clone();
        self.read(move |reader| reader.stream_version(&stream_id)).await
    }

    /// The highest position; `None` while the log is empty.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.read(|reader| reader.head()).await
    }

    /// Refuses further reads with [`EventStoreError::Closed`], finishes those that are queued, and closes the connections.
    /// A read of a stream of thousands of events is queued again after its beginning, and may be refused then.
    pub async fn close(&self) {
        self.0.readers.close();
        self.0.poller.stop();
        self.0.head.wake();
        self.0.readers.ended().await;
        self.0.poller.ended().await;
    }

    pub(crate) async fn read<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<R, EventStoreError> + Send + 'static,
    ) -> Result<R, EventStoreError> {
        self.0.readers.run(read).await
    }

    /// The same for a read that may take long.
    async fn read_long<R: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<R, EventStoreError> + Send + 'static,
    ) -> Result<R, EventStoreError> {
        self.0.readers.run_with_worker(move |worker| read(worker.resource_for_long()?)).await
    }
}

impl fmt::Debug for ReadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadIndex").field("lineage", &self.0.lineage).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventReader for ReadIndex {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        let filter = filter.clone();
        self.read_long(move |reader| reader.read_page(&filter, after, limit)).await
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        let stream_id = stream_id.clone();
        self.read_long(move |reader| reader.read_stream(&stream_id, after, limit)).await
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        let cursor = *cursor;
        self.read(move |reader| reader.verify_cursor(&cursor)).await
    }

    fn lineage(&self) -> LineageId {
        self.0.lineage
    }

    fn watch_log(&self) -> LogWatch {
        let watch = self.0.head.watch();
        // Only now that somebody watches does the poller find that it has to work.
        self.0.poller.wake();
        watch
    }
}
