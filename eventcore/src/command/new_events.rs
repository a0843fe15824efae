//! What a command decided.

use super::{CommandLogic, StreamHandle};
use crate::StreamId;

/// The events that a command decided to append, in order. None at all is a valid decision.
pub struct NewEvents<C: CommandLogic> {
    events: Vec<(StreamId, C::Event)>,
}

impl<C: CommandLogic> NewEvents<C> {
    /// No events yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { events: Vec::new() }
    }

    /// Appends an event to a stream of the command. Positions follow the order of these calls, over all streams.
    #[must_use]
    pub fn append(mut self, stream: &StreamHandle<C>, event: C::Event) -> Self {
        self.push(stream, event);
        self
    }

    /// The same for loops.
    pub fn push(&mut self, stream: &StreamHandle<C>, event: C::Event) {
        self.events.push((stream.stream_id().clone(), event));
    }

    /// The events decided so far, with their streams.
    #[must_use]
    pub fn as_slice(&self) -> &[(StreamId, C::Event)] {
        &self.events
    }

    pub(crate) fn into_vec(self) -> Vec<(StreamId, C::Event)> {
        self.events
    }
}

impl<C: CommandLogic> Default for NewEvents<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: CommandLogic> std::fmt::Debug for NewEvents<C>
where
    C::Event: std::fmt::Debug,
{
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NewEvents").field(&self.events).finish()
    }
}
