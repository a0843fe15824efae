//! Nested events that cannot be told apart, or are none.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Account {
    Opened,
    #[event(alias = "old.Closed")]
    Closed,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "old")]
struct Closed;

#[derive(Event)]
enum Clashing {
    #[event(nested)]
    Account(Account),
    #[event(nested)]
    Old(Closed),
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum ClashingWithOwn {
    Opened,
    #[event(nested)]
    Account(Account),
}

fn main() {}
