//! Snapshots beside executions: a bounded queue, a clean end, and states that cannot be stored.

use crate::troubled_store::TroubledStore;
use eventcore::{
    Command, CommandExecutor, CommandLogic, Event, NewEvents, RecordedEvent, SnapshotKey, SnapshotPolicy,
    SnapshotState, SnapshotStore, StateFold, StreamId, StreamState,
};
use serde::{Deserialize, Serialize, Serializer};
use std::convert::Infallible;
use std::time::Duration;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Counted {
    Added { number: u64 },
}

/// A sum that cannot be stored when it has certain values.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Sum {
    #[serde(serialize_with = "unless_it_is_thirteen")]
    sum: u64,
    #[serde(skip)]
    forgotten: bool,
}

fn unless_it_is_thirteen<S: Serializer>(sum: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    assert_ne!(*sum, 13, "a state that panics");
    serializer.serialize_u64(*sum)
}

impl StreamState for Sum {
    type Event = Counted;

    fn apply(&mut self, event: &RecordedEvent<Counted>) {
        let Counted::Added { number } = event.payload();
        self.sum += number;
        self.forgotten = *number == 99;
    }
}

impl SnapshotState for Sum {
    const NAME: &'static str = "test.Sum";
    const VERSION: u32 = 1;
}

#[derive(Command)]
struct Add {
    #[stream]
    stream: StreamId,
    number: u64,
}

impl CommandLogic for Add {
    type Event = Counted;
    type State = Sum;
    type Error = Infallible;

    fn apply(&self, sum: &mut Sum, event: &RecordedEvent<Counted>) {
        StreamState::apply(sum, event);
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::with_snapshots()
    }

    fn handle(&self, _: &Sum, streams: &AddStreams) -> Result<NewEvents<Self>, Infallible> {
        Ok(NewEvents::new().append(&streams.stream, Counted::Added { number: self.number }))
    }
}

fn add(stream: &str, number: u64) -> Add {
    Add { stream: StreamId::new(stream).unwrap(), number }
}

/// Whether there is a snapshot of a stream, and of which version.
async fn snapshot_of(store: &TroubledStore, stream: &str) -> Option<u64> {
    let key = SnapshotKey::of_command(&add(stream, 0)).unwrap().unwrap();
    Some(store.load_snapshot(&key).await.unwrap()?.streams[0].version.get())
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_snapshots_and_nobody_waits() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1).queue(1));
    let stalled = store.stall_snapshots().await;
    executor.execute(add("in hand", 1)).await.unwrap();
    // The task takes it and stands still.
    tokio::task::yield_now().await;
    for stream in ["queued", "dropped", "dropped too"] {
        executor.execute(add(stream, 1)).await.unwrap();
    }
    drop(stalled);
    tokio::time::timeout(Duration::from_secs(60), executor.flush()).await.unwrap();
    assert_eq!(snapshot_of(&store, "in hand").await, Some(1));
    assert_eq!(snapshot_of(&store, "queued").await, Some(1));
    assert_eq!(snapshot_of(&store, "dropped").await, None);
    assert_eq!(snapshot_of(&store, "dropped too").await, None);
    // It is due again.
    executor.execute(add("dropped", 1)).await.unwrap();
    executor.flush().await;
    assert_eq!(snapshot_of(&store, "dropped").await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_shut_down_stores_what_is_queued_and_takes_no_more() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1));
    let same = executor.clone();
    for stream in ["a", "b", "c"] {
        executor.execute(add(stream, 1)).await.unwrap();
    }
    executor.shut_down().await;
    for stream in ["a", "b", "c"] {
        assert_eq!(snapshot_of(&store, stream).await, Some(1), "{stream}");
    }
    same.execute(add("later", 1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), same.flush()).await.unwrap();
    same.shut_down().await;
    assert_eq!(snapshot_of(&store, "later").await, None);
}

