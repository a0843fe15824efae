//! Upcasters that cannot work.

use eventcore::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn fine(value: Value) -> Result<Value, String> {
    Ok(value)
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Steps {
    #[event(upcast(from = 1, with = fine))]
    WithoutVersion,
    #[event(version = 3, upcast(from = 1, with = fine))]
    Gap,
    #[event(version = 5, upcast(from = 1, with = fine), upcast(from = 4, with = fine))]
    GapBetween,
    #[event(version = 3, upcast(from = 2, with = fine), upcast(from = 2, with = fine))]
    Twice,
    #[event(version = 2, upcast(from = 2, with = fine))]
    TooHigh,
    #[event(version = 2, upcast(from = 1))]
    WithoutFunction,
    #[event(version = 2, upcast(from = 1, with = fine, by = fine))]
    Unknown,
    #[event(version = 2, upcast)]
    Bare,
}

fn main() {}
