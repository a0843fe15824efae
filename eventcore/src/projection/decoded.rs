//! Events decoded before it is their turn.

use crate::{Event, GlobalPosition, RecordedEvent};
use std::collections::VecDeque;

/// The first events of a page, as the user's type. One that cannot be decoded is left out: it fails when it is its turn.
pub(super) struct Decoded<E> {
    /// The position of the first event of the page.
    page: Option<GlobalPosition>,
    /// How many events of the page were looked at.
    seen: usize,
    /// In order.
    events: VecDeque<RecordedEvent<E>>,
}

/// How many events are decoded between two looks at what is waited for: some 20 microseconds.
const AT_ONCE: usize = 32;

impl<E: Event> Decoded<E> {
    /// Decodes a few more events of a page. Tells whether there were any.
    pub(super) fn go_on(&mut self, page: &[RecordedEvent]) -> bool {
        let first = page.first().map(RecordedEvent::position);
        if first != self.page {
            *self = Self { page: first, ..Self::default() };
        }
        let until = page.len().min(self.seen + AT_ONCE);
        let more = page.get(self.seen..until).unwrap_or_default();
        self.events.extend(more.iter().filter_map(|event| event.decoded().ok()));
        let went_on = !more.is_empty();
        self.seen = until;
        went_on
    }

    /// Throws everything away: what is read again may be of another history.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// What is decoded of a page, taken out.
    pub(super) fn take(&mut self, page: &[RecordedEvent]) -> Self {
        let decoded = std::mem::take(self);
        if decoded.page == page.first().map(RecordedEvent::position) { decoded } else { Self::default() }
    }

    /// The event at a position, if it is decoded. To be asked for in rising order.
    pub(super) fn at(&mut self, position: GlobalPosition) -> Option<RecordedEvent<E>> {
        while self.events.front()?.position() < position {
            self.events.pop_front();
        }
        self.events.pop_front_if(|event| event.position() == position)
    }
}

impl<E> Default for Decoded<E> {
    fn default() -> Self {
        Self { page: None, seen: 0, events: VecDeque::new() }
    }
}
