//! What the code of `#[derive(Event)]` stands on: stored names, versions and upcasting.

use super::buffer::with_buffer;
use super::variant::Codec;
use crate::{ContentType, DecodeError, EncodeError, EventType, EventTypeInfo, Payload, SchemaVersion, SharedError};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::error::Error as StdError;
use std::sync::OnceLock;
use thiserror::Error;

/// An event type that a derived event stores. One static for each, so that a name is validated once.
#[derive(Debug)]
pub struct StoredType {
    name: &'static str,
    version: u32,
    aliases: &'static [&'static str],
    event_type: OnceLock<EventType>,
}

/// One step of upcasting: from a version to the next.
#[derive(Debug, Clone, Copy)]
pub struct Upcaster {
    /// The version it begins with.
    pub from: u32,
    /// Makes a payload of the next version.
    pub apply: fn(Value) -> Result<Value, Box<dyn StdError + Send + Sync>>,
}

impl StoredType {
    /// The derive has checked names and version.
    #[must_use]
    pub const fn new(name: &'static str, version: u32, aliases: &'static [&'static str]) -> Self {
        Self { name, version, aliases, event_type: OnceLock::new() }
    }

    /// The stored name.
    pub fn event_type(&self) -> EventType {
        self.event_type.get_or_init(|| checked_name(self.name)).clone()
    }

    /// The version that is written.
    pub fn schema_version(&self) -> SchemaVersion {
        SchemaVersion::try_new(self.version).unwrap_or_default()
    }

    /// The payload of `event`.
    pub fn encode<E: Serialize>(&self, codec: impl Codec, event: &E) -> Result<Payload, EncodeError> {
        // Written where there is room already, and copied once its size is known: one allocation, exactly as large.
        with_buffer(|buffer| match codec.encode(event, buffer) {
            Ok(()) => Ok(Payload::json(Bytes::copy_from_slice(buffer))),
            Err(error) => Err(EncodeError::new(self.event_type(), error)),
        })
    }

    /// The event whose payload was stored under `event_type`, the name or an alias.
    pub fn decode<E: DeserializeOwned>(
        &self,
        codec: impl Codec,
        upcasters: &[Upcaster],
        event_type: &EventType,
        schema_version: SchemaVersion,
        payload: &Payload,
    ) -> Result<E, DecodeError> {
        let malformed = |error| DecodeError::malformed(event_type, schema_version, error);
        if payload.content_type() != ContentType::Json {
            return Err(DecodeError::malformed(event_type, schema_version, NotJson(payload.content_type())));
        }
        let stored = schema_version.get();
        if stored == self.version {
            return codec.decode(payload.bytes()).map_err(malformed);
        }
        if stored > self.version {
            let known = self.schema_version();
            return Err(DecodeError::NewerSchema { event_type: event_type.clone(), stored: schema_version, known });
        }
        // Steps are looked for before the first is taken: what cannot arrive does not set out.
        let steps = (stored..self.version).map(|from| upcasters.iter().find(|upcaster| upcaster.from == from));
        let Some(steps) = steps.collect::<Option<Vec<_>>>() else {
            return Err(DecodeError::NoUpcaster { event_type: event_type.clone(), stored: schema_version });
        };
        let mut value = serde_json::from_slice(payload.bytes()).map_err(malformed)?;
        for step in steps {
            value = (step.apply)(value).map_err(|error| DecodeError::Upcast {
                event_type: event_type.clone(),
                from: SchemaVersion::try_new(step.from).unwrap_or_default(),
                source: SharedError::new(error),
            })?;
        }
        let upcast = serde_json::to_vec(&value).map_err(malformed)?;
        codec.decode(&upcast).map_err(malformed)
    }

    fn info(&self) -> EventTypeInfo {
        EventTypeInfo {
            name: self.event_type(),
            schema_version: self.schema_version(),
            aliases: self.aliases.iter().map(|alias| checked_name(alias)).collect(),
        }
    }
}

/// The event types of an event: its own and those of nested events.
#[must_use]
pub fn event_types(own: &[&StoredType], nested: &[fn() -> Vec<EventTypeInfo>]) -> Vec<EventTypeInfo> {
    let own = own.iter().map(|stored| stored.info());
    own.chain(nested.iter().flat_map(|event_types| event_types())).collect()
}

/// The error for a name that no variant has.
#[must_use]
pub fn unknown_type(event_type: &EventType) -> DecodeError {
    DecodeError::UnknownType { event_type: event_type.clone() }
}

fn checked_name(name: &'static str) -> EventType {
    EventType::of_program(name).unwrap_or_else(|_| unreachable!("the derive checks names by the same rule"))
}

#[derive(Debug, Error)]
#[error("the payload is {}, this event is stored as {}", .0.as_str(), ContentType::Json.as_str())]
struct NotJson(ContentType);

/// An event whose stored names are known at compile time, so that it can stand in a `#[event(nested)]` variant.
///
/// `#[derive(Event)]` implements it. Two variants of an enum whose stored names overlap do not compile. Implement it by
/// hand for an event that implements [`Event`](crate::Event) by hand.
///
/// ```
/// # use eventcore::{DecodeError, EncodeError, EventType, EventTypeInfo, Payload, SchemaVersion};
/// use eventcore::{Event, EventNames, NestedEvent};
///
/// struct Measured(u8);
///
/// impl Event for Measured {
///     // Stores "sensor.Measured" as binary.
/// #    fn event_types() -> Vec<EventTypeInfo> {
/// #        Vec::new()
/// #    }
/// #    fn event_type(&self) -> EventType {
/// #        EventType::new("sensor.Measured").unwrap()
/// #    }
/// #    fn schema_version(&self) -> SchemaVersion {
/// #        SchemaVersion::default()
/// #    }
/// #    fn encode(&self) -> Result<Payload, EncodeError> {
/// #        Ok(Payload::binary(vec![self.0]))
/// #    }
/// #    fn decode(event_type: &EventType, _: SchemaVersion, _: &Payload) -> Result<Self, DecodeError> {
/// #        Err(DecodeError::UnknownType { event_type: event_type.clone() })
/// #    }
/// }
///
/// impl NestedEvent for Measured {
///     const NAMES: EventNames = EventNames::new(&["sensor.Measured"]);
/// }
///
/// #[derive(Event)]
/// enum PlantEvent {
///     #[event(nested)]
///     Sensor(Measured),
/// }
/// # let _ = PlantEvent::Sensor(Measured(1));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand in a nested variant: it is no event whose names are known at compile time",
    label = "not a nested event",
    note = "add `#[derive(Event)]` to `{Self}`; an event with an `Event` impl by hand needs `NestedEvent` as well"
)]
pub trait NestedEvent: crate::Event {
    /// Every name that [`decode`](crate::Event::decode) understands, aliases included.
    const NAMES: EventNames;
}

