//! A follower that the consumer pulls, and that never loses an event.

use super::Progress;
use super::machine::{FeedEffect, FeedInput, FeedMachine};
use crate::{
    DecodeError, Event, EventFilter, EventReader, EventStore, EventStoreError, GlobalPosition, LogCursor, LogWatch,
    PageSize, RecordedEvent,
};
use std::time::Duration;
use thiserror::Error;

/// Where a follower begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StartFrom {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// Behind what is in the log when the first item is asked for.
    End,
    /// Behind a position.
    After(GlobalPosition),
    /// Behind an event, once that was found to be still there.
    Cursor(LogCursor),
}

/// What a follower is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedItem<P = crate::Payload> {
    /// An event.
    Event(RecordedEvent<P>),
    /// Everything that was there has been given; what comes now is live.
    CaughtUp,
    /// The log grew faster than the consumer followed: what comes now is history again, until the next `CaughtUp`.
    /// Nothing is lost.
    FellBehind,
}

/// Why a follower got no item. It can be asked again and goes on where it was.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
    /// An event cannot be decoded. Asked again, the feed goes on behind it.
    #[error("event {position} cannot be decoded")]
    Decode {
        /// Its position.
        position: GlobalPosition,
        /// Why not.
        #[source]
        source: DecodeError,
    },
}

/// Follows the log: history first, then live, without gap or duplicate at the hand-off.
///
/// It is pulled: nothing is read before it is asked for, and a slow consumer slows nobody but itself. At most one page is
/// held.
///
/// `reader` is an adapter, a reference or an `Arc` of one.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{
/// #     AppendRequest, EventFilter, EventId, EventMetadata, EventStore, FeedItem, NewEvent, Payload, SchemaVersion,
/// #     StartFrom, StreamId, subscribe,
/// # };
/// # let store = eventcore_memory::MemoryEventStore::new();
/// # let deposited = NewEvent {
/// #     id: EventId::generate(),
/// #     event_type: "bank.MoneyDeposited".parse()?,
/// #     schema_version: SchemaVersion::default(),
/// #     payload: Payload::json(r#"{"cents":5}"#),
/// #     metadata: EventMetadata::empty(),
/// # };
/// # store.append(AppendRequest::builder().event(StreamId::new("account-1")?, deposited).build()?).await?;
/// let mut feed = subscribe(&store, EventFilter::all(), StartFrom::Beginning);
/// let mut seen = 0;
/// loop {
///     match feed.next().await? {
///         FeedItem::Event(event) => seen = event.position().get(),
///         FeedItem::CaughtUp => break, // who does not leave here is shown what comes from now on
///         FeedItem::FellBehind => {}
///     }
/// }
/// assert_eq!(seen, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use]
pub fn subscribe<R: EventReader + EventStore>(reader: R, filter: EventFilter, from: StartFrom) -> Subscription<R> {
    let machine = match from {
        StartFrom::Beginning => FeedMachine::after(None),
        StartFrom::End => FeedMachine::from_end(),
        StartFrom::After(position) => FeedMachine::after(Some(position)),
        StartFrom::Cursor(cursor) => FeedMachine::behind(cursor),
    };
    let progress = Progress::default();
    if let StartFrom::After(position) | StartFrom::Cursor(LogCursor { position, .. }) = from {
        progress.advance(position);
    }
    Subscription {
        log: reader.watch_log(),
        reader,
        filter,
        machine,
        in_hand: None,
        looked: None,
        page_size: PageSize::default(),
        progress,
    }
}

/// A follower of the log. See [`subscribe`].
#[derive(Debug)]
pub struct Subscription<R> {
    reader: R,
    filter: EventFilter,
    log: LogWatch,
    machine: FeedMachine<RecordedEvent>,
    /// The position of the event that the consumer has in hand.
    in_hand: Option<GlobalPosition>,
    /// How far the page in the buffer looked.
    looked: Option<GlobalPosition>,
    page_size: PageSize,
    progress: Progress,
}

