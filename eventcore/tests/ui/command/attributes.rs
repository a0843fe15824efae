//! Attributes that are unknown, given twice or out of place.

use eventcore::{Command, StreamId};

#[derive(Command)]
#[command(nmae = "x")]
struct UnknownOnStruct {
    #[stream]
    account: StreamId,
}

#[derive(Command)]
#[command(name = "")]
struct EmptyName {
    #[stream]
    account: StreamId,
}

#[derive(Command)]
#[command(name = "a\nb")]
struct ControlCharacter {
    #[stream]
    account: StreamId,
}

#[derive(Command)]
#[command(name = "a")]
#[command(name = "b")]
struct NamedTwice {
    #[stream]
    account: StreamId,
}

#[derive(Command)]
struct Fields {
    #[stream(readonly)]
    unknown: StreamId,
    #[stream]
    #[stream(read_only)]
    twice: StreamId,
    #[stream(read_only, read_only)]
    read_only_twice: StreamId,
    #[stream = "account"]
    with_value: StreamId,
    #[stream()]
    with_nothing: StreamId,
    #[command(name = "x")]
    #[stream]
    command: StreamId,
}

#[derive(Command)]
#[stream]
struct StreamOnStruct {
    #[stream]
    account: StreamId,
}

fn main() {}
