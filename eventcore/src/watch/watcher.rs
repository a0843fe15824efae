//! A watcher that shows every change of a state from the moment it is asked.

use super::StreamState;
use super::fold::Fold;
use crate::{
    CheckpointError, DecodeError, ErrorKind, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition,
    LeadershipError, LogWatch, LossyCapacity, PageSize, ProjectionName, StreamId,
};
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// What a watcher shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched<T> {
    /// Rises with every change: how many events the streams hold together.
    pub generation: u64,
    /// The folded state; `None` if the streams have no events.
    pub state: Option<T>,
}

/// How fresh a state has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Freshness {
    /// With everything in it that was acknowledged before the call: one read.
    #[default]
    Head,
    /// What was seen last, without any I/O, if anything was.
    Cached,
}

/// Why a watcher shows nothing.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The watcher was stopped.
    #[error("the watcher was stopped")]
    Stopped,
    /// An event of its streams cannot be decoded.
    #[error("event {position} cannot be decoded")]
    Decode {
        /// Its position.
        position: GlobalPosition,
        /// Why not.
        #[source]
        source: DecodeError,
    },
    /// A lossy watcher was cut off, as more states waited for its consumer than it may keep. Begin a new one.
    #[error(
        "the watcher was cut off, as more than {capacity} states waited to be seen; watch anew, or with more capacity"
    )]
    Pruned {
        /// How many may wait.
        capacity: LossyCapacity,
    },
    /// The checkpoint of a durable watcher was saved for other streams. Give the watcher another name, or forget the
    /// checkpoint by [`reset_projection`](crate::reset_projection).
    #[error("watcher {name}: its checkpoint was saved for other streams; reset it or give the watcher another name")]
    OtherStreams {
        /// The watcher.
        name: ProjectionName,
    },
    /// The checkpoint of a durable watcher could not be loaded or saved.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// A durable watcher of this name runs elsewhere.
    #[error(transparent)]
    Leadership(LeadershipError),
    /// The store failed, or was closed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

impl WatchError {
    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Stopped | Self::Pruned { .. } => ErrorKind::Closed,
            Self::Decode { .. } | Self::Checkpoint(CheckpointError::Corrupt { .. }) => ErrorKind::Corrupt,
            Self::OtherStreams { .. } => ErrorKind::BadInput,
            Self::Checkpoint(CheckpointError::Store(error))
            | Self::Leadership(LeadershipError::Store(error))
            | Self::Store(error) => error.kind(),
            Self::Checkpoint(CheckpointError::Fenced { .. } | CheckpointError::VersionChange { .. })
            | Self::Leadership(LeadershipError::Busy { .. }) => ErrorKind::Conflict,
        }
    }
}

impl From<CheckpointError> for WatchError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Store(error) => Self::Store(error),
            other => Self::Checkpoint(other),
        }
    }
}

impl From<LeadershipError> for WatchError {
    fn from(error: LeadershipError) -> Self {
        match error {
            LeadershipError::Store(error) => Self::Store(error),
            other => Self::Leadership(other),
        }
    }
}

/// Watches streams as one folded state: the state at once, then whenever it changes.
///
/// Several changes between two calls are shown as one. `store` is an adapter, a reference or an `Arc` of one.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{Event, RecordedEvent, StreamId, StreamState, Watched, watch};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(namespace = "bank")]
/// # enum BankEvent { Deposited { cents: u64 } }
/// #[derive(Clone, Debug, Default, PartialEq)]
/// struct Balance(u64);
///
/// impl StreamState for Balance {
///     type Event = BankEvent;
///
///     fn apply(&mut self, event: &RecordedEvent<BankEvent>) {
///         let BankEvent::Deposited { cents } = event.payload();
///         self.0 += cents;
///     }
/// }
///
/// # let store = eventcore_memory::MemoryEventStore::new();
/// let mut watcher = watch::<Balance, _>(&store, [StreamId::new("account-1")?]);
/// assert_eq!(watcher.next().await?, Watched { generation: 0, state: None });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use]
pub fn watch<T: StreamState, S: EventStore + EventReader>(
    store: S,
    streams: impl IntoIterator<Item = StreamId>,
) -> Watcher<T, S> {
    // Made before the first read, so that no append in between is slept over.
    let log = store.watch_log();
    Watcher { store, log, fold: Fold::new(unique(streams)), shown: None, stop: CancellationToken::new() }
}

