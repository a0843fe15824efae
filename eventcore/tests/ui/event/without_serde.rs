//! An event has to derive serde's traits itself.

use eventcore::Event;

#[derive(Event)]
#[event(namespace = "bank")]
enum WithoutSerde {
    Opened,
}

fn main() {}
