//! A watcher that is pushed, slows nobody, and is cut off when nobody looks.

use super::StreamState;
use super::watcher::{WatchError, Watched, reach, unique, watch};
use crate::{ErrorKind, EventReader, EventStore, EventStoreError, GlobalPosition, LogWatch, LossyCapacity, StreamId};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Watches streams as one folded state, pushed: a task of the current tokio runtime follows them and keeps what it saw, so
/// that every state it saw is shown, where [`watch`] joins the changes between two calls. For displays and logs.
///
/// At most `capacity` states wait for the consumer. One that is slower than that is cut off: it is shown what waited, and
/// then told [`WatchError::Pruned`] for good. Writers are never slowed, and memory is bounded. Where nothing may be missed,
/// use [`watch`] or [`watch_durable`](super::watch_durable), which cannot be cut off.
///
/// The task ends when the watcher is dropped or the store is closed. While the store cannot be reached it tries again every
/// 100 ms.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{Event, LossyCapacity, RecordedEvent, StreamId, StreamState, Watched, watch_lossy};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(namespace = "bank")]
/// # enum BankEvent { Deposited { cents: u64 } }
/// # #[derive(Clone, Debug, Default, PartialEq)]
/// # struct Balance(u64);
/// # impl StreamState for Balance {
/// #     type Event = BankEvent;
/// #     fn apply(&mut self, event: &RecordedEvent<BankEvent>) {
/// #         let BankEvent::Deposited { cents } = event.payload();
/// #         self.0 += cents;
/// #     }
/// # }
/// # let store = eventcore_memory::MemoryEventStore::new();
/// let account = StreamId::new("account-1")?;
/// let mut watcher = watch_lossy::<Balance, _>(store.clone(), [account], LossyCapacity::default());
/// assert_eq!(watcher.next().await?, Watched { generation: 0, state: None });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use]
pub fn watch_lossy<T, S>(
    store: S,
    streams: impl IntoIterator<Item = StreamId>,
    capacity: LossyCapacity,
) -> LossyWatcher<T>
where
    T: StreamState,
    S: EventStore + EventReader + 'static,
{
    let (sender, receiver) = mpsc::channel(capacity.into_inner() as usize);
    let (end, ended) = oneshot::channel();
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let (store, streams) = (Arc::new(store), unique(streams));
    let log = store.watch_log();
    let mut watcher = watch::<T, _>(Arc::clone(&store), streams.iter().cloned());
    let push = async move {
        loop {
            match watcher.next().await {
                Ok(watched) => {
                    // The receiver lives as long as this task: only a full channel refuses.
                    if sender.try_send(watched).is_err() {
                        return WatchError::Pruned { capacity };
                    }
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(error = &error as &dyn StdError, "a watcher cannot read");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return error,
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            // Nobody waits for it if the watcher was dropped.
            error = push => drop(end.send(error)),
            () = stop.cancelled() => {}
        }
    });
    LossyWatcher { store, streams, log, receiver, seen: None, ended: Some(ended), error: None, _guard: guard }
}

/// How long to wait before a store is read again that could not be read.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Both ports of a store that a watcher needs.
trait Source: EventStore + EventReader {}

impl<S: EventStore + EventReader> Source for S {}

/// A watcher that is pushed, and is cut off when it is too slow. See [`watch_lossy`].
pub struct LossyWatcher<T> {
    store: Arc<dyn Source>,
    streams: Vec<StreamId>,
    log: LogWatch,
    receiver: mpsc::Receiver<Watched<T>>,
    /// What was shown last.
    seen: Option<Watched<T>>,
    /// Why the task ended, until that was asked.
    ended: Option<oneshot::Receiver<WatchError>>,
    error: Option<WatchError>,
    _guard: DropGuard,
}

impl<T: StreamState> LossyWatcher<T> {
    /// The next state; the first one at once. Cancelling the call loses nothing.
    ///
    /// # Errors
    /// [`WatchError::Pruned`] after the last state that waited, if the consumer was too slow; else why the watcher ended:
    /// the store was closed or failed for good, or an event cannot be decoded. Asked again, it says the same.
    pub async fn next(&mut self) -> Result<Watched<T>, WatchError> {
        if let Some(watched) = self.receiver.recv().await {
            self.seen = Some(watched.clone());
            return Ok(watched);
        }
        if let Some(ended) = &mut self.ended {
            // Without an answer the runtime of the task is gone.
            self.error = Some(ended.await.unwrap_or(WatchError::Store(EventStoreError::Closed)));
            self.ended = None;
        }
        Err(self.error.clone().unwrap_or(WatchError::Store(EventStoreError::Closed)))
    }

    /// The first state with everything in it up to `position`, which may still have to be written; it may be the one that was
    /// shown last. States before it are passed over. Cancelling the call loses no more than these.
    ///
    /// # Errors
    /// As [`next`](Self::next); also if the store cannot be asked.
    pub async fn wait_for(&mut self, position: GlobalPosition) -> Result<Watched<T>, WatchError> {
        reach(&*self.store, &mut self.log, &CancellationToken::new(), position).await?;
        let mut wanted = 0_u64;
        for stream in &self.streams {
            wanted = wanted.saturating_add(self.store.stream_version(stream).await?.get());
        }
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.generation >= wanted) {
            return Ok(seen.clone());
        }
        loop {
            let watched = self.next().await?;
            if watched.generation >= wanted {
                return Ok(watched);
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for LossyWatcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossyWatcher").field("streams", &self.streams).field("seen", &self.seen).finish_non_exhaustive()
    }
}
