//! What cannot be encoded or decoded is an error that says why.

use super::{cause, decode, round_trip};
use eventcore::{DecodeError, Event, EventType, Payload, SchemaVersion};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "x")]
enum Simple {
    Unit,
    Newtype(u8),
    Tuple(u8, u8),
    Struct { a: u8 },
}

#[test]
fn malformed_payloads_are_refused_with_their_cause() {
    let cases = [
        ("x.Unit", "", "EOF"),
        ("x.Unit", "null", "an object, as an event without fields is stored"),
        ("x.Unit", "[]", "an object"),
        ("x.Unit", "{} {}", "trailing characters"),
        ("x.Unit", r#"{"a":}"#, "expected value"),
        ("x.Newtype", "256", "expected u8"),
        ("x.Newtype", "1,", "trailing characters"),
        ("x.Tuple", "[1]", "invalid length 1"),
        ("x.Tuple", "[1,2,3]", "trailing characters"),
        ("x.Tuple", r#"{"0":1}"#, "invalid type: map"),
        ("x.Struct", "{}", "missing field `a`"),
        ("x.Struct", r#"{"a":1,"a":2}"#, "duplicate field `a`"),
        ("x.Struct", r#"{"a":1}}"#, "trailing characters"),
        ("x.Struct", r#"{"Struct":{"a":1}}"#, "missing field `a`"),
    ];
    for (name, payload, expected) in cases {
        let error = decode::<Simple>(name, 1, payload).unwrap_err();
        assert!(
            matches!(&error, DecodeError::Malformed { event_type, .. } if event_type.as_str() == name),
            "{error:?}"
        );
        assert!(cause(&error).contains(expected), "{name} {payload}: {}", cause(&error));
    }
}

#[test]
fn a_payload_that_is_not_utf8_is_refused() {
    #[derive(Debug, Serialize, Deserialize, Event)]
    #[event(namespace = "x")]
    struct Text(String);
    let payload = Payload::json(&b"\"\xff\""[..]);
    let error = Text::decode(&EventType::new("x.Text").unwrap(), SchemaVersion::default(), &payload).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed { .. }), "{error:?}");
}

#[test]
fn a_payload_that_is_not_utf8_is_refused_also_in_a_field_that_is_ignored() {
    #[derive(Debug, Serialize, Deserialize, Event)]
    #[event(namespace = "x")]
    struct Amount {
        cents: u64,
    }
    let decode = |text: &[u8]| {
        let payload = Payload::json([b"{\"cents\":5,\"old\":\"", text, b"\"}"].concat());
        Amount::decode(&EventType::new("x.Amount").unwrap(), SchemaVersion::default(), &payload)
    };
    assert_eq!(decode(b"-").unwrap().cents, 5);
    let error = decode(b"\xff").unwrap_err();
    assert!(matches!(error, DecodeError::Malformed { .. }), "{error:?}");
}

#[test]
fn a_binary_payload_is_refused_even_if_it_looks_like_json() {
    let payload = Payload::binary(&b"{}"[..]);
    let error = Simple::decode(&EventType::new("x.Unit").unwrap(), SchemaVersion::default(), &payload).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed { .. }), "{error:?}");
    assert_eq!(cause(&error), "the payload is application/octet-stream, this event is stored as application/json");
}

#[test]
fn an_unknown_type_is_told_apart() {
    for name in ["x.unit", "x", "Unit", "y.Unit"] {
        let error = decode::<Simple>(name, 1, "{}").unwrap_err();
        assert!(matches!(&error, DecodeError::UnknownType { event_type } if event_type.as_str() == name), "{error:?}");
    }
}

/// Writes and reads something that is no variant.
#[derive(Debug, Event)]
#[event(namespace = "x")]
enum NoVariant {
    Text,
    Map,
    Seq,
    Some,
    Other,
    Fails,
}

impl Serialize for NoVariant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text => serializer.serialize_str("Text"),
            Self::Map => BTreeMap::from([("Map", 1)]).serialize(serializer),
            Self::Seq => [1].serialize(serializer),
            Self::Some => Some(1).serialize(serializer),
            Self::Other => serializer.serialize_unit_variant("NoVariant", 0, "Text"),
            Self::Fails => Err(serde::ser::Error::custom("it is locked")),
        }
    }
}

