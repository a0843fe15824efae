//! A watcher that is pushed, slows nobody, and is cut off when nobody looks.

use super::StreamState;
use super::watcher::{WatchError, Watched, watch};
use crate::{ErrorKind, EventReader, EventStore, EventStoreError, LossyCapacity, StreamId};
use std::error::Error as StdError;
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
    let mut watcher = watch::<T, S>(store, streams);
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
                    tokio::time::sleep(Duration::from_millis(100)).await;
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
    LossyWatcher { receiver, ended: Some(ended), error: None, _guard: guard }
}

/// A watcher that is pushed, and is cut off when it is too slow. See [`watch_lossy`].
#[derive(Debug)]
pub struct LossyWatcher<T> {
    receiver: mpsc::Receiver<Watched<T>>,
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
            return Ok(watched);
        }
        if let Some(ended) = &mut self.ended {
            // Without an answer the runtime of the task is gone.
            self.error = Some(ended.await.unwrap_or(WatchError::Store(EventStoreError::Closed)));
            self.ended = None;
        }
        Err(self.error.clone().unwrap_or(WatchError::Store(EventStoreError::Closed)))
    }
}
