//! A stream that the command did not declare has no handle to append to.

use eventcore::{Command, CommandLogic, Event, NewEvents, RecordedEvent, StreamId};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
struct Opened;

#[derive(Command)]
struct Open {
    #[stream]
    account: StreamId,
    #[stream(read_only)]
    limits: StreamId,
    other: StreamId,
}

impl CommandLogic for Open {
    type Event = Opened;
    type State = ();
    type Error = std::convert::Infallible;

    fn apply(&self, _: &mut (), _: &RecordedEvent<Opened>) {}

    fn handle(&self, _: &(), streams: &OpenStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&self.other, Opened).append(&streams.other, Opened))
    }
}

fn main() {}