/// Stored names of an event, known at compile time.
#[derive(Debug, Clone, Copy)]
pub struct EventNames {
    #[doc(hidden)]
    pub own: &'static [&'static str],
    #[doc(hidden)]
    pub nested: &'static [&'static EventNames],
}

impl EventNames {
    /// The names of an event that nests no others.
    #[must_use]
    pub const fn new(names: &'static [&'static str]) -> Self {
        Self { own: names, nested: &[] }
    }

    /// Whether `self` and `other` have no name in common.
    #[must_use]
    pub const fn are_disjoint(&self, other: &Self) -> bool {
        let mut rest = self.own;
        while let [name, tail @ ..] = rest {
            if other.contains(name) {
                return false;
            }
            rest = tail;
        }
        let mut rest = self.nested;
        while let [names, tail @ ..] = rest {
            if !names.are_disjoint(other) {
                return false;
            }
            rest = tail;
        }
        true
    }

    /// Whether `name` is among the names.
    #[must_use]
    pub const fn contains(&self, name: &str) -> bool {
        let mut rest = self.own;
        while let [own, tail @ ..] = rest {
            if same(own.as_bytes(), name.as_bytes()) {
                return true;
            }
            rest = tail;
        }
        let mut rest = self.nested;
        while let [names, tail @ ..] = rest {
            if names.contains(name) {
                return true;
            }
            rest = tail;
        }
        false
    }
}

/// From the end, since names of one namespace begin alike: this runs in the compiler, once for each pair.
const fn same(mut left: &[u8], mut right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    while let ([left_rest @ .., left_last], [right_rest @ .., right_last]) = (left, right) {
        if *left_last != *right_last {
            return false;
        }
        (left, right) = (left_rest, right_rest);
    }
    true
}
