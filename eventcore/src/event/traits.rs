//! The trait of a user's events, and what can go wrong between bytes and types.

use crate::{EventType, Payload, SchemaVersion, SharedError};
use std::error::Error as StdError;
use thiserror::Error;

/// The events of a domain: what is stored, and how it is read back.
///
/// Derive it. An enum stores each variant as an event type of its own, `namespace.Variant`; the payload is the
/// variant's fields as serde writes them, without the variant's name.
///
/// ```
/// use eventcore::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     AccountOpened { owner: String },
///     MoneyDeposited { cents: u64 },
/// }
///
/// let event = BankEvent::MoneyDeposited { cents: 500 };
/// assert_eq!(event.event_type().as_str(), "bank.MoneyDeposited");
/// assert_eq!(event.encode()?.bytes().as_ref(), br#"{"cents":500}"#);
/// let read = BankEvent::decode(&event.event_type(), event.schema_version(), &event.encode()?)?;
/// assert_eq!(read, event);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event",
    label = "not an event",
    note = "add `#[derive(Event)]` to `{Self}`, or make it an enum of events"
)]
pub trait Event: Sized + Send + Sync + 'static {
    /// Every event type that [`decode`](Event::decode) understands, aliases included.
    fn event_types() -> Vec<EventTypeInfo>;

    /// The stored name of this event.
    fn event_type(&self) -> EventType;

    /// The schema version this event is written in.
    fn schema_version(&self) -> SchemaVersion;

    /// The payload.
    ///
    /// # Errors
    /// [`EncodeError`] if the event's `Serialize` fails or does not write what its shape says.
    fn encode(&self) -> Result<Payload, EncodeError>;

    /// The event that was stored under `event_type` in `schema_version`, upcast to the present where it is older.
    ///
    /// # Errors
    /// [`DecodeError`], which tells an unknown type, a version from the future and a malformed payload apart.
    fn decode(event_type: &EventType, schema_version: SchemaVersion, payload: &Payload) -> Result<Self, DecodeError>;
}

/// One event type that an [`Event`] reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventTypeInfo {
    /// The stored name.
    pub name: EventType,
    /// The schema version that is written today.
    pub schema_version: SchemaVersion,
    /// Names under which older events of this type were stored; they are read, never written.
    pub aliases: Vec<EventType>,
}

/// Encoding an event failed. Nothing was written.
#[derive(Debug, Clone, Error)]
#[error("event of type {event_type} cannot be encoded")]
pub struct EncodeError {
    /// The event's type.
    pub event_type: EventType,
    /// What the serializer said.
    #[source]
    pub source: SharedError,
}

impl EncodeError {
    /// An error of an event's own encoding.
    pub fn new(event_type: EventType, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { event_type, source: SharedError::new(source) }
    }
}

/// A stored event cannot be turned into the type asked for. The stored bytes are as they were.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The type asked for has no such event type.
    #[error("event type {event_type} is unknown here")]
    UnknownType {
        /// The stored name.
        event_type: EventType,
    },
    /// The event was written by a newer program.
    #[error("event type {event_type} is stored in schema version {stored}, this program knows up to {known}")]
    NewerSchema {
        /// The stored name.
        event_type: EventType,
        /// The version it is stored in.
        stored: SchemaVersion,
        /// The highest version known here.
        known: SchemaVersion,
    },
    /// The event is older than the oldest version that an upcaster is declared for.
    #[error("event type {event_type}: no upcaster from schema version {stored}")]
    NoUpcaster {
        /// The stored name.
        event_type: EventType,
        /// The version it is stored in.
        stored: SchemaVersion,
    },
    /// An upcaster refused the payload.
    #[error("event type {event_type}: upcasting from schema version {from} failed")]
    Upcast {
        /// The stored name.
        event_type: EventType,
        /// The version the failing step began with.
        from: SchemaVersion,
        /// What the upcaster said.
        #[source]
        source: SharedError,
    },
    /// The payload is not what the event type's fields need.
    #[error("event type {event_type}, schema version {schema_version}: malformed payload")]
    Malformed {
        /// The stored name.
        event_type: EventType,
        /// The version it is stored in.
        schema_version: SchemaVersion,
        /// What the deserializer said.
        #[source]
        source: SharedError,
    },
}

impl DecodeError {
    /// A malformed payload, with what the deserializer said.
    pub fn malformed(
        event_type: &EventType,
        schema_version: SchemaVersion,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::Malformed { event_type: event_type.clone(), schema_version, source: SharedError::new(source) }
    }

    /// The stored name of the event's type.
    #[must_use]
    pub const fn event_type(&self) -> &EventType {
        match self {
            Self::UnknownType { event_type }
            | Self::NewerSchema { event_type, .. }
            | Self::NoUpcaster { event_type, .. }
            | Self::Upcast { event_type, .. }
            | Self::Malformed { event_type, .. } => event_type,
        }
    }
}
