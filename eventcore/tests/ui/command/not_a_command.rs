//! Shapes that cannot be commands.

use eventcore::{Command, StreamId};

#[derive(Command)]
enum Enum {
    Open(#[stream] StreamId),
}

#[derive(Command)]
union Union {
    #[stream]
    account: std::mem::ManuallyDrop<StreamId>,
}

#[derive(Command)]
struct Unit;

#[derive(Command)]
struct NoStream {
    account: StreamId,
}

#[derive(Command)]
struct Borrowing<'a> {
    #[stream]
    account: &'a StreamId,
}

fn main() {}