#[tokio::test]
async fn an_executor_that_is_dropped_finishes_its_queue() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1));
    executor.execute(add("a", 1)).await.unwrap();
    drop(executor);
    while snapshot_of(&store, "a").await.is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn snapshots_are_due_every_n_events_and_bounded_in_size() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(3));
    let mut taken = Vec::new();
    for _ in 0..9 {
        executor.execute(add("a", 1)).await.unwrap();
        executor.flush().await;
        taken.push(snapshot_of(&store, "a").await);
    }
    let expected = [None, None, Some(3), Some(3), Some(3), Some(6), Some(6), Some(6), Some(9)];
    assert_eq!(taken, expected);

    let small = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1).max_bytes(3));
    small.execute(add("b", 1)).await.unwrap();
    small.flush().await;
    assert_eq!(snapshot_of(&store, "b").await, None);
}

#[tokio::test]
async fn a_state_that_does_not_come_back_equal_is_not_stored() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1));
    for (number, expected) in [(1, Some(1)), (99, Some(1)), (1, Some(3))] {
        executor.execute(add("a", number)).await.unwrap();
        executor.flush().await;
        assert_eq!(snapshot_of(&store, "a").await, expected, "after {number}");
    }
}

#[tokio::test]
async fn a_state_that_panics_while_it_is_encoded_harms_nobody_else() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1));
    executor.execute(add("a", 13)).await.unwrap();
    executor.execute(add("b", 1)).await.unwrap();
    executor.flush().await;
    assert_eq!((snapshot_of(&store, "a").await, snapshot_of(&store, "b").await), (None, Some(1)));
}

#[test]
fn a_queue_outlives_the_runtime_of_its_task() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1));
    // The first runtime ends before its task could store anything.
    runtime().block_on(async { executor.execute(add("a", 1)).await.map(drop).unwrap() });
    runtime().block_on(async {
        executor.flush().await;
        executor.execute(add("a", 1)).await.unwrap();
        executor.flush().await;
        assert_eq!(snapshot_of(&store, "a").await, Some(2));
    });
}

/// The same state, under the same name, folded in another way.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Highest {
    sum: u64,
}

impl StreamState for Highest {
    type Event = Counted;

    fn apply(&mut self, event: &RecordedEvent<Counted>) {
        let Counted::Added { number } = event.payload();
        self.sum = self.sum.max(*number);
    }
}

impl SnapshotState for Highest {
    const NAME: &'static str = Sum::NAME;
    const VERSION: u32 = 2;
}

#[derive(Command)]
struct AddHighest {
    #[stream]
    stream: StreamId,
}

impl CommandLogic for AddHighest {
    type Event = Counted;
    type State = Highest;
    type Error = Infallible;

    fn apply(&self, highest: &mut Highest, event: &RecordedEvent<Counted>) {
        StreamState::apply(highest, event);
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::with_snapshots()
    }

    fn handle(&self, highest: &Highest, streams: &AddHighestStreams) -> Result<NewEvents<Self>, Infallible> {
        Ok(NewEvents::new().append(&streams.stream, Counted::Added { number: highest.sum + 1 }))
    }
}

#[tokio::test]
async fn a_state_of_another_fold_under_the_same_name_is_folded_anew() {
    let store = TroubledStore::default();
    let executor = CommandExecutor::new(store.clone()).snapshots(SnapshotPolicy::every(1));
    let stream = StreamId::new("a").unwrap();
    for number in [5, 7] {
        executor.execute(add("a", number)).await.unwrap();
        executor.flush().await;
    }
    let command = AddHighest { stream: stream.clone() };
    assert_eq!(SnapshotKey::of_command(&command).unwrap(), SnapshotKey::of_command(&add("a", 0)).unwrap());
    executor.execute(command).await.unwrap();
    let read = eventcore::ReadStreams::new([stream]).unwrap();
    let last = eventcore::EventStore::read_streams(&store, read).await.unwrap().events.pop().unwrap();
    assert_eq!(last.payload().bytes().as_ref(), br#"{"number":8}"#);
}
