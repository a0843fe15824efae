//! A watcher that remembers what it has shown.

use super::fold::Fold;
use super::watcher::{reach, unique};
use super::{StreamState, WatchError, Watched};
use crate::{
    Backend, Checkpoint, EventFilter, FilterIdentity, GlobalPosition, Leadership, LogCursor, LogWatch, ProjectionName,
    StreamId, Timestamp,
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Watches streams under a name: what was shown and dealt with is remembered, so that a restarted process is shown only
/// what is new. A change is dealt with when the next one is asked for; after a crash the last one is shown again.
///
/// One instance runs it at a time.
///
/// What is remembered is the last event shown. Where positions do not become visible in order (PostgreSQL), a commit that
/// was under way while another one was shown, and ended only after the process had, is part of the state from then on but is
/// not shown as a change of its own.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{
/// #     AppendRequest, Event, EventId, EventMetadata, EventStore, NewEvent, ProjectionName, RecordedEvent, StreamId,
/// #     StreamState, watch_durable,
/// # };
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
/// # let account = StreamId::new("account-1")?;
/// # let deposit = NewEvent::encode(EventId::generate(), &BankEvent::Deposited { cents: 5 }, EventMetadata::empty())?;
/// # store.append(AppendRequest::builder().event(account.clone(), deposit).build()?).await?;
/// let mut watcher = watch_durable::<Balance, _>(&store, ProjectionName::new("letters")?, [account]).await?;
/// let shown = watcher.next().await?;
/// assert_eq!(shown.state, Some(Balance(5)));
/// // .. a letter is sent ..
/// watcher.acknowledge().await?;
/// watcher.release().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`WatchError::Leadership`] if a watcher of this name runs elsewhere, [`WatchError::OtherStreams`] or
/// [`WatchError::Checkpoint`] if its checkpoint cannot be used, else what the store says.
pub async fn watch_durable<T: StreamState, B: Backend>(
    store: B,
    name: ProjectionName,
    streams: impl IntoIterator<Item = StreamId>,
) -> Result<DurableWatcher<T, B>, WatchError> {
    let log = store.watch_log();
    let streams = unique(streams);
    let filter = EventFilter::all().streams(streams.iter().cloned()).identity();
    let leadership = store.acquire(&name).await?;
    let checkpoint = store.load_checkpoint(&name).await?;
    if let Some(checkpoint) = &checkpoint
        && checkpoint.filter != filter
    {
        return Err(WatchError::OtherStreams { name });
    }
    let done = checkpoint.and_then(|checkpoint| checkpoint.cursor);
    if let Some(cursor) = &done {
        store.verify_cursor(cursor).await?;
    }
    Ok(DurableWatcher {
        store,
        log,
        name,
        filter,
        leadership,
        fold: Fold::new(streams),
        done,
        handled: None,
        shown: None,
        stop: CancellationToken::new(),
    })
}

/// A watcher that remembers what it has shown. See [`watch_durable`].
#[derive(Debug)]
pub struct DurableWatcher<T, B> {
    store: B,
    log: LogWatch,
    name: ProjectionName,
    filter: FilterIdentity,
    leadership: Leadership,
    fold: Fold<T>,
    /// The last event that was dealt with when the watcher began, as saved.
    done: Option<LogCursor>,
    /// The generation that was dealt with; `None` until the streams were read once.
    handled: Option<u64>,
    /// What was shown and is not saved yet: the last event, and the generation.
    shown: Option<(LogCursor, u64)>,
    stop: CancellationToken,
}

impl<T: StreamState, B: Backend> DurableWatcher<T, B> {
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

    /// Saves that what was shown last is dealt with, and waits for the next change. Cancelling the call loses nothing.
    ///
    /// # Errors
    /// [`WatchError`]; [`WatchError::Checkpoint`] if another instance took over.
    pub async fn next(&mut self) -> Result<Watched<T>, WatchError> {
        self.acknowledge().await?;
        loop {
            if self.stop.is_cancelled() {
                return Err(WatchError::Stopped);
            }
            if self.look().await? {
                return Ok(self.watched());
            }
            tokio::select! {
                woken = self.log.changed_or_due() => woken?,
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Saves that what was shown last is dealt with, and shows the state with everything in it up to `position`, which may
    /// still have to be written. If that is a change, it is dealt with when the next one is asked for. Cancelling the call
    /// loses nothing.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn wait_for(&mut self, position: GlobalPosition) -> Result<Watched<T>, WatchError> {
        self.acknowledge().await?;
        reach(&self.store, &mut self.log, &self.stop, position).await?;
        self.look().await?;
        Ok(self.watched())
    }

    /// Reads what is new; tells whether there is a change to be shown.
    async fn look(&mut self) -> Result<bool, WatchError> {
        self.fold.refresh(&self.store).await?;
        let (last, generation) = (self.fold.last(), self.fold.generation());
        let is_new = match self.handled {
            Some(handled) => generation > handled,
            None => last.map(|last| last.position) > self.done.map(|done| done.position),
        };
        self.shown = last.filter(|_| is_new).map(|last| (last, generation));
        if self.shown.is_none() {
            self.handled = Some(generation);
        }
        Ok(self.shown.is_some())
    }

    fn watched(&self) -> Watched<T> {
        Watched { generation: self.fold.generation(), state: self.fold.state() }
    }

    /// Saves that what was shown last is dealt with, without waiting for the next change.
    ///
    /// # Errors
    /// [`WatchError::Checkpoint`] if another instance took over, else what the store says.
    pub async fn acknowledge(&mut self) -> Result<(), WatchError> {
        let Some((shown, generation)) = self.shown else { return Ok(()) };
        let checkpoint = Checkpoint {
            name: self.name.clone(),
            cursor: Some(shown),
            filter: self.filter.clone(),
            lineage: self.store.lineage(),
            updated_at: Timestamp::now(),
        };
        self.store.save_checkpoint(&checkpoint, self.leadership.epoch()).await?;
        self.handled = Some(generation);
        self.shown = None;
        Ok(())
    }

    /// Gives the name up; when this returns, another instance can watch under it. What was shown last and not
    /// acknowledged is shown again there.
    ///
    /// # Errors
    /// What the store says.
    pub async fn release(self) -> Result<(), WatchError> {
        Ok(self.store.release(self.leadership).await?)
    }
}
