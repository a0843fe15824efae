//! Variants that cannot be nested.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
struct Opened;

#[derive(Event)]
enum Shapes {
    #[event(nested)]
    Unit,
    #[event(nested)]
    Two(Opened, Opened),
    #[event(nested)]
    Named { event: Opened },
    #[event(nested, version = 2)]
    WithVersion(Opened),
}

#[derive(Event)]
enum NoEvent {
    #[event(nested)]
    Text(String),
}

fn main() {}
