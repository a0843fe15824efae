//! Scenarios pass and fail where they should.

use eventcore::{
    Command, CommandContext, CommandId, CommandLogic, Discovered, ErrorKind, Event, EventId, EventMetadata, NewEvent,
    NewEvents, Payload, RecordedEvent, SchemaVersion, StreamId, require,
};
use eventcore_testing::Scenario;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "shelf")]
enum ShelfEvent {
    Stored { item: String },
    MovedTo { shelf: StreamId },
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0} is there already")]
struct Taken(String);

/// Stores an item on a shelf, or on the one that the shelf was moved to; nothing without a name.
#[derive(Command)]
struct Store {
    #[stream]
    shelf: StreamId,
    item: String,
}

#[derive(Default)]
struct Shelf {
    items: Vec<String>,
    moved_to: Option<StreamId>,
}

impl CommandLogic for Store {
    type Event = ShelfEvent;
    type State = Shelf;
    type Error = Taken;

    fn apply(&self, state: &mut Shelf, event: &RecordedEvent<ShelfEvent>) {
        match event.payload() {
            ShelfEvent::Stored { item } => state.items.push(item.clone()),
            ShelfEvent::MovedTo { shelf } => state.moved_to = Some(shelf.clone()),
        }
    }

    fn discover(&self, state: &Shelf) -> Discovered {
        state.moved_to.iter().fold(Discovered::none(), |found, shelf| found.write(shelf.clone()))
    }

    fn handle(&self, state: &Shelf, streams: &StoreStreams) -> Result<NewEvents<Self>, Taken> {
        require!(!state.items.contains(&self.item), Taken(self.item.clone()));
        if self.item.is_empty() {
            return Ok(NewEvents::new());
        }
        let found = state.moved_to.as_ref().and_then(|shelf| streams.discovered().get(shelf));
        Ok(NewEvents::new().append(found.unwrap_or(&streams.shelf), ShelfEvent::Stored { item: self.item.clone() }))
    }
}

fn shelf() -> StreamId {
    StreamId::new("shelf-1").unwrap()
}

fn attic() -> StreamId {
    StreamId::new("attic").unwrap()
}

fn stored(item: &str) -> ShelfEvent {
    ShelfEvent::Stored { item: item.to_owned() }
}

fn store(item: &str) -> Store {
    Store { shelf: shelf(), item: item.to_owned() }
}

#[test]
fn events_are_expected_with_their_streams() {
    Scenario::new().given(shelf(), [stored("cup")]).when(store("plate")).then_events([(shelf(), stored("plate"))]);
}

#[test]
#[should_panic = "not those expected"]
fn other_events_fail() {
    Scenario::new().when(store("plate")).then_events([(shelf(), stored("cup"))]);
}

#[test]
#[should_panic = "not those expected"]
fn another_stream_fails() {
    Scenario::new().when(store("plate")).then_events([(attic(), stored("plate"))]);
}

#[test]
fn a_rejection_is_expected_with_its_reason() {
    let given = Scenario::new().given(shelf(), [stored("cup")]);
    given.clone().when(store("cup")).then_rejected(Taken("cup".to_owned()));
    given.when(store("cup")).then_rejected_as(|Taken(item)| item == "cup");
}

#[test]
#[should_panic = "another rejection"]
fn another_rejection_fails() {
    Scenario::new().given(shelf(), [stored("cup")]).when(store("cup")).then_rejected(Taken("plate".to_owned()));
}

#[test]
#[should_panic = "expected the rejection"]
fn events_instead_of_a_rejection_fail() {
    Scenario::new().when(store("cup")).then_rejected(Taken("cup".to_owned()));
}

#[test]
#[should_panic = "to be accepted"]
fn a_rejection_instead_of_events_fails() {
    Scenario::new().given(shelf(), [stored("cup")]).when(store("cup")).then_nothing();
}

#[test]
fn nothing_is_a_decision() {
    Scenario::new().when(store("")).then_nothing();
    let context = CommandContext::new().command_id(CommandId::new("id").unwrap());
    Scenario::new().when_with(context, store("")).then_nothing();
}

#[test]
#[should_panic = "expected to do nothing"]
fn events_instead_of_nothing_fail() {
    Scenario::new().when(store("cup")).then_nothing();
}

#[test]
fn discovered_streams_are_part_of_it() {
    Scenario::new()
        .given(attic(), [stored("trunk")])
        .given(shelf(), [ShelfEvent::MovedTo { shelf: attic() }])
        .given(StreamId::new("unrelated").unwrap(), [stored("cup")])
        .when(store("cup"))
        .then_events([(attic(), stored("cup"))]);
}

#[test]
fn metadata_can_be_expected() {
    let metadata = EventMetadata::builder().value("channel", "web").build().unwrap();
    let context = CommandContext::new().metadata(metadata.clone());
    Scenario::new().when_with(context, store("cup")).then_metadata(&metadata).then_events([(shelf(), stored("cup"))]);
}

#[test]
fn what_cannot_be_understood_fails_as_corrupt() {
    let unknown = NewEvent {
        id: EventId::generate(),
        event_type: "shelf.Unknown".parse().unwrap(),
        schema_version: SchemaVersion::default(),
        payload: Payload::json("{}"),
        metadata: EventMetadata::empty(),
    };
    Scenario::new().given_encoded(shelf(), [unknown]).when(store("cup")).then_fails_as(ErrorKind::Corrupt);
}

#[test]
fn the_fold_can_be_looked_at_alone() {
    let state = Scenario::new().given(shelf(), [stored("cup"), stored("plate")]).state_of(&store("fork"));
    assert_eq!(state.items, ["cup", "plate"]);
}

#[test]
fn event_ids_are_the_same_at_every_run() {
    let decided = || Scenario::new().when(store("cup")).into_result().unwrap();
    assert_eq!(decided(), decided());
}
