//! Upcasters whose signature is wrong.

use eventcore::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;

fn infallible(value: Value) -> Value {
    value
}

fn of_text(value: String) -> Result<Value, String> {
    Ok(Value::String(value))
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Signatures {
    #[event(version = 2, upcast(from = 1, with = infallible))]
    Infallible,
    #[event(version = 2, upcast(from = 1, with = of_text))]
    OfText,
}

fn main() {}
