//! Serde attributes that would hide the variants.

use eventcore::Event;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
#[serde(tag = "type", content = "fields")]
enum Tagged {
    Opened { owner: String },
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
#[serde(untagged)]
enum Untagged {
    Opened { owner: String },
}

#[derive(Clone, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
#[serde(from = "u8", into = "u8")]
enum Converted {
    Opened,
}

impl From<u8> for Converted {
    fn from(_: u8) -> Self {
        Self::Opened
    }
}

impl From<Converted> for u8 {
    fn from(_: Converted) -> Self {
        0
    }
}

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum Variants {
    Opened,
    #[serde(skip)]
    Skipped,
    #[serde(skip_serializing)]
    NotWritten,
    #[serde(skip_deserializing)]
    NotRead,
    #[serde(other)]
    Other,
}

fn main() {}
