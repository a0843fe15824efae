//! Versions, aliases and upcasters.

use super::{cause, decode, json};
use eventcore::{DecodeError, Event};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::error::Error as _;

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum BankEvent {
    /// Version 1 was a bare number of euros, version 2 named it, version 3 counts cents.
    #[event(
        name = "MoneyIn",
        version = 3,
        alias = "bank.Deposit",
        upcast(from = 2, with = upcasters::cents),
        upcast(from = 1, with = Self::named)
    )]
    Deposited { cents: u64, history: Vec<String> },
    #[event(version = 4, upcast(from = 3, with = upcasters::noted))]
    Noted,
    #[event(version = 2)]
    Plain { a: u8 },
}

impl BankEvent {
    fn named(old: Value) -> Result<Value, String> {
        match old {
            Value::Number(euros) => Ok(json!({ "euros": euros, "history": ["named"] })),
            other => Err(format!("{other} is no number")),
        }
    }
}

mod upcasters {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no euros in it")]
    pub(super) struct NoEuros;

    pub(super) fn cents(mut old: Value) -> Result<Value, NoEuros> {
        let euros = old.get("euros").and_then(Value::as_u64).ok_or(NoEuros)?;
        old["cents"] = json!(euros * 100);
        if let Some(history) = old.get_mut("history").and_then(Value::as_array_mut) {
            history.push("cents".into());
        }
        Ok(old)
    }

    pub(super) fn noted(_: Value) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Ok(json!({}))
    }
}

fn deposited(cents: u64, history: &[&str]) -> BankEvent {
    BankEvent::Deposited { cents, history: history.iter().map(ToString::to_string).collect() }
}

#[test]
fn older_versions_go_through_every_step_in_order() {
    for name in ["bank.MoneyIn", "bank.Deposit"] {
        assert_eq!(decode::<BankEvent>(name, 1, "5").unwrap(), deposited(500, &["named", "cents"]));
        assert_eq!(decode::<BankEvent>(name, 2, r#"{"euros":5,"history":[]}"#).unwrap(), deposited(500, &["cents"]));
        assert_eq!(decode::<BankEvent>(name, 3, r#"{"cents":5,"history":[]}"#).unwrap(), deposited(5, &[]));
    }
    assert_eq!(json(&deposited(5, &[])), r#"{"cents":5,"history":[]}"#);
    assert_eq!(decode::<BankEvent>("bank.Noted", 3, "[1,2]").unwrap(), BankEvent::Noted);
}

#[test]
fn a_version_from_the_future_is_told_apart() {
    let error = decode::<BankEvent>("bank.Deposit", 4, "{}").unwrap_err();
    let DecodeError::NewerSchema { event_type, stored, known } = error else { panic!("{error:?}") };
    assert_eq!((event_type.as_str(), stored.get(), known.get()), ("bank.Deposit", 4, 3));
}

#[test]
fn a_version_that_no_upcaster_begins_with_is_told_apart() {
    for (name, version) in [("bank.Noted", 1), ("bank.Noted", 2), ("bank.Plain", 1)] {
        let error = decode::<BankEvent>(name, version, r#"{"a":1}"#).unwrap_err();
        let DecodeError::NoUpcaster { event_type, stored } = error else { panic!("{error:?}") };
        assert_eq!((event_type.as_str(), stored.get()), (name, version));
    }
}

#[test]
fn an_upcasters_error_is_the_cause() {
    let error = decode::<BankEvent>("bank.MoneyIn", 1, "true").unwrap_err();
    assert!(matches!(&error, DecodeError::Upcast { from, .. } if from.get() == 1), "{error:?}");
    assert_eq!(cause(&error), "true is no number");

    let error = decode::<BankEvent>("bank.MoneyIn", 2, "{}").unwrap_err();
    assert!(matches!(&error, DecodeError::Upcast { from, .. } if from.get() == 2), "{error:?}");
    assert!(error.source().unwrap().downcast_ref::<upcasters::NoEuros>().is_some());
}

#[test]
fn malformed_payloads_are_malformed_before_and_after_upcasting() {
    for payload in ["", "{", "5 5"] {
        let error = decode::<BankEvent>("bank.MoneyIn", 1, payload).unwrap_err();
        assert!(
            matches!(&error, DecodeError::Malformed { schema_version, .. } if schema_version.get() == 1),
            "{error:?}"
        );
    }
    let error = decode::<BankEvent>("bank.MoneyIn", 2, r#"{"euros":1}"#).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed { .. }), "{error:?}");
    assert!(cause(&error).contains("missing field `history`"), "{}", cause(&error));
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "bank", version = 2, upcast(from = 1, with = unwrap_list))]
struct Closed;

fn unwrap_list(old: Value) -> Result<Value, std::convert::Infallible> {
    Ok(old.get(0).cloned().unwrap_or_default())
}

#[test]
fn structs_are_upcast_too() {
    assert_eq!(decode::<Closed>("bank.Closed", 1, "[{}]").unwrap(), Closed);
    assert!(matches!(decode::<Closed>("bank.Closed", 2, "[{}]"), Err(DecodeError::Malformed { .. })));
}
