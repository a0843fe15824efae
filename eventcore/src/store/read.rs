//! Requests to read, and what comes back.

use super::append::MANY_STREAMS;
use super::{InvalidAppend, LogCursor, Receipt};
use crate::validation::check_range;
use crate::{AppendRequest, CommandId, GlobalPosition, RecordedEvent, StreamId, StreamVersion, ValidationError};
use nutype::nutype;
use std::collections::HashSet;

/// One consistent read: the events of all its streams, and the receipt of a command, as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadStreams {
    streams: Vec<StreamPosition>,
    command_id: Option<CommandId>,
    receipt_is_enough: bool,
}

/// From where a stream is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream.
    pub stream_id: StreamId,
    /// Its events after this version are wanted; version 0 means all of them.
    pub after: StreamVersion,
}

impl ReadStreams {
    /// Reads whole streams. One named twice is read once.
    ///
    /// # Errors
    /// [`InvalidAppend::TooManyStreams`] beyond 1,000 streams.
    pub fn new(streams: impl IntoIterator<Item = StreamId>) -> Result<Self, InvalidAppend> {
        Self::after(streams.into_iter().map(|stream_id| StreamPosition { stream_id, after: StreamVersion::default() }))
    }

    /// Reads streams from given versions on. Of a stream named twice, the first mention counts.
    ///
    /// # Errors
    /// [`InvalidAppend::TooManyStreams`] beyond 1,000 streams.
    pub fn after(positions: impl IntoIterator<Item = StreamPosition>) -> Result<Self, InvalidAppend> {
        let positions = positions.into_iter();
        let mut streams: Vec<StreamPosition> =
            Vec::with_capacity(positions.size_hint().0.min(AppendRequest::MAX_STREAMS));
        let mut seen = HashSet::new();
        for position in positions {
            let known = match streams.len() < MANY_STREAMS {
                true => streams.iter().any(|stream| stream.stream_id == position.stream_id),
                false => {
                    if seen.is_empty() {
                        seen.extend(streams.iter().map(|stream| stream.stream_id.clone()));
                    }
                    !seen.insert(position.stream_id.clone())
                }
            };
            if !known {
                streams.push(position);
            }
        }
        if streams.len() > AppendRequest::MAX_STREAMS {
            return Err(InvalidAppend::TooManyStreams { count: streams.len(), limit: AppendRequest::MAX_STREAMS });
        }
        Ok(Self { streams, ..Self::default() })
    }

    /// Looks up the receipt of this command in the same read.
    #[must_use]
    pub fn with_receipt_of(mut self, command_id: Option<CommandId>) -> Self {
        (self.command_id, self.receipt_is_enough) = (command_id, false);
        self
    }

    /// The same for who reads the streams only to decide what was not decided before: if there is a receipt, a store may leave
    /// events and versions out.
    #[must_use]
    pub fn unless_executed(self, command_id: Option<CommandId>) -> Self {
        Self { receipt_is_enough: true, ..self.with_receipt_of(command_id) }
    }

    /// The streams, each once.
    #[must_use]
    pub fn streams(&self) -> &[StreamPosition] {
        &self.streams
    }

    /// The command whose receipt is wanted.
    #[must_use]
    pub const fn command_id(&self) -> Option<&CommandId> {
        self.command_id.as_ref()
    }

    /// Whether a receipt, if there is one, is all that is wanted.
    #[must_use]
    pub const fn is_receipt_enough(&self) -> bool {
        self.receipt_is_enough
    }
}

/// What a consistent read brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamsRead {
    /// The events of all streams, in global order.
    pub events: Vec<RecordedEvent>,
    /// The version of each stream of the request, in the order of the request. Empty where the receipt
    /// [was enough](ReadStreams::unless_executed).
    pub versions: Vec<StreamVersion>,
    /// The receipt asked for, if the command was executed before.
    pub receipt: Option<Receipt>,
}

fn check_page_size(value: &u32) -> Result<(), ValidationError> {
    check_range("PageSize", u64::from(*value), 1, 10_000)
}

/// How many events are read at once: 1 to 10,000, by default 1,000. Large events fill a page earlier, see
/// [`PageSize::FULL_BYTES`].
#[nutype(
    validate(with = check_page_size, error = ValidationError),
    default = 1_000,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default, Serialize, Deserialize)
)]
pub struct PageSize(u32);

impl PageSize {
    /// How many bytes of payloads and metadata make a page full, however few events they are: 8 MiB. A page has at least
    /// one event, and the last one may go beyond.
    pub const FULL_BYTES: usize = 8 << 20;

    /// The size as a number of events.
    #[must_use]
    pub fn get(self) -> usize {
        self.into_inner() as usize
    }
}

/// A page of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The events that the filter wants, in order.
    pub events: Vec<RecordedEvent>,
    /// How far the page looked: the last event that it examined, whether the filter wants that one or not. The next
    /// page begins after it. `None` if nothing lies behind the position asked for.
    pub cursor: Option<LogCursor>,
    /// Whether the page is full, in events or in bytes, so that the next one should be read at once.
    pub more: bool,
}

impl Page {
    /// The position after which the next page begins.
    #[must_use]
    pub fn position(&self) -> Option<GlobalPosition> {
        self.cursor.as_ref().map(|cursor| cursor.position)
    }
}

/// A page of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamPage {
    /// The events in order of their versions.
    pub events: Vec<RecordedEvent>,
    /// Whether the page is full, in events or in bytes, so that there may be more.
    pub more: bool,
}
