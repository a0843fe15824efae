//! Events on their way into a store, and events that came out of one.

use super::{DecodeError, EncodeError, Event};
use crate::{
    EventId, EventMetadata, EventType, GlobalPosition, Payload, SchemaVersion, StreamId, StreamVersion, Timestamp,
};

/// An encoded event that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its identity. An append that is sent again carries the same ids, so that it can be recognised.
    pub id: EventId,
    /// The stored name of its type.
    pub event_type: EventType,
    /// The version of its payload.
    pub schema_version: SchemaVersion,
    /// Its bytes.
    pub payload: Payload,
    /// What is known about it.
    pub metadata: EventMetadata,
}

impl NewEvent {
    /// Encodes `event`.
    ///
    /// # Errors
    /// [`EncodeError`] if the event cannot be encoded.
    pub fn encode<E: Event>(id: EventId, event: &E, metadata: EventMetadata) -> Result<Self, EncodeError> {
        Ok(Self {
            id,
            event_type: event.event_type(),
            schema_version: event.schema_version(),
            payload: event.encode()?,
            metadata,
        })
    }

    /// What counts towards the size limit of an event: payload and metadata, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.payload, &self.metadata)
    }
}

/// Everything about a stored event except its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHeader {
    /// Its place in the one order of all events.
    pub position: GlobalPosition,
    /// Its stream.
    pub stream_id: StreamId,
    /// Its version in the stream, from 1.
    pub version: StreamVersion,
    /// Its identity.
    pub id: EventId,
    /// The stored name of its type.
    pub event_type: EventType,
    /// The schema version it was written in.
    pub schema_version: SchemaVersion,
    /// When the store recorded it. For people; order comes from the position.
    pub recorded_at: Timestamp,
    /// What is known about it.
    pub metadata: EventMetadata,
}

/// A stored event: as bytes (`RecordedEvent<Payload>`, what ports carry) or as the user's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent<P = Payload> {
    header: EventHeader,
    payload: P,
}

impl<P> RecordedEvent<P> {
    /// Puts a stored event together. For adapters and tests.
    #[must_use]
    pub const fn new(header: EventHeader, payload: P) -> Self {
        Self { header, payload }
    }

    /// What happened.
    #[must_use]
    pub const fn payload(&self) -> &P {
        &self.payload
    }

    /// What happened, taken out.
    #[must_use]
    pub fn into_payload(self) -> P {
        self.payload
    }

    /// Both parts.
    #[must_use]
    pub fn into_parts(self) -> (EventHeader, P) {
        (self.header, self.payload)
    }

    /// Everything but the payload.
    #[must_use]
    pub const fn header(&self) -> &EventHeader {
        &self.header
    }

    /// The place in the one order of all events.
    #[must_use]
    pub const fn position(&self) -> GlobalPosition {
        self.header.position
    }

    /// The stream.
    #[must_use]
    pub const fn stream_id(&self) -> &StreamId {
        &self.header.stream_id
    }

    /// The version in the stream, from 1.
    #[must_use]
    pub const fn version(&self) -> StreamVersion {
        self.header.version
    }

    /// The event's identity.
    #[must_use]
    pub const fn id(&self) -> EventId {
        self.header.id
    }

    /// The stored name of its type.
    #[must_use]
    pub const fn event_type(&self) -> &EventType {
        &self.header.event_type
    }

    /// The schema version it was written in.
    #[must_use]
    pub const fn schema_version(&self) -> SchemaVersion {
        self.header.schema_version
    }

    /// When the store recorded it.
    #[must_use]
    pub const fn recorded_at(&self) -> Timestamp {
        self.header.recorded_at
    }

    /// What is known about it.
    #[must_use]
    pub const fn metadata(&self) -> &EventMetadata {
        &self.header.metadata
    }
}

impl RecordedEvent<Payload> {
    /// What counts towards the size of an event and of a page: payload and metadata, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        size(&self.payload, &self.header.metadata)
    }

    /// The event as the user's type.
    ///
    /// # Errors
    /// [`DecodeError`] if the type is unknown to `E` or the payload does not fit.
    pub fn decode<E: Event>(self) -> Result<RecordedEvent<E>, DecodeError> {
        let payload = E::decode(&self.header.event_type, self.header.schema_version, &self.payload)?;
        Ok(RecordedEvent { header: self.header, payload })
    }

    /// The event as the user's type, beside its bytes.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub(crate) fn decoded<E: Event>(&self) -> Result<RecordedEvent<E>, DecodeError> {
        let payload = E::decode(&self.header.event_type, self.header.schema_version, &self.payload)?;
        Ok(RecordedEvent { header: self.header.clone(), payload })
    }
}

fn size(payload: &Payload, metadata: &EventMetadata) -> usize {
    payload.bytes().len() + if metadata.is_empty() { 0 } else { metadata.as_json().len() }
}
