//! Handles cannot be copied out of the call that they are lent for, nor be had from a binder of one's own.

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
        let kept = streams.account.clone();
        Ok(NewEvents::new().append(&kept, Opened))
    }
}

fn main() {
    let _ = eventcore::StreamBinder::<Open>::new(eventcore::Discovered::none());
}
