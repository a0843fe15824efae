//! The end of the log, read once for all projections of a manager.

use super::window::{Look, Window, WindowLimits};
use crate::{
    ErrorKind, EventFilter, EventReader, EventStoreError, GlobalPosition, LineageId, LogCursor, LogSignal, LogWatch,
    Page, PageSize, StreamId, StreamPage, StreamVersion,
};
use async_trait::async_trait;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One task reads the end of the log, with a filter that wants what any projection wants, into a window. A projection whose
/// place lies in the window is served from there; one that is further behind reads the store itself, until it has come near.
/// So none waits for another, and the end is read once.
pub(super) struct Tail {
    wanted: EventFilter,
    limits: WindowLimits,
    page_size: PageSize,
    state: RwLock<State>,
    /// Whether anybody looked at the window lately.
    demanded: AtomicBool,
    /// How many requests to read on were answered.
    answered: watch::Sender<Answered>,
    asked: Notify,
    signal: LogSignal,
}

#[derive(Default)]
struct State {
    /// There is one as long as somebody follows the end of the log.
    window: Option<Window>,
    /// How many requests to read on there were.
    asked: u64,
    /// How often the store could not be read, and why not the last time.
    faults: u64,
    fault: Option<EventStoreError>,
}

#[derive(Clone, Copy, Default)]
struct Answered {
    requests: u64,
    /// Whether the task runs.
    running: bool,
}

/// What a follower can do.
enum Next {
    Answer(Result<Page, EventStoreError>),
    /// Read the store itself.
    Alone,
    /// Wait until this request was answered, and look again.
    Wait(u64),
}

impl Tail {
    /// For how long the end is read after somebody looked at it. Whoever waits there looks more often.
    const DEMAND: Duration = Duration::from_secs(15);

