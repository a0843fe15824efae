//! Money, ids and what is stored of them.

use chrono::NaiveDate;
use eventcore::Event;
use eventcore_examples::bank::{AccountId, Balance, BankEvent, Booking, Money, Overdraft, Owner, TransferId};
use proptest::prelude::*;

proptest! {
    #[test]
    fn an_amount_is_read_as_it_is_shown(minor_units in 1..=i64::MAX as u64) {
        let amount = Money::try_new(minor_units).unwrap();
        prop_assert_eq!(amount.to_string().parse(), Ok(amount));
    }

    #[test]
    fn a_balance_is_read_as_it_is_shown(minor_units in -1_000_000_000_i64..=1_000_000_000) {
        let text = format!("{}{}.{:02}", if minor_units < 0 { "-" } else { "" }, minor_units.abs() / 100, minor_units.abs() % 100);
        let balance: Balance = text.parse().unwrap();
        prop_assert_eq!(balance.minor_units(), i128::from(minor_units));
        prop_assert_eq!(balance.to_string(), text);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in ".{0,40}") {
        let _ = (text.parse::<Money>(), text.parse::<Balance>());
        let id = text.parse::<AccountId>();
        prop_assert_eq!(id.is_ok(), (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
        prop_assert_eq!(text.parse::<TransferId>().is_ok(), id.is_ok());
    }

    #[test]
    fn an_owner_is_any_trimmed_text_without_control_characters(text in "\\PC{0,120}") {
        let fits = !text.is_empty() && text.chars().count() <= 100 && text.trim() == text;
        prop_assert_eq!(text.parse::<Owner>().is_ok(), fits);
    }
}

#[test]
fn decimals_may_be_left_out() {
    for (text, minor_units) in [("12", 1_200), ("12.5", 1_250), ("12.50", 1_250), ("0.01", 1), ("007.10", 710)] {
        assert_eq!(text.parse::<Money>().map(Money::minor_units), Ok(minor_units), "{text}");
    }
}

#[test]
fn what_is_no_amount_is_refused_with_the_text() {
    for text in ["", ".", "1.", ".5", "-1", "+1", "1,5", "1.234", "1e3", " 1", "1 ", "0x1", "١", "99999999999999999999"]
    {
        let error = text.parse::<Money>().unwrap_err().to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
    }
    assert_eq!("0".parse::<Money>().unwrap_err().to_string(), "Money: \"0\" is not an amount of more than nothing");
    assert!("92233720368547758.08".parse::<Money>().is_err(), "one more than a signed 64-bit number holds");
    assert!("92233720368547758.07".parse::<Money>().is_ok());
}

#[test]
fn a_long_text_is_shown_shortened() {
    let error = "x".repeat(100_000).parse::<Money>().unwrap_err().to_string();
    assert!(error.len() < 200, "{} bytes", error.len());
}

#[test]
fn an_overdraft_ends_at_its_limit() {
    let balance = |text: &str| text.parse::<Balance>().unwrap();
    assert!(Overdraft::None.allows(balance("0.00")));
    assert!(!Overdraft::None.allows(balance("-0.01")));
    let limit = Overdraft::UpTo("10.00".parse().unwrap());
    assert!(limit.allows(balance("-10.00")));
    assert!(!limit.allows(balance("-10.01")));
    assert!(Overdraft::Unlimited.allows(balance("-999999999.99")));
}

#[test]
fn events_are_stored_in_this_form_for_ever() {
    let booking = Booking::new("12.50".parse().unwrap(), NaiveDate::from_ymd_opt(1993, 1, 5).unwrap());
    let stored = [
        (
            BankEvent::AccountOpened { owner: None, overdraft: Overdraft::Unlimited },
            "bank.AccountOpened",
            r#"{"overdraft":"unlimited"}"#,
        ),
        (
            BankEvent::AccountOpened {
                owner: Some("Alice".parse().unwrap()),
                overdraft: Overdraft::UpTo("1.00".parse().unwrap()),
            },
            "bank.AccountOpened",
            r#"{"owner":"Alice","overdraft":{"up_to":100}}"#,
        ),
        (
            BankEvent::MoneyDeposited(booking.clone().text("UROK")),
            "bank.MoneyDeposited",
            r#"{"amount":1250,"booked_on":"1993-01-05","text":"UROK"}"#,
        ),
        (
            BankEvent::MoneyWithdrawn(booking.clone()),
            "bank.MoneyWithdrawn",
            r#"{"amount":1250,"booked_on":"1993-01-05"}"#,
        ),
        (
            BankEvent::TransferSent {
                transfer: "t1".parse().unwrap(),
                to: "bob".parse().unwrap(),
                booking: booking.clone(),
            },
            "bank.TransferSent",
            r#"{"transfer":"t1","to":"bob","booking":{"amount":1250,"booked_on":"1993-01-05"}}"#,
        ),
        (
            BankEvent::TransferReceived { transfer: "t1".parse().unwrap(), from: "alice".parse().unwrap(), booking },
            "bank.TransferReceived",
            r#"{"transfer":"t1","from":"alice","booking":{"amount":1250,"booked_on":"1993-01-05"}}"#,
        ),
    ];
    for (event, name, json) in stored {
        let payload = event.encode().unwrap();
        assert_eq!(event.event_type().as_str(), name);
        assert_eq!(std::str::from_utf8(payload.bytes()).unwrap(), json);
        assert_eq!(BankEvent::decode(&event.event_type(), event.schema_version(), &payload).unwrap(), event);
    }
}

#[test]
fn a_stored_amount_of_nothing_is_not_read() {
    let payload = eventcore::Payload::json(r#"{"amount":0,"booked_on":"1993-01-05"}"#);
    let name = "bank.MoneyDeposited".parse().unwrap();
    assert!(BankEvent::decode(&name, eventcore::SchemaVersion::default(), &payload).is_err());
}
