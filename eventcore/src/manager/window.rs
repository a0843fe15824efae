//! The latest part of the log in memory, from which followers are served.

use crate::{EventFilter, GlobalPosition, LogCursor, Page, PageSize, RecordedEvent};
use std::collections::VecDeque;

/// How much of the end of the log a manager keeps in memory for its projections. Those further behind read on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// The most events. Default 10,000.
    pub max_events: usize,
    /// The most bytes of payloads and metadata, all events together. Default 16 MiB.
    pub max_bytes: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { max_events: 10_000, max_bytes: 16 << 20 }
    }
}

/// Every wanted event behind a position, as far as the log was examined. It grows at its end and is cut at its beginning.
#[derive(Debug)]
pub(super) struct Window {
    limits: WindowLimits,
    /// What lies behind this position is here.
    start: Option<GlobalPosition>,
    /// How far the log was examined, and the event there, once one was read.
    end: Option<GlobalPosition>,
    cursor: Option<LogCursor>,
    /// Whether there is more in the log.
    more: bool,
    events: VecDeque<RecordedEvent>,
    bytes: usize,
}

/// What a window has for a follower.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// What is behind its position.
    Page(Page),
    /// The follower is at the end of the window, or came further by itself, and there is more in the log.
    AtEnd,
    /// What comes next is no longer here.
    Behind,
}

impl Window {
    /// An empty window that begins behind a position.
    pub(super) const fn new(limits: WindowLimits, start: Option<GlobalPosition>) -> Self {
        Self { limits, start, end: start, cursor: None, more: false, events: VecDeque::new(), bytes: 0 }
    }

    /// How far the log was examined.
    pub(super) const fn end(&self) -> Option<GlobalPosition> {
        self.end
    }

    /// Whether there is more in the log.
    pub(super) const fn has_more(&self) -> bool {
        self.more
    }

    /// Takes the page behind the end, and drops what is too much; tells whether there was anything.
    pub(super) fn extend(&mut self, page: Page) -> bool {
        self.more = page.more;
        let Some(cursor) = page.cursor else { return false };
        (self.end, self.cursor) = (Some(cursor.position), Some(cursor));
        self.bytes += page.events.iter().map(RecordedEvent::size).sum::<usize>();
        self.events.extend(page.events);
        while self.events.len() > self.limits.max_events || self.bytes > self.limits.max_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.size();
            self.start = Some(oldest.position());
        }
        true
    }

    /// The page behind a position, for a filter that wants no more than the window holds.
    pub(super) fn look(&self, filter: &EventFilter, after: Option<GlobalPosition>, limit: PageSize) -> Look {
        if after < self.start {
            return Look::Behind;
        }
        if after > self.end || (after == self.end && self.more) {
            return Look::AtEnd;
        }
        let (mut page, mut bytes) = (Page::default(), 0);
        if after == self.end {
            return Look::Page(page);
        }
        let first = self.events.partition_point(|event| Some(event.position()) <= after);
        for event in self.events.range(first..) {
            if !filter.matches(event.stream_id(), event.event_type()) {
                continue;
            }
            bytes += event.size();
            page.events.push(event.clone());
            if page.events.len() >= limit.get() || bytes >= PageSize::FULL_BYTES {
                page.cursor = Some(LogCursor { position: event.position(), event_id: event.id() });
                page.more = true;
                return Look::Page(page);
            }
        }
        (page.cursor, page.more) = (self.cursor, self.more);
        Look::Page(page)
    }
}
