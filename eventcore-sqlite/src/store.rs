//! The handle: what is opened, closed and shared, and the ports.

use crate::append::SqliteAppender;
use crate::gate::Gate;
use crate::head::Head;
use crate::index::ReadIndex;
use crate::notify::poller;
use crate::read::Reader;
use crate::side::Side;
use crate::store_file::StoreFile;
use crate::workers::Workers;
use crate::{OpenError, SqliteConfig, connection, schema};
use async_trait::async_trait;
use eventcore::{
    AppendRequest, Appended, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, LineageId,
    LogCursor, LogWatch, Page, PageSize, ReadStreams, StreamId, StreamPage, StreamVersion, StreamsRead, Timestamp,
    WriterHandle, WriterJoin, spawn_writer_thread,
};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::oneshot;

/// An event store in one SQLite file. A clone is another handle to the same store.
///
/// [`close`](EventStore::close) finishes what is queued and closes the file. When the last handle is dropped instead, the
/// same happens behind its back, without blocking anybody. A process that ends at once may be faster than that: what is
/// left in the `-wal` file then is read when the store is opened next, and nothing acknowledged is lost.
///
/// ```
/// use eventcore::EventStore;
/// use eventcore_sqlite::SqliteEventStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("bank.db");
/// let store = SqliteEventStore::open(path).await?;
/// assert_eq!(store.head().await?, None);
/// store.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteEventStore {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) index: ReadIndex,
    pub(crate) side: Side,
    writer: WriterHandle,
    join: WriterJoin,
    gate: Arc<Gate>,
    closed: AtomicBool,
}

impl SqliteEventStore {
    /// Opens a store with the default configuration; creates the file if it does not exist.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the file, which is left as it was.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, SqliteConfig::default()).await
    }

    /// Opens a store.
    ///
    /// # Errors
    /// [`OpenError`] says what is wrong with the file, which is left as it was.
    pub async fn open_with(path: impl AsRef<Path>, config: SqliteConfig) -> Result<Self, OpenError> {
        let parts = Parts::open(path.as_ref(), config.clone()).await?;
        let failed = |source| OpenError::Io { path: path.as_ref().to_owned(), source };
        let side = Side::start(parts.file.clone(), config, Arc::clone(&parts.gate)).map_err(failed)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: parts.file.path,
                index: parts.index,
                side,
                writer: parts.writer,
                join: parts.join,
                gate: parts.gate,
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Opens only what is beneath a store: the writer, what reads beside it, and what waits for the writer's end.
    ///
    /// The writer ends when it is closed or all its handles are gone, the read index with its last clone.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    ///
    /// ```
    /// use eventcore_sqlite::{SqliteConfig, SqliteEventStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("bank.db");
    /// let (writer, index, join) = SqliteEventStore::open_parts(path, SqliteConfig::default()).await?;
    /// assert_eq!(index.head().await?, None);
    /// drop(writer);
    /// join.join().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open_parts(
        path: impl AsRef<Path>,
        config: SqliteConfig,
    ) -> Result<(WriterHandle, ReadIndex, WriterJoin), OpenError> {
        let parts = Parts::open(path.as_ref(), config).await?;
        Ok((parts.writer, parts.index, parts.join))
    }

    /// The file, as an absolute path without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl fmt::Debug for SqliteEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteEventStore").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn check_open(&self) -> Result<(), EventStoreError> {
        if self.closed.load(Ordering::Acquire) { Err(EventStoreError::Closed) } else { Ok(()) }
    }
}

/// Everything of an open store but what only projections need.
struct Parts {
    file: StoreFile,
    writer: WriterHandle,
    join: WriterJoin,
    index: ReadIndex,
    gate: Arc<Gate>,
}

impl Parts {
    /// Opening waits for the disk, so it happens on a thread of its own.
    async fn open(path: &Path, config: SqliteConfig) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let (reply, opened) = oneshot::channel();
        let owned = path.to_owned();
        std::thread::Builder::new()
            .name("eventcore-open".to_owned())
            .spawn(move || drop(reply.send(Self::open_blocking(&owned, &config))))
            .map_err(failed)?;
        opened.await.unwrap_or_else(|_| Err(failed(io::Error::other("the thread that opens the file panicked"))))
    }

    fn open_blocking(path: &Path, config: &SqliteConfig) -> Result<Self, OpenError> {
        let opened = schema::open(path, config)?;
        let failed = |source| OpenError::Io { path: path.to_owned(), source };
        let reader = Reader::new(opened.writer);
        let head = reader.head().map_err(|error| match error {
            EventStoreError::Corrupt { what, .. } => OpenError::Damaged { path: path.to_owned(), what, source: None },
            other => failed(io::Error::other(other)),
        })?;
        let head = Arc::new(Head::at(head.map_or(0, GlobalPosition::get)));
        let gate = Arc::new(Gate::new(config.busy_timeout));

        let connect = {
            let (file, config) = (opened.file.clone(), config.clone());
            move || file.connect(|path| connection::read(path, &config)).map(Reader::new)
        };
        let threads = usize::from(config.reader_pool_size.into_inner());
        // As many reads may wait as appends; then callers wait for room.
        let waiting = config.queue_capacity.into_inner() as usize;
        let readers = Workers::start("eventcore-read", threads, waiting, connect.clone()).map_err(failed)?;
        let poller = poller(&opened.file.path, config.poll_interval.get(), Arc::clone(&head), connect);
        let index = ReadIndex::new(readers, opened.file.lineage, config.max_read_events, Arc::clone(&head), poller);
        let appender = SqliteAppender::new(reader.connection, &opened.file.path, config, Arc::clone(&gate), head);
        let (writer, join) = spawn_writer_thread(appender, config.queue_capacity, "eventcore-write").map_err(failed)?;
        Ok(Self { file: opened.file, writer, join, index, gate })
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        self.shared.check_open()?;
        self.shared.gate.leave_own_page().await?;
        self.shared.writer.append(request).await
    }

    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        self.shared.index.read_streams(request).await
    }

    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.shared.index.stream_version(stream_id).await
    }

    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.shared.index.head().await
    }

    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.shared.check_open()?;
        self.shared.side.prune_receipts(older_than).await
    }

    async fn close(&self) -> Result<(), EventStoreError> {
        self.shared.closed.store(true, Ordering::Release);
        // The writer goes last: only a connection that writes moves the write-ahead log into the file when it closes.
        self.shared.index.close().await;
        self.shared.side.close().await;
        self.shared.writer.close();
        self.shared.join.clone().join().await
    }
}

#[async_trait]
impl EventReader for SqliteEventStore {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        self.shared.index.read_page(filter, after, limit).await
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        self.shared.index.read_stream(stream_id, after, limit).await
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.shared.index.verify_cursor(cursor).await
    }

    fn lineage(&self) -> LineageId {
        self.shared.index.lineage()
    }

    fn watch_log(&self) -> LogWatch {
        self.shared.index.watch_log()
    }
}
