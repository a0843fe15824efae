//! Enums composed of enums.

use super::{decode, json, round_trip};
use eventcore::{
    DecodeError, EncodeError, Event, EventNames, EventType, EventTypeInfo, NestedEvent, Payload, SchemaVersion,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "account")]
enum AccountEvent {
    Opened {
        owner: String,
    },
    #[event(version = 2, alias = "old.Closed")]
    Closed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "card")]
struct CardIssued {
    number: u64,
}

/// An event by hand, of one byte.
#[derive(Debug, Clone, PartialEq)]
struct Measured(u8);

impl Event for Measured {
    fn event_types() -> Vec<EventTypeInfo> {
        let schema_version = SchemaVersion::default();
        vec![EventTypeInfo { name: EventType::new("sensor.Measured").unwrap(), schema_version, aliases: Vec::new() }]
    }

    fn event_type(&self) -> EventType {
        EventType::new("sensor.Measured").unwrap()
    }

    fn schema_version(&self) -> SchemaVersion {
        SchemaVersion::default()
    }

    fn encode(&self) -> Result<Payload, EncodeError> {
        Ok(Payload::binary(vec![self.0]))
    }

    fn decode(event_type: &EventType, version: SchemaVersion, payload: &Payload) -> Result<Self, DecodeError> {
        match (event_type.as_str(), payload.bytes().as_ref()) {
            ("sensor.Measured", [byte]) => Ok(Self(*byte)),
            ("sensor.Measured", _) => Err(DecodeError::malformed(event_type, version, "it is one byte")),
            _ => Err(DecodeError::UnknownType { event_type: event_type.clone() }),
        }
    }
}

impl NestedEvent for Measured {
    const NAMES: EventNames = EventNames::new(&["sensor.Measured"]);
}

/// Needs no namespace and no serde, since nothing is stored under a name of its own.
#[derive(Debug, Clone, PartialEq, Event)]
enum Composed {
    #[event(nested)]
    Account(AccountEvent),
    #[event(nested)]
    Card(CardIssued),
    #[event(nested)]
    Sensor(Measured),
}

/// Nests two levels, between variants of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "app")]
enum Mixed {
    Started,
    #[event(nested)]
    Account(AccountEvent),
    Stopped {
        why: String,
    },
    #[event(nested)]
    Card(CardIssued),
    Paused(u8),
}

#[test]
fn a_nested_event_is_stored_as_it_is_on_its_own() {
    let inner = AccountEvent::Opened { owner: "al".into() };
    let outer = Composed::Account(inner.clone());
    assert_eq!(outer.event_type(), inner.event_type());
    assert_eq!(outer.encode().unwrap(), inner.encode().unwrap());
    assert_eq!(Composed::Account(AccountEvent::Closed).schema_version().get(), 2);
    assert_eq!(round_trip(&outer), outer);
    for event in [Composed::Card(CardIssued { number: 1 }), Composed::Sensor(Measured(7))] {
        assert_eq!(round_trip(&event), event);
    }
    assert_eq!(decode::<Composed>("old.Closed", 2, "{}").unwrap(), Composed::Account(AccountEvent::Closed));
}

#[test]
fn own_variants_beside_nested_ones_keep_their_payloads() {
    let cases = [
        (Mixed::Started, "app.Started", "{}"),
        (Mixed::Stopped { why: "w".into() }, "app.Stopped", r#"{"why":"w"}"#),
        (Mixed::Paused(3), "app.Paused", "3"),
        (Mixed::Card(CardIssued { number: 9 }), "card.CardIssued", r#"{"number":9}"#),
    ];
    for (event, name, payload) in cases {
        assert_eq!((event.event_type().as_str(), json(&event).as_str()), (name, payload));
        assert_eq!(round_trip(&event), event);
    }
}

#[test]
fn event_types_and_names_hold_those_of_nested_events() {
    let names: Vec<_> = Composed::event_types().into_iter().map(|info| info.name.to_string()).collect();
    assert_eq!(names, ["account.Opened", "account.Closed", "card.CardIssued", "sensor.Measured"]);
    for name in names.iter().map(String::as_str).chain(["old.Closed"]) {
        assert!(Composed::NAMES.contains(name), "{name}");
    }
    assert!(!Composed::NAMES.contains("app.Started"));
}

#[test]
fn errors_of_a_nested_event_come_through() {
    assert!(matches!(decode::<Composed>("card.CardIssued", 1, "[]"), Err(DecodeError::Malformed { .. })));
    assert!(matches!(decode::<Composed>("sensor.Measured", 1, "12"), Err(DecodeError::Malformed { .. })));
    assert!(matches!(decode::<Mixed>("account.Closed", 3, "{}"), Err(DecodeError::NewerSchema { .. })));
    let error = decode::<Composed>("app.Started", 1, "{}").unwrap_err();
    assert!(
        matches!(&error, DecodeError::UnknownType { event_type } if event_type.as_str() == "app.Started"),
        "{error:?}"
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "generic")]
enum Generic<E> {
    Own,
    #[event(nested)]
    Inner(E),
    #[event(nested)]
    Card(CardIssued),
}

#[test]
fn a_generic_event_nests_its_argument() {
    let event = Generic::Inner(AccountEvent::Closed);
    assert_eq!(event.event_type().as_str(), "account.Closed");
    assert_eq!(round_trip(&event), event);
    assert_eq!(round_trip(&Generic::<AccountEvent>::Own), Generic::Own);
}

#[test]
fn names_are_compared_through_all_levels() {
    const INNER: EventNames = EventNames::new(&["a.X", "a.Y"]);
    const OUTER: EventNames = EventNames { own: &["b.X"], nested: &[&INNER] };
    assert!(!OUTER.are_disjoint(&EventNames::new(&["c", "a.Y"])));
    assert!(!EventNames::new(&["a.Y"]).are_disjoint(&OUTER));
    assert!(OUTER.are_disjoint(&EventNames::new(&["a.Z", "a.", "X", "c.X"])));
    assert!(OUTER.are_disjoint(&EventNames::new(&[])));
}