    /// A tail for followers with these filters.
    pub(super) fn new<'f>(
        filters: impl IntoIterator<Item = &'f EventFilter>,
        limits: WindowLimits,
        page_size: PageSize,
    ) -> Self {
        let union = filters.into_iter().cloned().reduce(EventFilter::union);
        Self {
            wanted: union.unwrap_or_default(),
            limits,
            page_size,
            state: RwLock::default(),
            demanded: AtomicBool::new(false),
            answered: watch::Sender::default(),
            asked: Notify::new(),
            // All that makes a projection read on that has seen everything is told.
            signal: LogSignal::tended(),
        }
    }

    /// Followers may come: [`follow`](Self::follow) is about to be called.
    pub(super) fn open(&self) {
        self.answered.send_modify(|answered| answered.running = true);
    }

    /// Nobody reads the end any more: every follower reads by itself.
    fn close(&self) {
        self.write().window = None;
        self.answered.send_modify(|answered| answered.running = false);
        self.signal.notify();
    }

    /// Reads the end of the log until told to stop.
    pub(super) async fn follow(&self, log: &impl EventReader, stop: &CancellationToken) {
        // However this ends, nobody is to wait for it.
        struct Close<'a>(&'a Tail);
        impl Drop for Close<'_> {
            fn drop(&mut self) {
                self.0.close();
            }
        }
        self.open();
        let _close = Close(self);
        let mut store = log.watch_log();
        let look_every = store.look_every();
        let mut store_is_open = true;
        let mut looked = Instant::now();
        while !stop.is_cancelled() {
            let more = tokio::select! {
                more = self.read_on(log) => more,
                () = stop.cancelled() => return,
            };
            if more {
                // A store that need not wait for anything is to let the others work.
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.asked.notified() => {}
                    changed = store.changed(), if store_is_open => store_is_open = changed.is_ok(),
                    () = tokio::time::sleep(look_every) => {}
                }
            }
            if looked.elapsed() >= Self::DEMAND {
                looked = Instant::now();
                if !self.demanded.swap(false, Ordering::Relaxed) {
                    self.write().window = None;
                }
            }
        }
    }

    /// Reads the page behind the window; tells whether there is more.
    async fn read_on(&self, log: &impl EventReader) -> bool {
        let (end, requests) = {
            let state = self.read();
            (state.window.as_ref().map(Window::end), state.asked)
        };
        let (news, more) = match end {
            // Those who read by themselves are told that there may be something new.
            None => (true, false),
            Some(end) => {
                let page = log.read_page(&self.wanted, end, self.page_size).await;
                self.take(end, page)
            }
        };
        self.answered.send_modify(|answered| answered.requests = requests);
        if news {
            self.signal.notify();
        }
        more
    }

    /// Takes a page that was read behind `end`. Tells whether there is anything new for followers, and whether there is more.
    fn take(&self, end: Option<GlobalPosition>, page: Result<Page, EventStoreError>) -> (bool, bool) {
        let mut state = self.write();
        match page {
            Ok(page) => {
                let Some(window) = &mut state.window else { return (false, false) };
                // It is another window by now, or somebody else has read on: what is here already is not to come again.
                if window.end() != end {
                    return (false, true);
                }
                (window.extend(page), window.has_more())
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn StdError, "the end of the log could not be read");
                // What was read may be of another history than what is there when the store is back. Everybody makes sure of
                // his own place, and reads on by himself; what is no passing fault is met by those whom it concerns.
                state.window = None;
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) {
                    state.faults += 1;
                    state.fault = Some(error);
                }
                (true, false)
            }
        }
    }

    /// Somebody has seen all up to here: from here on the end is read for everybody.
    fn begin(&self, position: Option<GlobalPosition>) {
        self.demanded.store(true, Ordering::Relaxed);
        if !self.answered.borrow().running {
            return;
        }
        let mut state = self.write();
        if state.window.is_none() {
            state.window = Some(Window::new(self.limits, position));
            // What was appended since was told when there was no window.
            self.asked.notify_one();
        }
    }

    /// What a follower can do. `told` is how many faults it knows of.
    fn next(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
        told: &AtomicU64,
        has_waited: bool,
    ) -> Next {
        {
            let state = self.read();
            if told.swap(state.faults, Ordering::Relaxed) != state.faults
                && let Some(fault) = &state.fault
            {
                return Next::Answer(Err(fault.clone()));
            }
            let Some(window) = &state.window else { return Next::Alone };
            match window.look(filter, after, limit) {
                Look::Behind => return Next::Alone,
                // It was read on, and is not there yet.
                Look::AtEnd if has_waited => return Next::Alone,
                Look::AtEnd => {}
                Look::Page(page) => {
                    self.demanded.store(true, Ordering::Relaxed);
                    return Next::Answer(Ok(page));
                }
            }
        }
        self.demanded.store(true, Ordering::Relaxed);
        let mut state = self.write();
        state.asked += 1;
        self.asked.notify_one();
        Next::Wait(state.asked)
    }

    /// Returns when a request was answered, or nobody is left to do so.
    async fn wait(&self, request: u64) {
        let mut answered = self.answered.subscribe();
        // An error means that this is gone, and then nobody waits.
        let _ = answered.wait_for(|answered| !answered.running || answered.requests >= request).await;
    }

    fn faults(&self) -> u64 {
        self.read().faults
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        // What is guarded is changed as a whole, so a panic elsewhere leaves nothing half done.
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log as one run of a projection reads it.
pub(super) struct SharedLog<B> {
    log: B,
    tail: Arc<Tail>,
    /// How many faults of the tail this run was told of.
    told: AtomicU64,
}

impl<B> SharedLog<B> {
    pub(super) fn new(log: B, tail: Arc<Tail>) -> Self {
        let told = AtomicU64::new(tail.faults());
        Self { log, tail, told }
    }
}

#[async_trait]
impl<B: EventReader> EventReader for SharedLog<B> {
    async fn read_page(
        &self,
        filter: &EventFilter,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Page, EventStoreError> {
        if self.tail.wanted.covers(filter) {
            let mut has_waited = false;
            loop {
                match self.tail.next(filter, after, limit, &self.told, has_waited) {
                    Next::Answer(answer) => return answer,
                    Next::Alone => break,
                    Next::Wait(request) => self.tail.wait(request).await,
                }
                has_waited = true;
            }
        }
        let page = self.log.read_page(filter, after, limit).await?;
        if !page.more {
            self.tail.begin(page.position().or(after));
        }
        Ok(page)
    }

    async fn read_stream(
        &self,
        stream_id: &StreamId,
        after: StreamVersion,
        limit: PageSize,
    ) -> Result<StreamPage, EventStoreError> {
        self.log.read_stream(stream_id, after, limit).await
    }

    async fn verify_cursor(&self, cursor: &LogCursor) -> Result<(), EventStoreError> {
        self.log.verify_cursor(cursor).await
    }

    fn lineage(&self) -> LineageId {
        self.log.lineage()
    }

    fn watch_log(&self) -> LogWatch {
        self.tail.signal.watch()
    }
}

#[cfg(test)]
mod tests {
    use super::Tail;
    use crate::{EventFilter, EventId, GlobalPosition, LogCursor, Page, PageSize, WindowLimits};

    fn page_to(position: u64) -> Page {
        let position = GlobalPosition::try_new(position).unwrap();
        Page { cursor: Some(LogCursor { position, event_id: EventId::generate() }), ..Page::default() }
    }

    #[test]
    fn a_page_that_was_read_from_elsewhere_is_not_put_behind_the_window() {
        let tail = Tail::new([&EventFilter::all()], WindowLimits::default(), PageSize::default());
        tail.open();
        tail.begin(None);
        assert_eq!(tail.take(None, Ok(page_to(5))), (true, false));
        assert_eq!(tail.take(None, Ok(page_to(3))), (false, true), "it is read on from where the window ends");
        let end = tail.read().window.as_ref().and_then(super::Window::end);
        assert_eq!(end.map(GlobalPosition::get), Some(5));
    }
}
