//! Serde attributes count as the user wrote them.

use super::{cause, decode, json, round_trip};
use eventcore::{DecodeError, Event};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A number as a string of hexadecimal digits.
mod hex {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{value:x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        u32::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
    }
}

/// A variant's two fields as one string.
mod joined {
    use super::*;

    pub(super) fn serialize<S: Serializer>(from: &str, to: &str, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{from}>{to}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(String, String), D::Error> {
        let text = String::deserialize(deserializer)?;
        let (from, to) = text.split_once('>').ok_or_else(|| serde::de::Error::custom("no > in it"))?;
        Ok((from.to_owned(), to.to_owned()))
    }
}

/// Serialized, but not as the type of the field says.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn forty_two() -> u32 {
    42
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    city: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "is", rename_all = "snake_case")]
enum Adjacent {
    FirstKind(u8),
    #[serde(other)]
    SecondKind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "s")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", rename_all_fields = "camelCase", bound = "", expecting = "an event")]
enum Attributes {
    FieldsRenamed {
        long_name: u8,
        #[serde(rename = "x-y")]
        other: u8,
    },
    #[serde(rename_all = "kebab-case")]
    OwnRule {
        long_name: u8,
    },
    #[serde(rename = "quite.something", alias = "else")]
    VariantRenamed {
        a: u8,
    },
    Aliased {
        #[serde(alias = "b", alias = "c")]
        a: u8,
    },
    Defaulted {
        #[serde(default)]
        zero: u32,
        #[serde(default = "forty_two")]
        answer: u32,
        optional: Option<u8>,
    },
    Skipping {
        #[serde(default, skip_serializing_if = "is_zero")]
        count: u32,
        #[serde(skip)]
        cache: u32,
        #[serde(skip_serializing, default = "forty_two")]
        read_only: u32,
    },
    Flattened {
        #[serde(flatten)]
        address: Address,
        at: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    },
    With {
        #[serde(with = "hex")]
        id: u32,
    },
    NewtypeWith(#[serde(with = "hex")] u32),
    TupleWith(#[serde(with = "hex")] u32, #[serde(skip)] u8, u8),
    NewtypeSkipped(#[serde(skip)] u8),
    #[serde(with = "joined")]
    WholeWith {
        from: String,
        to: String,
    },
    Inner {
        adjacent: Adjacent,
        untagged: Vec<Untagged>,
    },
    Owned(Cow<'static, str>),
    Boxed(Box<Address>),
}

#[test]
fn payloads_are_what_serde_writes_for_the_fields() {
    use Attributes as A;
    let address = || Address { street: "s".into(), city: None };
    let cases = [
        (A::FieldsRenamed { long_name: 1, other: 2 }, r#"{"longName":1,"x-y":2}"#),
        (A::OwnRule { long_name: 1 }, r#"{"long-name":1}"#),
        (A::VariantRenamed { a: 1 }, r#"{"a":1}"#),
        (A::Aliased { a: 1 }, r#"{"a":1}"#),
        (A::Defaulted { zero: 1, answer: 2, optional: None }, r#"{"zero":1,"answer":2,"optional":null}"#),
        (A::Skipping { count: 0, cache: 0, read_only: 42 }, "{}"),
        (A::Skipping { count: 3, cache: 0, read_only: 42 }, r#"{"count":3}"#),
        (
            A::Flattened { address: address(), at: 1, rest: BTreeMap::from([("k".into(), serde_json::json!([1]))]) },
            r#"{"street":"s","at":1,"k":[1]}"#,
        ),
        (A::With { id: 255 }, r#"{"id":"ff"}"#),
        (A::NewtypeWith(255), r#""ff""#),
        (A::TupleWith(255, 0, 1), r#"["ff",1]"#),
        (A::NewtypeSkipped(0), "{}"),
        (A::WholeWith { from: "a".into(), to: "b".into() }, r#""a>b""#),
        (
            A::Inner {
                adjacent: Adjacent::FirstKind(1),
                untagged: vec![Untagged::Number(-1), Untagged::Text("t".into())],
            },
            r#"{"adjacent":{"type":"first_kind","is":1},"untagged":[-1,"t"]}"#,
        ),
        (A::Owned("b".into()), r#""b""#),
        (A::Boxed(Box::new(Address { street: "s".into(), city: Some("c".into()) })), r#"{"street":"s","city":"c"}"#),
    ];
    for (event, payload) in cases {
        assert_eq!(json(&event), payload);
        assert_eq!(round_trip(&event), event);
    }
}

#[test]
fn stored_names_come_from_the_event_attributes_alone() {
    assert_eq!(Attributes::VariantRenamed { a: 1 }.event_type().as_str(), "s.VariantRenamed");
    assert_eq!(decode::<Attributes>("s.VariantRenamed", 1, r#"{"a":1}"#).unwrap(), Attributes::VariantRenamed { a: 1 });
    assert!(matches!(decode::<Attributes>("s.else", 1, "{}"), Err(DecodeError::UnknownType { .. })));
}

#[test]
fn what_only_reading_heeds_is_heeded() {
    let read = |name: &str, payload: &str| decode::<Attributes>(&format!("s.{name}"), 1, payload).unwrap();
    assert_eq!(read("Aliased", r#"{"c":9}"#), Attributes::Aliased { a: 9 });
    assert_eq!(read("Defaulted", "{}"), Attributes::Defaulted { zero: 0, answer: 42, optional: None });
    assert_eq!(
        read("Skipping", r#"{"read_only":1,"readOnly":2}"#),
        Attributes::Skipping { count: 0, cache: 0, read_only: 2 }
    );
    // Fields that nobody asks for are ignored, those of a variant without fields too.
    assert_eq!(read("OwnRule", r#"{"long-name":1,"gone":[{}]}"#), Attributes::OwnRule { long_name: 1 });
    assert_eq!(read("NewtypeSkipped", r#"{"gone":{"a":[1,2]}, "too": null}"#), Attributes::NewtypeSkipped(0));
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "strict")]
#[serde(deny_unknown_fields)]
enum Strict {
    Fields { a: u8 },
    Nothing,
}

#[test]
fn unknown_fields_are_denied_where_the_enum_says_so() {
    for (name, payload) in [("strict.Fields", r#"{"a":1,"b":2}"#), ("strict.Nothing", r#"{"b":2}"#)] {
        let error = decode::<Strict>(name, 1, payload).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }), "{error:?}");
        assert!(cause(&error).contains("unknown field `b`"), "{}", cause(&error));
    }
    assert_eq!(decode::<Strict>("strict.Nothing", 1, " {\n} ").unwrap(), Strict::Nothing);
}
