//! A handle belongs to the type of its command.

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

#[derive(Command)]
struct Close {
    #[stream]
    account: StreamId,
}

impl CommandLogic for Open {
    type Event = Opened;
    type State = ();
    type Error = std::convert::Infallible;

    fn apply(&self, _: &mut (), _: &RecordedEvent<Opened>) {}

    fn handle(&self, _: &(), streams: &OpenStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&streams.account, Opened))
    }
}

fn both(open: &OpenStreams, close: &CloseStreams) -> NewEvents<Open> {
    NewEvents::new().append(&open.account, Opened).append(&close.account, Opened)
}

impl CommandLogic for Close {
    type Event = Opened;
    type State = ();
    type Error = std::convert::Infallible;

    fn apply(&self, _: &mut (), _: &RecordedEvent<Opened>) {}

    fn handle(&self, _: &(), streams: &CloseStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&streams.account, Opened))
    }
}

fn main() {}
