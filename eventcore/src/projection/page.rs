//! Reading pages ahead of their use.

use super::decoded::Decoded;
use crate::{
    Event, EventFilter, EventReader, EventStoreError, GlobalPosition, LogCursor, Page, PageSize, RecordedEvent,
};
use std::future::{Future, poll_fn};
use std::ops::{Deref, Range};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The events of a page; a clone shares them.
#[derive(Clone, Default)]
pub(super) struct PageEvents {
    /// What was read at once: one page, or several.
    all: Arc<Vec<RecordedEvent>>,
    /// Those of the page; within `all`.
    range: Range<usize>,
}

impl Deref for PageEvents {
    type Target = [RecordedEvent];

    fn deref(&self) -> &[RecordedEvent] {
        self.all.get(self.range.clone()).unwrap_or_default()
    }
}

/// What the next page goes on from, and the page.
pub(super) struct ReadPage {
    pub(super) events: PageEvents,
    /// How far the page looked.
    pub(super) end: Option<LogCursor>,
    /// Whether the next page should be read at once.
    pub(super) more: bool,
}

type Reading<'b> = Pin<Box<dyn Future<Output = Result<Page, EventStoreError>> + Send + 'b>>;

/// How many pages are read at once at most.
const MAX_PAGES: usize = 5;

/// Reads the pages of one follower; while a full one is applied, the next one is under way.
///
/// A follower that is faster than the store waits for each page, and each costs the store the same beside its events. So
/// while it has to wait, several pages are read at once, twice as many each time. One that is slower finds its next page
/// read, and has no more than that page in memory. Whatever was read at once is handed out page by page.
///
/// Of the next page as many events are decoded as the time allows in which a checkpoint is saved.
pub(super) struct PageReader<'b, B: ?Sized, E> {
    backend: &'b B,
    filter: EventFilter,
    size: PageSize,
    /// How many pages are read at once.
    pages: usize,
    /// What was read and not handed out yet, and where it begins.
    rest: Option<(Option<GlobalPosition>, ReadPage)>,
    ahead: Option<Ahead<'b>>,
    /// What is decoded of the page that is handed out next; `None` if those who apply it decode it.
    decoded: Option<Decoded<E>>,
    /// Whether what was done last beside reading had to wait for anything.
    waited: bool,
}

struct Ahead<'b> {
    after: Option<GlobalPosition>,
    state: State<'b>,
}

enum State<'b> {
    Reading(Reading<'b>),
    Ready(Result<Page, EventStoreError>),
}

impl<'b, B: EventReader + ?Sized, E: Event> PageReader<'b, B, E> {
    pub(super) fn new(backend: &'b B, filter: EventFilter, size: PageSize, decodes: bool) -> Self {
        let decoded = decodes.then(Decoded::default);
        Self { backend, filter, size, pages: 1, rest: None, ahead: None, decoded, waited: false }
    }

    /// What is decoded of a page that was handed out.
    pub(super) fn decoded(&mut self, events: &PageEvents) -> Decoded<E> {
        self.decoded.as_mut().map(|decoded| decoded.take(events)).unwrap_or_default()
    }

    /// The page after a position.
    pub(super) async fn read(&mut self, after: Option<GlobalPosition>) -> Result<ReadPage, EventStoreError> {
        if let Some((_, rest)) = self.rest.take_if(|(from, _)| *from == after) {
            return Ok(self.cut(rest));
        }
        self.rest = None;
        self.nudge();
        let page = match self.ahead.take().filter(|ahead| ahead.after == after).map(|ahead| ahead.state) {
            Some(State::Ready(page)) => {
                self.pages = (self.pages / 2).max(1);
                page?
            }
            Some(State::Reading(reading)) => {
                self.pages = (self.pages * 2).min(MAX_PAGES);
                reading.await?
            }
            None => {
                self.decoded.iter_mut().for_each(Decoded::forget);
                self.start(after).await?
            }
        };
        if page.more {
            let after = page.position();
            self.ahead = Some(Ahead { after, state: State::Reading(self.start(after)) });
            self.nudge();
        } else {
            self.pages = 1;
        }
        let range = 0..page.events.len();
        let events = PageEvents { all: Arc::new(page.events), range };
        Ok(self.cut(ReadPage { events, end: page.cursor, more: page.more }))
    }

    /// The first page of what was read at once; the others are the rest.
    fn cut(&mut self, mut read: ReadPage) -> ReadPage {
        let Some(last) = read.events.get(self.size.get() - 1).filter(|_| read.events.len() > self.size.get()) else {
            return read;
        };
        let end = Some(LogCursor { position: last.position(), event_id: last.id() });
        let Range { start, end: middle } = read.events.range.start..read.events.range.start + self.size.get();
        let events = PageEvents { all: Arc::clone(&read.events.all), range: start..middle };
        read.events.range.start = middle;
        self.rest = Some((end.map(|end| end.position), read));
        ReadPage { events, end, more: true }
    }

    /// Throws away what was read ahead.
    pub(super) fn forget(&mut self) {
        self.rest = None;
        self.ahead = None;
        self.decoded.iter_mut().for_each(Decoded::forget);
    }

    /// Gives what is read ahead a chance to come along, without waiting for it.
    pub(super) fn nudge(&mut self) {
        self.poll_ahead(&mut Context::from_waker(Waker::noop()));
    }

    /// Does something else, and reads ahead while that waits. A read that was begun and left alone would keep what it has
    /// got so far, a place in a queue or a connection of a pool, from others, and they could wait for each other.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        self.while_pending(other, false).await
    }

    /// The same while a page is ended, with nothing else to do: what is read of the next one is decoded.
    pub(super) async fn beside_the_end<T>(&mut self, other: impl Future<Output = T>) -> T {
        self.while_pending(other, true).await
    }

    async fn while_pending<T>(&mut self, other: impl Future<Output = T>, decode: bool) -> T {
        let mut other = pin!(other);
        self.waited = false;
        poll_fn(|context| {
            let polled = other.as_mut().poll(context);
            if polled.is_pending() {
                self.waited = true;
                self.poll_ahead(context);
                if decode && self.decode_ahead() {
                    context.waker().wake_by_ref();
                }
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

    /// Decodes a few events of the next page, if it is there. Tells whether there were any.
    fn decode_ahead(&mut self) -> bool {
        let Some(decoded) = &mut self.decoded else { return false };
        let read: &[RecordedEvent] = match (&self.rest, &self.ahead) {
            (Some((_, rest)), _) => &rest.events,
            (None, Some(Ahead { state: State::Ready(Ok(page)), .. })) => &page.events,
            _ => return false,
        };
        decoded.go_on(read.get(..self.size.get()).unwrap_or(read))
    }

    fn start(&self, after: Option<GlobalPosition>) -> Reading<'b> {
        let (backend, filter) = (self.backend, self.filter.clone());
        // As many as one read may bring.
        let events = u32::try_from(self.size.get() * self.pages).ok().and_then(|events| PageSize::try_new(events).ok());
        let limit = events.unwrap_or_else(|| PageSize::try_new(10_000).unwrap_or(self.size));
        Box::pin(async move { backend.read_page(&filter, after, limit).await })
    }
}
