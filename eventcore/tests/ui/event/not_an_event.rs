//! Types that cannot be events.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Event)]
#[event(namespace = "bank")]
enum Empty {}

#[derive(Event)]
#[event(namespace = "bank")]
union Union {
    field: u8,
}

#[derive(Serialize, Event)]
#[event(namespace = "bank")]
enum Borrowing<'a> {
    Opened(&'a str),
}

fn main() {}
