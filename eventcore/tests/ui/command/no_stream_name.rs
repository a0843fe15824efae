//! A stream field whose type names no stream.

use eventcore::{Command, StreamId};

#[derive(Command)]
struct NotNames {
    #[stream]
    text: String,
    #[stream(read_only)]
    texts: Vec<u8>,
    #[stream]
    alias: Accounts,
}

type Accounts = Vec<StreamId>;

fn main() {}
