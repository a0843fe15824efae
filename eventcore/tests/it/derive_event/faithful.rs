//! Whatever is in an event comes back, to the last bit.

use super::{json, round_trip};
use eventcore::Event;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Unit,
    Newtype(String),
    Tuple(i8, Option<Box<Kind>>),
    Struct { of: Vec<Kind> },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Fields {
    integers: (i8, u16, i32, u64, i64),
    long: (u128, i128),
    float: f64,
    single: f32,
    letter: char,
    text: String,
    bytes: Vec<u8>,
    nested: Option<Option<Vec<Option<bool>>>>,
    map: BTreeMap<String, Option<Kind>>,
    by_number: BTreeMap<i64, char>,
    unit: (),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "f")]
enum Faithful {
    Newtype(Fields),
    Tuple(Kind, f64, String, i128),
    Struct { id: u64, fields: Fields, kind: Option<Kind> },
    Text(String),
}

/// Any text, often with what breaks careless code.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        proptest::collection::vec(any::<char>(), 0..8).prop_map(|chars| chars.into_iter().collect()),
        proptest::collection::vec(
            prop_oneof![
                Just('\0'),
                Just('"'),
                Just('\\'),
                Just('\u{1b}'),
                Just('\u{7f}'),
                Just('\u{2028}'),
                Just('🦀')
            ],
            0..6
        )
        .prop_map(|chars| chars.into_iter().collect()),
    ]
}

fn float() -> impl Strategy<Value = f64> {
    use proptest::num::f64::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    prop_oneof![
        NORMAL | SUBNORMAL | ZERO | POSITIVE | NEGATIVE,
        prop_oneof![Just(-0.0), Just(f64::MAX), Just(f64::MIN_POSITIVE), Just(0.1 + 0.2), Just(1e23), Just(5e-324)],
    ]
}

fn single() -> impl Strategy<Value = f32> {
    use proptest::num::f32::{NEGATIVE, NORMAL, POSITIVE, SUBNORMAL, ZERO};
    NORMAL | SUBNORMAL | ZERO | POSITIVE | NEGATIVE
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![Just(Kind::Unit), text().prop_map(Kind::Newtype)];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (any::<i8>(), proptest::option::of(inner.clone()))
                .prop_map(|(number, kind)| Kind::Tuple(number, kind.map(Box::new))),
            proptest::collection::vec(inner, 0..3).prop_map(|of| Kind::Struct { of }),
        ]
    })
}

fn integer<T: Arbitrary + Copy + std::fmt::Debug>(edges: [T; 2]) -> impl Strategy<Value = T>
where
    T::Strategy: 'static,
{
    prop_oneof![any::<T>(), Just(edges[0]), Just(edges[1])]
}

fn fields() -> impl Strategy<Value = Fields> {
    let numbers = (
        (any::<i8>(), any::<u16>(), any::<i32>(), integer([0, u64::MAX]), integer([i64::MIN, i64::MAX])),
        (integer([0, u128::MAX]), integer([i128::MIN, i128::MAX])),
        float(),
        single(),
    );
    // JSON has one `null`: `Some(None)` would come back as `None`, as serde documents it.
    let nested =
        proptest::option::of(proptest::collection::vec(any::<Option<bool>>(), 0..3)).prop_map(|some| some.map(Some));
    let rest = (
        any::<char>(),
        text(),
        any::<Vec<u8>>(),
        nested,
        proptest::collection::btree_map(text(), proptest::option::of(kind()), 0..4),
        proptest::collection::btree_map(any::<i64>(), any::<char>(), 0..4),
    );
    (numbers, rest).prop_map(|((integers, long, float, single), (letter, text, bytes, nested, map, by_number))| {
        Fields { integers, long, float, single, letter, text, bytes, nested, map, by_number, unit: () }
    })
}

fn event() -> impl Strategy<Value = Faithful> {
    prop_oneof![
        fields().prop_map(Faithful::Newtype),
        (kind(), float(), text(), any::<i128>()).prop_map(|(kind, f, text, i)| Faithful::Tuple(kind, f, text, i)),
        (any::<u64>(), fields(), proptest::option::of(kind())).prop_map(|(id, fields, kind)| Faithful::Struct {
            id,
            fields,
            kind
        }),
        text().prop_map(Faithful::Text),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_read_is_what_was_written(event in event()) {
        let read = round_trip(&event);
        prop_assert_eq!(&read, &event);
        // Equal floats need not be the same: the text tells -0.0 from 0.0.
        prop_assert_eq!(json(&read), json(&event));
    }

    /// The payload is what serde writes for the variant, without the variant around it.
    #[test]
    fn the_payload_is_serdes_content_of_the_variant(event in event()) {
        let whole = serde_json::to_string(&event).unwrap();
        let name = event.event_type();
        let variant = name.as_str().strip_prefix("f.").unwrap();
        prop_assert_eq!(format!(r#"{{"{variant}":{}}}"#, json(&event)), whole);
    }

    /// Any bytes under any type: an error or an event, never a panic, and an event that is read is written alike again.
    #[test]
    fn any_bytes_are_an_error_or_an_event(bytes in proptest::collection::vec(any::<u8>(), 0..40), json_like in "[\\[\\]{}\",:0-9a-z ]{0,20}") {
        use eventcore::{EventType, Payload, SchemaVersion};
        for bytes in [bytes, json_like.into_bytes()] {
            for info in Faithful::event_types() {
                let payload = Payload::json(bytes.clone());
                let name = EventType::new(info.name.as_str()).unwrap();
                if let Ok(event) = Faithful::decode(&name, SchemaVersion::default(), &payload) {
                    prop_assert_eq!(round_trip(&event), event);
                }
            }
        }
    }
}