impl<R> Subscription<R> {
    /// How many events are read at once. By default 1,000.
    #[must_use]
    pub const fn page_size(mut self, size: PageSize) -> Self {
        self.page_size = size;
        self
    }

    /// How long to wait at most before looking again, should no wake-up come. By default as the store says:
    /// [`LogWatch::look_every`].
    #[must_use]
    pub const fn poll_interval(mut self, interval: Duration) -> Self {
        self.log.set_look_every(interval);
        self
    }

    /// How far the consumer has come. An event counts when the next item is asked for.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Whether everything that was there has been given.
    #[must_use]
    pub const fn is_caught_up(&self) -> bool {
        self.machine.is_live()
    }
}

impl<R: EventReader + EventStore> Subscription<R> {
    /// The next item; waits for one if there is none. Cancelling the call loses nothing.
    ///
    /// # Errors
    /// [`FeedError::Store`] if the store failed. Asked again, the feed makes sure that the log is still the same, and goes
    /// on where it was.
    pub async fn next(&mut self) -> Result<FeedItem, FeedError> {
        if let Some(position) = self.in_hand.take() {
            self.progress.advance(position);
        }
        let mut input = FeedInput::Next;
        loop {
            input = match self.machine.step(input) {
                FeedEffect::Event(event) => {
                    self.in_hand = Some(event.position());
                    return Ok(FeedItem::Event(event));
                }
                FeedEffect::CaughtUp => {
                    if let Some(position) = self.looked {
                        self.progress.advance(position);
                    }
                    return Ok(FeedItem::CaughtUp);
                }
                FeedEffect::FellBehind => return Ok(FeedItem::FellBehind),
                // A call that is cancelled here has told the machine nothing, so it asks for the same again.
                asked => match self.perform(asked).await {
                    Ok(input) => input,
                    Err(error) => {
                        // What it would do next it says again when it is asked.
                        self.machine.step(FeedInput::Failed);
                        return Err(error.into());
                    }
                },
            };
        }
    }

    /// The next item as the user's type.
    ///
    /// # Errors
    /// As [`next`](Self::next); also [`FeedError::Decode`].
    pub async fn next_as<E: Event>(&mut self) -> Result<FeedItem<E>, FeedError> {
        Ok(match self.next().await? {
            FeedItem::Event(event) => {
                let position = event.position();
                FeedItem::Event(event.decode().map_err(|source| FeedError::Decode { position, source })?)
            }
            FeedItem::CaughtUp => FeedItem::CaughtUp,
            FeedItem::FellBehind => FeedItem::FellBehind,
        })
    }

    async fn perform(
        &mut self,
        effect: FeedEffect<RecordedEvent>,
    ) -> Result<FeedInput<RecordedEvent>, EventStoreError> {
        Ok(match effect {
            FeedEffect::Head => FeedInput::Head(self.reader.head().await?),
            FeedEffect::Verify(cursor) => {
                self.reader.verify_cursor(&cursor).await?;
                FeedInput::Verified
            }
            FeedEffect::Read { after } => {
                let page = self.reader.read_page(&self.filter, after, self.page_size).await?;
                // Behind the last wanted event there may be others: the consumer is done with them too.
                self.looked = page.position().or(self.looked);
                FeedInput::Page(page.events, page.cursor, page.more)
            }
            FeedEffect::Wait => {
                // All that was read has been asked past, so all that was looked at is done.
                if let Some(position) = self.looked {
                    self.progress.advance(position);
                }
                self.log.changed_or_due().await?;
                FeedInput::Woken
            }
            FeedEffect::Event(_) | FeedEffect::CaughtUp | FeedEffect::FellBehind => FeedInput::Next,
        })
    }
}

impl<R> Drop for Subscription<R> {
    fn drop(&mut self) {
        self.progress.end();
    }
}
