//! What an execution did.

use crate::{Appended, AppendedEvent, GlobalPosition, StreamId, StreamVersion, Timestamp};

/// What an execution did: where its events went, and how often it had to decide.
///
/// A replayed execution answers the same as the one that had the effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutionOutcome {
    events: Vec<AppendedEvent>,
    recorded_at: Option<Timestamp>,
    attempts: u32,
    replayed: bool,
}

impl ExecutionOutcome {
    pub(super) fn appended(appended: Appended, attempts: u32) -> Self {
        let Appended { events, recorded_at, replayed } = appended;
        Self { events, recorded_at: Some(recorded_at), attempts, replayed }
    }

    pub(super) const fn nothing(attempts: u32) -> Self {
        Self { events: Vec::new(), recorded_at: None, attempts, replayed: false }
    }

    pub(super) const fn settled(events: Vec<AppendedEvent>, recorded_at: Option<Timestamp>, attempts: u32) -> Self {
        Self { events, recorded_at, attempts, replayed: false }
    }

    /// Where each event went, in the order in which the command emitted them.
    #[must_use]
    pub fn events(&self) -> &[AppendedEvent] {
        &self.events
    }

    /// The position of the last event; `None` if the command decided to do nothing. Who waits until a follower has
    /// reached it reads what was written here.
    #[must_use]
    pub fn position(&self) -> Option<GlobalPosition> {
        self.events.last().map(|event| event.position)
    }

    /// The version of a stream after this execution, if it wrote to it.
    #[must_use]
    pub fn version_of(&self, stream_id: &StreamId) -> Option<StreamVersion> {
        self.events.iter().rev().find(|event| &event.stream_id == stream_id).map(|event| event.version)
    }

    /// When the store recorded the events or the receipt; `None` if nothing was recorded.
    #[must_use]
    pub const fn recorded_at(&self) -> Option<Timestamp> {
        self.recorded_at
    }

    /// How often the command was decided: 1 without a conflict, 0 if its receipt was there already.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether the command had been executed before, so that nothing happened now.
    #[must_use]
    pub const fn replayed(&self) -> bool {
        self.replayed
    }
}
