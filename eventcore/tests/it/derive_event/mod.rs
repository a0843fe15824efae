//! `#[derive(Event)]`: what is stored, and that it is read back.

mod evolution;
mod faithful;
mod nesting;
mod refusals;
mod serde_attributes;
mod shapes;

use eventcore::{DecodeError, Event, EventType, Payload, SchemaVersion};

/// The payload of `event` as text.
fn json<E: Event>(event: &E) -> String {
    String::from_utf8(event.encode().unwrap().bytes().to_vec()).unwrap()
}

fn decode<E: Event>(event_type: &str, version: u32, payload: &str) -> Result<E, DecodeError> {
    let payload = Payload::json(payload.as_bytes().to_vec());
    E::decode(&EventType::new(event_type).unwrap(), SchemaVersion::try_new(version).unwrap(), &payload)
}

/// `event` after it was written and read again.
fn round_trip<E: Event>(event: &E) -> E {
    E::decode(&event.event_type(), event.schema_version(), &event.encode().unwrap()).unwrap()
}

/// The message of `error`'s cause.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().unwrap().to_string()
}
