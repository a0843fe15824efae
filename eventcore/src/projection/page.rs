//! Reading pages ahead of their use, and decoding them.

use crate::{
    DecodeError, Event, EventFilter, EventHeader, EventReader, EventStoreError, GlobalPosition, LogCursor, PageSize,
    RecordedEvent,
};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// An event of a page, decoded as far as possible.
pub(super) enum PageEvent<E> {
    Decoded(RecordedEvent<E>),
    Undecodable(EventHeader, DecodeError),
}

impl<E: Event> PageEvent<E> {
    pub(super) fn new(event: RecordedEvent) -> Self {
        let (header, payload) = event.into_parts();
        match E::decode(&header.event_type, header.schema_version, &payload) {
            Ok(event) => Self::Decoded(RecordedEvent::new(header, event)),
            Err(error) => Self::Undecodable(header, error),
        }
    }

    pub(super) const fn header(&self) -> &EventHeader {
        match self {
            Self::Decoded(event) => event.header(),
            Self::Undecodable(header, _) => header,
        }
    }

    pub(super) const fn cursor(&self) -> LogCursor {
        let header = self.header();
        LogCursor { position: header.position, event_id: header.id }
    }
}

/// A page with its events decoded.
pub(super) struct DecodedPage<E> {
    pub(super) events: Vec<PageEvent<E>>,
    pub(super) end: Option<LogCursor>,
    pub(super) more: bool,
}

type Reading<'b, E> = Pin<Box<dyn Future<Output = Result<DecodedPage<E>, EventStoreError>> + Send + 'b>>;

/// How many events are applied between two looks at the page that is read ahead.
const NUDGE_EVERY: usize = 64;

/// Reads the pages of one follower; while a full one is applied, the next one is under way.
pub(super) struct PageReader<'b, E: Event, B: ?Sized> {
    backend: &'b B,
    filter: EventFilter,
    size: PageSize,
    ahead: Option<Ahead<'b, E>>,
    /// Whether what was done last beside reading had to wait for anything.
    waited: bool,
}

struct Ahead<'b, E> {
    after: Option<GlobalPosition>,
    state: State<'b, E>,
}

enum State<'b, E> {
    Reading(Reading<'b, E>),
    Ready(Result<DecodedPage<E>, EventStoreError>),
}

impl<'b, E: Event, B: EventReader + ?Sized> PageReader<'b, E, B> {
    pub(super) const fn new(backend: &'b B, filter: EventFilter, size: PageSize) -> Self {
        Self { backend, filter, size, ahead: None, waited: false }
    }

    /// The page after a position.
    pub(super) async fn read(&mut self, after: Option<GlobalPosition>) -> Result<DecodedPage<E>, EventStoreError> {
        let page = match self.ahead.take().filter(|ahead| ahead.after == after).map(|ahead| ahead.state) {
            Some(State::Ready(page)) => page?,
            Some(State::Reading(reading)) => reading.await?,
            None => self.start(after).await?,
        };
        if page.more {
            let after = page.end.map(|end| end.position);
            self.ahead = Some(Ahead { after, state: State::Reading(self.start(after)) });
            self.nudge(0);
        }
        Ok(page)
    }

    /// Throws away what was read ahead.
    pub(super) fn forget(&mut self) {
        self.ahead = None;
    }

    /// Gives the page that is read ahead a chance to come along, without waiting for it.
    pub(super) fn nudge(&mut self, applied: usize) {
        if applied.is_multiple_of(NUDGE_EVERY) {
            self.poll_ahead(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Does something else, and reads ahead while that waits. A read that was begun and left alone would keep what it has
    /// got so far, a place in a queue or a connection of a pool, from others, and they could wait for each other.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        self.waited = false;
        poll_fn(|context| {
            let polled = other.as_mut().poll(context);
            if polled.is_pending() {
                self.waited = true;
                self.poll_ahead(context);
            }
            polled
        })
        .await
    }

    /// Whether what was done last beside reading had to wait for anything, so that time has passed.
    pub(super) const fn has_waited(&self) -> bool {
        self.waited
    }

    fn poll_ahead(&mut self, context: &mut Context<'_>) {
        if let Some(Ahead { state, .. }) = &mut self.ahead
            && let State::Reading(reading) = state
            && let Poll::Ready(page) = reading.as_mut().poll(context)
        {
            *state = State::Ready(page);
        }
    }

    fn start(&self, after: Option<GlobalPosition>) -> Reading<'b, E> {
        let (backend, filter, size) = (self.backend, self.filter.clone(), self.size);
        Box::pin(async move {
            let page = backend.read_page(&filter, after, size).await?;
            let events = page.events.into_iter().map(PageEvent::new).collect();
            Ok(DecodedPage { events, end: page.cursor, more: page.more })
        })
    }
}