/// Returns when the log has come to a position: who reads after that reads everything up to it.
///
/// It asks for a page and not for the head: before the head commits may still be under way, and a page never shows what lies
/// behind one of these.
pub(super) async fn reach(
    store: &(impl EventReader + ?Sized),
    log: &mut LogWatch,
    stop: &CancellationToken,
    position: GlobalPosition,
) -> Result<(), WatchError> {
    let one = PageSize::try_new(1).unwrap_or_default();
    let before = GlobalPosition::try_new(position.get().saturating_sub(1)).ok();
    while !stop.is_cancelled() {
        if store.read_page(&EventFilter::all(), before, one).await?.position() >= Some(position) {
            return Ok(());
        }
        tokio::select! {
            woken = log.changed_or_due() => woken?,
            () = stop.cancelled() => {}
        }
    }
    Err(WatchError::Stopped)
}

pub(super) fn unique(streams: impl IntoIterator<Item = StreamId>) -> Vec<StreamId> {
    let mut seen = std::collections::HashSet::new();
    streams.into_iter().filter(|stream| seen.insert(stream.clone())).collect()
}

/// A watcher of streams. See [`watch`].
#[derive(Debug)]
pub struct Watcher<T, S> {
    store: S,
    log: LogWatch,
    fold: Fold<T>,
    /// The generation shown last.
    shown: Option<u64>,
    stop: CancellationToken,
}

impl<T: StreamState, S: EventStore + EventReader> Watcher<T, S> {
    /// How long to wait at most before looking again, should no wake-up come. By default as the store says:
    /// [`LogWatch::look_every`].
    #[must_use]
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.log.set_look_every(interval);
        self
    }

    /// Cancelled, it ends a waiting [`next`](Self::next) and all later ones with [`WatchError::Stopped`].
    #[must_use]
    pub const fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    /// The state, when it has changed since the last call; the first call answers at once. Cancelling the call loses
    /// nothing.
    ///
    /// # Errors
    /// [`WatchError`]. Asked again, the watcher goes on where it was.
    pub async fn next(&mut self) -> Result<Watched<T>, WatchError> {
        loop {
            if self.stop.is_cancelled() {
                return Err(WatchError::Stopped);
            }
            self.fold.refresh(&self.store).await?;
            let generation = self.fold.generation();
            if self.shown.is_none_or(|shown| shown < generation) {
                self.shown = Some(generation);
                return Ok(Watched { generation, state: self.fold.state() });
            }
            tokio::select! {
                woken = self.log.changed_or_due() => woken?,
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// The state with everything in it up to `position`, which may still have to be written: a caller waits for what somebody
    /// else wrote. What is shown here is not shown again by [`next`](Self::next). Cancelling the call loses nothing.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn wait_for(&mut self, position: GlobalPosition) -> Result<Watched<T>, WatchError> {
        reach(&self.store, &mut self.log, &self.stop, position).await?;
        self.current(Freshness::Head).await
    }

    /// The state now; with [`Freshness::Head`] a caller reads what it wrote. What is shown here is not shown again by [`next`](Self::next).
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn current(&mut self, freshness: Freshness) -> Result<Watched<T>, WatchError> {
        if freshness == Freshness::Head || self.shown.is_none() {
            self.fold.refresh(&self.store).await?;
        }
        let generation = self.fold.generation();
        self.shown = Some(generation);
        Ok(Watched { generation, state: self.fold.state() })
    }
}
