//! Attributes that are unknown, given twice, malformed or out of place.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Variants {
    #[event(nmae = "x")]
    Unknown,
    #[event(name = "a", name = "b")]
    Twice,
    #[event(version = 0)]
    VersionZero,
    #[event(version = "2")]
    VersionText,
    #[event(version = 4294967295)]
    VersionTooHigh,
    #[event(name)]
    WithoutValue,
    Field {
        #[event(name = "x")]
        field: u8,
    },
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank", name = "x", version = 2, alias = "y")]
enum OnEnum {
    Opened,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank", nested)]
struct NestedStruct(u8);

fn main() {}
