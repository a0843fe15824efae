//! Watchers on the memory store.

use crate::troubled_store::TroubledStore;
use eventcore::{
    AppendRequest, CheckpointStore, ErrorKind, Event, EventId, EventMetadata, EventStore, Freshness, GlobalPosition,
    LeadershipError, LossyCapacity, NewEvent, ProjectionName, RecordedEvent, StreamId, StreamState, WatchError,
    Watched, watch, watch_durable, watch_lossy,
};
use eventcore_memory::MemoryEventStore;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Changed {
    Added { amount: i64 },
    Noted,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Sum(i64);

impl StreamState for Sum {
    type Event = Changed;

    fn apply(&mut self, event: &RecordedEvent<Changed>) {
        if let Changed::Added { amount } = event.payload() {
            self.0 += amount;
        }
    }
}

fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

async fn append(store: &MemoryEventStore, name: &str, event: Changed) {
    let event = NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()).unwrap();
    store.append(AppendRequest::builder().event(stream(name), event).build().unwrap()).await.unwrap();
}

async fn add(store: &MemoryEventStore, name: &str, amount: i64) {
    append(store, name, Changed::Added { amount }).await;
}

fn watched(generation: u64, sum: i64) -> Watched<Sum> {
    Watched { generation, state: Some(Sum(sum)) }
}

#[tokio::test]
async fn the_state_at_once_and_then_every_change() {
    let store = MemoryEventStore::new();
    let mut watcher = watch::<Sum, _>(&store, [stream("a"), stream("b"), stream("a")]);
    assert_eq!(watcher.next().await.unwrap(), Watched { generation: 0, state: None });
    add(&store, "a", 1).await;
    assert_eq!(watcher.next().await.unwrap(), watched(1, 1));
    add(&store, "elsewhere", 5).await;
    add(&store, "b", 2).await;
    add(&store, "a", 4).await;
    assert_eq!(
        watcher.next().await.unwrap(),
        watched(3, 7),
        "what does not concern it wakes nobody, changes are joined"
    );
    append(&store, "a", Changed::Noted).await;
    assert_eq!(watcher.next().await.unwrap(), watched(4, 7), "the generation rises though the state is the same");
}

#[tokio::test]
async fn a_change_before_the_wait_is_not_slept_over() {
    let store = MemoryEventStore::new();
    // So long a poll that only the wake-up can end the wait.
    let patient = std::time::Duration::from_secs(3600);
    let mut watcher = watch::<Sum, _>(store.clone(), [stream("a")]).poll_interval(patient);
    watcher.next().await.unwrap();
    for round in 1..=50 {
        let writer = tokio::spawn({
            let store = store.clone();
            async move { add(&store, "a", 1).await }
        });
        assert_eq!(watcher.next().await.unwrap(), watched(round, round as i64));
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn the_present_state_is_cached_or_as_fresh_as_the_head() {
    let store = MemoryEventStore::new();
    add(&store, "a", 1).await;
    let mut watcher = watch::<Sum, _>(&store, [stream("a")]);
    assert_eq!(watcher.current(Freshness::Cached).await.unwrap(), watched(1, 1), "nothing is cached yet");
    add(&store, "a", 1).await;
    assert_eq!(watcher.current(Freshness::Cached).await.unwrap(), watched(1, 1));
    assert_eq!(watcher.current(Freshness::Head).await.unwrap(), watched(2, 2));
}

/// Waits for a position that is still to be written; what is written meanwhile is elsewhere at first.
async fn written_later(store: &MemoryEventStore) -> (GlobalPosition, tokio::task::JoinHandle<()>) {
    let wanted = store.head().await.unwrap().map_or(0, GlobalPosition::get) + 2;
    let store = store.clone();
    let writing = tokio::spawn(async move {
        add(&store, "elsewhere", 7).await;
        tokio::task::yield_now().await;
        add(&store, "a", 10).await;
    });
    (GlobalPosition::try_new(wanted).unwrap(), writing)
}

#[tokio::test]
async fn every_kind_of_watcher_can_wait_for_a_position() {
    let store = MemoryEventStore::new();
    add(&store, "a", 1).await;
    let elsewhere = {
        add(&store, "elsewhere", 5).await;
        store.head().await.unwrap().unwrap()
    };

    let mut pulled = watch::<Sum, _>(store.clone(), [stream("a")]);
    assert_eq!(pulled.wait_for(elsewhere).await.unwrap(), watched(1, 1), "nothing there concerns it");
    let (position, writing) = written_later(&store).await;
    assert_eq!(pulled.wait_for(position).await.unwrap(), watched(2, 11));
    writing.await.unwrap();

    let mut pushed = watch_lossy::<Sum, _>(store.clone(), [stream("a")], LossyCapacity::default());
    assert_eq!(pushed.next().await.unwrap(), watched(2, 11));
    assert_eq!(pushed.wait_for(elsewhere).await.unwrap(), watched(2, 11), "the last one shown has it");
    let (position, writing) = written_later(&store).await;
    assert_eq!(pushed.wait_for(position).await.unwrap(), watched(3, 21));
    writing.await.unwrap();

    let name = ProjectionName::new("waits").unwrap();
    let mut durable = watch_durable::<Sum, _>(store.clone(), name.clone(), [stream("a")]).await.unwrap();
    let (position, writing) = written_later(&store).await;
    assert_eq!(durable.wait_for(position).await.unwrap(), watched(4, 31));
    writing.await.unwrap();
    durable.release().await.unwrap();
    let mut again = watch_durable::<Sum, _>(store.clone(), name, [stream("a")]).await.unwrap();
    assert_eq!(again.next().await.unwrap(), watched(4, 31), "what was shown there was not dealt with");
    let stop = again.stop_token().clone();
    let far = GlobalPosition::try_new(1_000).unwrap();
    let waiting = tokio::spawn(async move { again.wait_for(far).await });
    stop.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(WatchError::Stopped)));
    store.close().await.unwrap();
    let error = pulled.wait_for(far).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Closed, "{error:?}");
}

