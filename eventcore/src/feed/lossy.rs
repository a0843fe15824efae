//! A follower that is pushed, slows nobody, and says how much it lost.

use super::{StartFrom, subscribe};
use crate::validation::check_range;
use crate::{
    ErrorKind, EventFilter, EventReader, EventStore, EventStoreError, FeedError, FeedItem, Progress, RecordedEvent,
    ValidationError,
};
use nutype::nutype;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

fn check_capacity(value: &u32) -> Result<(), ValidationError> {
    check_range("LossyCapacity", u64::from(*value), 1, 1_000_000)
}

/// How many events a lossy subscription keeps for a slow consumer: 1 to 1,000,000, by default 1,024.
#[nutype(
    validate(with = check_capacity, error = ValidationError),
    default = 1_024,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct LossyCapacity(u32);

/// Why a lossy subscription gave no event.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LossyError {
    /// The consumer was too slow: so many events were dropped. The next call gives the oldest one that is left.
    #[error("{0} events were lost to a slow consumer")]
    Lagged(u64),
    /// The feed has ended, because the store is closed or failed for good.
    #[error("the subscription has ended")]
    Closed {
        /// Why, if it was not simply closed.
        #[source]
        source: Option<Arc<FeedError>>,
    },
}

/// Live events, pushed: for displays and caches that would rather skip than wait. It begins at the end of the log. Use
/// [`subscribe`] where nothing may be lost.
///
/// A task of the current tokio runtime follows the log until this value is dropped or the store is closed.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{
/// #     AppendRequest, EventFilter, EventId, EventMetadata, EventStore, LossyCapacity, LossyError, NewEvent, Payload,
/// #     SchemaVersion, StreamId, subscribe_lossy,
/// # };
/// # let store = eventcore_memory::MemoryEventStore::new();
/// let mut feed = subscribe_lossy(store.clone(), EventFilter::all(), LossyCapacity::default()).await?;
/// # let deposited = NewEvent {
/// #     id: EventId::generate(),
/// #     event_type: "bank.MoneyDeposited".parse()?,
/// #     schema_version: SchemaVersion::default(),
/// #     payload: Payload::json(r#"{"cents":5}"#),
/// #     metadata: EventMetadata::empty(),
/// # };
/// # store.append(AppendRequest::builder().event(StreamId::new("account-1")?, deposited).build()?).await?;
/// # store.close().await?;
/// loop {
///     match feed.next().await {
///         Ok(event) => println!("{}: {}", event.position(), event.event_type()),
///         Err(LossyError::Lagged(lost)) => println!(".. {lost} events were not shown"),
///         Err(end) => {
///             println!("{end}");
///             break;
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// What the store says when it is asked for the end of the log.
pub async fn subscribe_lossy<R>(
    reader: R,
    filter: EventFilter,
    capacity: LossyCapacity,
) -> Result<LossySubscription, EventStoreError>
where
    R: EventReader + EventStore + 'static,
{
    let from = reader.head().await?.map_or(StartFrom::Beginning, StartFrom::After);
    let (sender, receiver) = broadcast::channel(capacity.into_inner() as usize);
    let (failure, failed) = watch::channel(None);
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    let mut feed = subscribe(reader, filter, from);
    let progress = feed.progress();
    let push = async move {
        loop {
            match feed.next().await {
                // Nobody listens: the guard is about to stop this task.
                Ok(FeedItem::Event(event)) => drop(sender.send(event)),
                Ok(FeedItem::CaughtUp | FeedItem::FellBehind) => {}
                Err(FeedError::Store(error)) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a lossy subscription cannot read");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => {
                    let closed = matches!(&error, FeedError::Store(error) if error.kind() == ErrorKind::Closed);
                    failure.send_replace((!closed).then(|| Arc::new(error)));
                    return;
                }
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = push => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(LossySubscription { receiver, failed, progress, _guard: guard })
}

/// A live follower that may lose events and says how many. See [`subscribe_lossy`].
#[derive(Debug)]
pub struct LossySubscription {
    receiver: broadcast::Receiver<RecordedEvent>,
    failed: watch::Receiver<Option<Arc<FeedError>>>,
    progress: Progress,
    _guard: DropGuard,
}

impl LossySubscription {
    /// How far events were pushed. Who waits for a position there knows that [`next`](Self::next) gives its event, or says
    /// that events were lost.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The next event; waits for one if there is none.
    ///
    /// # Errors
    /// [`LossyError::Lagged`] if events were dropped since the last call, [`LossyError::Closed`] at the end.
    pub async fn next(&mut self) -> Result<RecordedEvent, LossyError> {
        self.receiver.recv().await.map_err(|error| match error {
            RecvError::Lagged(lost) => LossyError::Lagged(lost),
            RecvError::Closed => LossyError::Closed { source: self.failed.borrow().clone() },
        })
    }
}
