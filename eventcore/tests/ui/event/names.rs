//! Names that cannot be stored, or are given to two event types.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Bad {
    #[event(name = "")]
    Empty,
    #[event(name = "a\0b")]
    Control,
    #[event(name = " a")]
    Whitespace,
    #[event(alias = "bank.a\n")]
    ControlInAlias,
    #[event(name = "bank.Opened")]
    WithNamespace,
    #[event(name = "a23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\
                    b23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\
                    c23456789012345678901234567890123456789012345678901234567890123456789012345678901234567890")]
    TooLong,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Duplicate {
    Opened,
    #[event(name = "Opened")]
    Created,
    #[event(alias = "bank.Opened")]
    Closed,
    #[event(alias = "old.X", alias = "old.X")]
    Twice,
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank", alias = "bank.Single")]
struct Single;

fn main() {}
