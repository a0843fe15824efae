//! A namespace is needed, once, and has to be a name.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
enum Missing {
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
struct MissingOnStruct;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "")]
enum Empty {
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank ")]
enum Whitespace {
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank", namespace = "shop")]
enum Twice {
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum OnVariant {
    #[event(namespace = "shop")]
    Opened,
}

fn main() {}
