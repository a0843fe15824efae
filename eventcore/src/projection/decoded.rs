//! Events decoded before it is their turn.

use crate::{Event, GlobalPosition, RecordedEvent};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The first events of a page, as the user's type. One that cannot be decoded is left out: it fails when it is its turn.
pub(super) struct Decoded<E> {
    /// The position of the first event of the page.
    page: Option<GlobalPosition>,
    /// How many events of the page were looked at.
    seen: usize,
    /// In order.
    events: VecDeque<RecordedEvent<E>>,
}

/// How many events are decoded at most between two looks at what is waited for: small ones take some 20 microseconds.
const AT_ONCE: usize = 32;

/// After how many bytes of payload there is another look before that. Events are decoded whole, so one may have more.
const FULL_BYTES: usize = 64 * 1024;

impl<E: Event> Decoded<E> {
    /// Decodes a few more events of a page. Tells whether there were any.
    pub(super) fn go_on(&mut self, page: &[RecordedEvent]) -> bool {
        let first = page.first().map(RecordedEvent::position);
        if first != self.page {
            *self = Self { page: first, ..Self::default() };
        }
        let (from, mut bytes) = (self.seen, 0);
        for event in page.iter().skip(from).take(AT_ONCE) {
            if bytes >= FULL_BYTES {
                break;
            }
            bytes += event.payload().bytes().len();
            self.events.extend(decoded(event));
            self.seen += 1;
        }
        self.seen > from
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

    /// The event at a position, if it is decoded and was not asked for yet. What is before it is gone then: after a rollback,
    /// when the order begins anew, events up to there are decoded again.
    pub(super) fn at(&mut self, position: GlobalPosition) -> Option<RecordedEvent<E>> {
        while self.events.front()?.position() < position {
            self.events.pop_front();
        }
        self.events.pop_front_if(|event| event.position() == position)
    }
}

/// `None` if it cannot be decoded, also if that panics: it does so again when it is its turn, and meanwhile what is waited for
/// here, the checkpoint of the page before, must not end with it.
fn decoded<E: Event>(event: &RecordedEvent) -> Option<RecordedEvent<E>> {
    catch_unwind(AssertUnwindSafe(|| event.decoded())).ok()?.ok()
}

impl<E> Default for Decoded<E> {
    fn default() -> Self {
        Self { page: None, seen: 0, events: VecDeque::new() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::{EventHeader, EventId, EventMetadata, SchemaVersion, StreamId, StreamVersion, Timestamp};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Event)]
    #[event(namespace = "decoded")]
    enum Said {
        Text { text: String },
    }

    fn page(events: u64, bytes: usize) -> Vec<RecordedEvent> {
        let said = Said::Text { text: "x".repeat(bytes) };
        let event = |number| {
            let header = EventHeader {
                position: GlobalPosition::try_new(number).unwrap(),
                stream_id: StreamId::new("s").unwrap(),
                version: StreamVersion::try_new(number).unwrap(),
                id: EventId::generate(),
                event_type: said.event_type(),
                schema_version: SchemaVersion::default(),
                recorded_at: Timestamp::from_micros(0).unwrap(),
                metadata: EventMetadata::empty(),
            };
            RecordedEvent::new(header, said.encode().unwrap())
        };
        (1..=events).map(event).collect()
    }

    /// How many events are decoded each time, until there are none.
    fn each_time(page: &[RecordedEvent]) -> Vec<usize> {
        let mut decoded = Decoded::<Said>::default();
        let mut before = 0;
        std::iter::from_fn(|| {
            decoded.go_on(page).then(|| decoded.events.len() - std::mem::replace(&mut before, decoded.events.len()))
        })
        .collect()
    }

    #[test]
    fn a_few_events_are_decoded_at_once_and_fewer_if_they_are_large() {
        assert_eq!(each_time(&page(70, 10)), [32, 32, 6]);
        assert_eq!(each_time(&page(7, 30 * 1024)), [3, 3, 1], "64 KiB are full after the third");
        assert_eq!(each_time(&page(3, 1024 * 1024)), [1, 1, 1]);
        assert!(each_time(&[]).is_empty());
    }
}
