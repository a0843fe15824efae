//! Names, versions and payloads of every shape of variant and struct.

use super::{decode, json, round_trip};
use eventcore::{Event, EventType, EventTypeInfo, SchemaVersion};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum BankEvent {
    Opened,
    OwnerNamed(String),
    Moved(u32, Option<String>),
    Deposited { cents: u64, note: Option<String> },
    Empty {},
    EmptyTuple(),
    r#Raw { r#type: u8 },
    Überwiesen(()),
}

fn all() -> Vec<(BankEvent, &'static str, &'static str)> {
    vec![
        (BankEvent::Opened, "bank.Opened", "{}"),
        (BankEvent::OwnerNamed("a\"b".into()), "bank.OwnerNamed", r#""a\"b""#),
        (BankEvent::Moved(7, None), "bank.Moved", "[7,null]"),
        (BankEvent::Deposited { cents: 5, note: Some("x".into()) }, "bank.Deposited", r#"{"cents":5,"note":"x"}"#),
        (BankEvent::Empty {}, "bank.Empty", "{}"),
        (BankEvent::EmptyTuple(), "bank.EmptyTuple", "[]"),
        (BankEvent::Raw { r#type: 1 }, "bank.Raw", r#"{"type":1}"#),
        (BankEvent::Überwiesen(()), "bank.Überwiesen", "null"),
    ]
}

#[test]
fn a_variant_is_stored_under_its_name_without_it_in_the_payload() {
    for (event, name, payload) in all() {
        assert_eq!(event.event_type().as_str(), name);
        assert_eq!(event.schema_version().get(), 1);
        assert_eq!(json(&event), payload);
        assert_eq!(round_trip(&event), event);
    }
}

#[test]
fn event_types_lists_every_variant_in_order() {
    let listed: Vec<_> = BankEvent::event_types().into_iter().map(|info| info.name.to_string()).collect();
    let expected: Vec<_> = all().into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(listed, expected);
}

#[test]
fn a_name_is_validated_once_and_shared() {
    let (one, other) = (BankEvent::Opened.event_type(), BankEvent::Opened.event_type());
    assert!(std::ptr::eq(one.as_str(), other.as_str()));
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "shop.orders")]
enum Named {
    #[event(name = "Placed", version = 3, alias = "legacy.OrderPlaced", alias = "OrderPlaced")]
    OrderWasPlaced { id: u8 },
    #[event(name = "line.Added")]
    LineAdded,
}

#[test]
fn attributes_give_name_version_and_aliases() {
    let placed = Named::OrderWasPlaced { id: 1 };
    assert_eq!(placed.event_type().as_str(), "shop.orders.Placed");
    assert_eq!(placed.schema_version().get(), 3);
    assert_eq!(Named::LineAdded.event_type().as_str(), "shop.orders.line.Added");
    let alias = |name| EventType::new(name).unwrap();
    assert_eq!(
        Named::event_types()[0],
        EventTypeInfo {
            name: alias("shop.orders.Placed"),
            schema_version: SchemaVersion::try_new(3).unwrap(),
            aliases: vec![alias("legacy.OrderPlaced"), alias("OrderPlaced")],
        }
    );
    for name in ["shop.orders.Placed", "legacy.OrderPlaced", "OrderPlaced"] {
        assert_eq!(decode::<Named>(name, 3, r#"{"id":1}"#).unwrap(), placed);
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank", name = "Opened", version = 2, alias = "bank.Created")]
struct AccountOpened {
    owner: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
struct Closed;

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
struct Renamed(String);

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
struct Moved(u8, bool);

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
#[serde(tag = "kind", rename_all = "camelCase")]
struct Tagged {
    some_field: u8,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
#[serde(try_from = "u8", into = "u8")]
struct Converted;

impl From<Converted> for u8 {
    fn from(_: Converted) -> Self {
        7
    }
}

impl TryFrom<u8> for Converted {
    type Error = String;

    fn try_from(value: u8) -> Result<Self, String> {
        if value == 7 { Ok(Self) } else { Err(format!("{value} is not 7")) }
    }
}

fn check_struct<E: Event + PartialEq + std::fmt::Debug>(event: E, name: &str, version: u32, payload: &str) {
    assert_eq!(event.event_type().as_str(), name);
    assert_eq!(event.schema_version().get(), version);
    assert_eq!(E::event_types().iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), [name]);
    assert_eq!(json(&event), payload);
    assert_eq!(round_trip(&event), event);
}

#[test]
fn a_struct_is_one_event_type() {
    check_struct(AccountOpened { owner: "al".into() }, "bank.Opened", 2, r#"{"owner":"al"}"#);
    check_struct(Closed, "bank.Closed", 1, "{}");
    check_struct(Renamed("x".into()), "bank.Renamed", 1, r#""x""#);
    check_struct(Moved(1, true), "bank.Moved", 1, "[1,true]");
    check_struct(Tagged { some_field: 1 }, "bank.Tagged", 1, r#"{"kind":"Tagged","someField":1}"#);
    check_struct(Converted, "bank.Converted", 1, "7");
    assert_eq!(decode::<AccountOpened>("bank.Created", 2, r#"{"owner":"b"}"#).unwrap().owner, "b");
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "generic")]
enum Generic<T, const N: usize>
where
    T: Clone,
{
    Held { value: T },
    Counted([T; 2]),
    Nothing,
}

#[test]
fn a_generic_event_is_stored_under_the_same_names_whatever_its_arguments() {
    let held = Generic::<u8, 3>::Held { value: 1 };
    assert_eq!(held.event_type().as_str(), "generic.Held");
    assert_eq!(round_trip(&held), held);
    let counted = Generic::<String, 0>::Counted(["a".into(), "b".into()]);
    assert_eq!(json(&counted), r#"["a","b"]"#);
    assert_eq!(round_trip(&counted), counted);
    assert_eq!(Generic::<u8, 3>::event_types(), Generic::<String, 0>::event_types());
}