impl<'de> Deserialize<'de> for NoVariant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|_| Self::Text)
    }
}

#[test]
fn serde_by_hand_that_writes_no_variant_is_an_error() {
    let no_variant = "`Serialize` of the event did not write an enum variant; derive it";
    let cases = [
        (NoVariant::Text, no_variant),
        (NoVariant::Map, no_variant),
        (NoVariant::Seq, no_variant),
        (NoVariant::Some, no_variant),
        (NoVariant::Other, "`Serialize` wrote the variant Text (number 0) for the variant number 4"),
        (NoVariant::Fails, "it is locked"),
    ];
    for (event, expected) in cases {
        let error = event.encode().unwrap_err();
        assert_eq!(error.event_type, event.event_type());
        assert_eq!(cause(&error), expected);
    }
    let error = decode::<NoVariant>("x.Text", 1, r#""Text""#).unwrap_err();
    assert_eq!(cause(&error), "`Deserialize` of the event did not ask for an enum; derive it");
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "x")]
enum Lossy {
    Float(f64),
    Single { value: Option<f32> },
    Deep(Level),
    Keys(BTreeMap<Key, u8>),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key(u8, u8);

/// Nests through every kind of value that JSON writes as an array or object.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Level {
    Bottom,
    Bare(f64),
    Newtype(Box<Level>),
    Tuple(u8, Box<Level>),
    Struct { within: Box<Level> },
    Seq(Vec<Level>),
    Map(BTreeMap<String, Level>),
    Some(Option<Box<Level>>),
}

#[test]
fn floats_that_json_has_no_number_for_are_refused_wherever_they_stand() {
    let nan = || Box::new(Level::Bare(f64::NAN));
    let cases = [
        (Lossy::Float(f64::NAN), "NaN"),
        (Lossy::Float(f64::NEG_INFINITY), "-inf"),
        (Lossy::Single { value: Some(f32::INFINITY) }, "inf"),
        (Lossy::Deep(Level::Newtype(nan())), "NaN"),
        (Lossy::Deep(Level::Tuple(1, nan())), "NaN"),
        (Lossy::Deep(Level::Struct { within: nan() }), "NaN"),
        (Lossy::Deep(Level::Seq(vec![Level::Bottom, *nan()])), "NaN"),
        (Lossy::Deep(Level::Map(BTreeMap::from([("k".into(), *nan())]))), "NaN"),
        (Lossy::Deep(Level::Some(Some(nan()))), "NaN"),
    ];
    for (event, value) in cases {
        let error = event.encode().unwrap_err();
        assert_eq!(cause(&error), format!("JSON has no number for {value}, and `null` could not be read again as one"));
    }
    let fine = Lossy::Single { value: None };
    assert_eq!(round_trip(&fine), fine);
}

#[test]
fn keys_that_json_cannot_hold_are_refused() {
    let error = Lossy::Keys(BTreeMap::from([(Key(1, 2), 3)])).encode().unwrap_err();
    assert_eq!(cause(&error), "key must be a string");
}

/// Exactly what is encoded can be decoded: the deepest payload is read again, one level more is refused.
#[test]
fn nesting_ends_where_reading_ends() {
    type Wrap = fn(Level) -> Level;
    // With the levels of JSON that one step takes.
    let steps: [(Wrap, usize); 6] = [
        (|level| Level::Newtype(Box::new(level)), 1),
        (|level| Level::Tuple(1, Box::new(level)), 2),
        (|level| Level::Struct { within: Box::new(level) }, 2),
        (|level| Level::Seq(vec![level]), 2),
        (|level| Level::Map(BTreeMap::from([("k".into(), level)])), 2),
        (|level| Level::Some(Some(Box::new(level))), 1),
    ];
    for (wrap, levels) in steps {
        let deep = |count: usize| (0..count).fold(Level::Bottom, |level, _| wrap(level));
        let most = 127 / levels;
        let event = Lossy::Deep(deep(most));
        assert_eq!(round_trip(&event), event);
        let error = Lossy::Deep(deep(most + 1)).encode().unwrap_err();
        assert_eq!(cause(&error), "it is nested deeper than 127 levels, which could not be read again");
    }
}