#[tokio::test]
async fn a_watcher_can_be_stopped_and_a_closed_store_is_told_apart() {
    let store = MemoryEventStore::new();
    let mut watcher = watch::<Sum, _>(store.clone(), [stream("a")]);
    watcher.next().await.unwrap();
    let stop = watcher.stop_token().clone();
    let waiting = tokio::spawn(async move { watcher.next().await });
    stop.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(WatchError::Stopped)));

    let mut watcher = watch::<Sum, _>(store.clone(), [stream("a")]);
    watcher.next().await.unwrap();
    store.close().await.unwrap();
    let error = watcher.next().await.unwrap_err();
    assert!(matches!(error, WatchError::Store(_)) && error.kind() == ErrorKind::Closed, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lossy_watcher_shows_every_state_until_it_is_cut_off() {
    let store = MemoryEventStore::new();
    let capacity = LossyCapacity::try_new(3).unwrap();
    let mut watcher = watch_lossy::<Sum, _>(store.clone(), [stream("a")], capacity);
    assert_eq!(watcher.next().await.unwrap(), Watched { generation: 0, state: None });
    let add_one_by_one = |rounds: u64| {
        let store = store.clone();
        async move {
            for _ in 0..rounds {
                add(&store, "a", 1).await;
                // The time is virtual and passes when nothing else is left to do: the task has seen the change by then.
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        }
    };
    add_one_by_one(3).await;
    for round in 1..=3 {
        assert_eq!(watcher.next().await.unwrap(), watched(round, round as i64), "no change is joined with another");
    }
    add_one_by_one(5).await;
    for round in 4..=6 {
        assert_eq!(watcher.next().await.unwrap(), watched(round, round as i64), "what waited is shown");
    }
    for _ in 0..2 {
        let error = watcher.next().await.unwrap_err();
        assert!(matches!(error, WatchError::Pruned { capacity: told } if told == capacity), "{error:?}");
    }

    let mut watcher = watch_lossy::<Sum, _>(store.clone(), [stream("a")], capacity);
    assert_eq!(watcher.next().await.unwrap(), watched(8, 8), "a new one begins with the state as it is");
    store.close().await.unwrap();
    let error = watcher.next().await.unwrap_err();
    assert!(matches!(error, WatchError::Store(_)) && error.kind() == ErrorKind::Closed, "{error:?}");
}

#[tokio::test]
async fn a_durable_watcher_goes_on_where_it_was_acknowledged() {
    let store = MemoryEventStore::new();
    let name: eventcore::ProjectionName = "watcher".parse().unwrap();
    let begin = || watch_durable::<Sum, _>(store.clone(), name.clone(), [stream("a")]);
    add(&store, "a", 1).await;
    let mut watcher = begin().await.unwrap();
    assert_eq!(watcher.next().await.unwrap(), watched(1, 1));
    assert!(matches!(begin().await, Err(WatchError::Leadership(LeadershipError::Busy { .. }))));
    drop(watcher);

    let mut again = begin().await.unwrap();
    assert_eq!(again.next().await.unwrap(), watched(1, 1), "it was shown, but not dealt with");
    again.acknowledge().await.unwrap();
    let saved = store.load_checkpoint(&name).await.unwrap().unwrap();
    assert_eq!(saved.cursor.unwrap().position.get(), 1);
    again.release().await.unwrap();

    let mut later = begin().await.unwrap();
    add(&store, "a", 2).await;
    assert_eq!(later.next().await.unwrap(), watched(2, 3), "only what is new is shown, with all of the state");
    later.release().await.unwrap();
    let other = watch_durable::<Sum, _>(store.clone(), name.clone(), [stream("b")]).await;
    assert!(matches!(other, Err(WatchError::OtherStreams { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_to_light_behind_the_last_one_is_shown() {
    let late = TroubledStore::default();
    late.hide();
    let streams = || [stream("late"), stream("a")];
    let mut watcher = watch::<Sum, _>(&late, streams());
    let mut durable = watch_durable::<Sum, _>(&late, "watcher".parse().unwrap(), streams()).await.unwrap();
    add(&late.store, "late", 1).await;
    add(&late.store, "a", 2).await;
    assert_eq!(watcher.next().await.unwrap(), watched(1, 2));
    assert_eq!(durable.next().await.unwrap(), watched(1, 2));
    late.reveal();
    // The time is virtual: a wait for nothing ends at once.
    let limit = std::time::Duration::from_secs(60);
    assert_eq!(tokio::time::timeout(limit, watcher.next()).await.unwrap().unwrap(), watched(2, 3));
    assert_eq!(tokio::time::timeout(limit, durable.next()).await.unwrap().unwrap(), watched(2, 3));
}
