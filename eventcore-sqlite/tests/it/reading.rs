//! Readers that share few connections.

use crate::support::{Home, PATIENCE, append, event, patient, stream};
use eventcore::{
    AppendRequest, ErrorKind, Event, EventFilter, EventReader, EventStore, EventStoreError, InMemory, PageSize,
    ProjectionConfig, Projector, ReadStreams, RecordedEvent, StreamPosition, StreamPrefix, StreamVersion,
    run_projection,
};
use eventcore_sqlite::{ReaderPoolSize, SqliteEventStore};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Happened {
    Happened(u64),
}

/// Reads its own store for every event.
struct Curious {
    store: SqliteEventStore,
    events: u64,
}

impl Projector for Curious {
    type Event = Happened;
    type Error = EventStoreError;
    type Context = InMemory;

    fn name(&self) -> &str {
        "curious"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), EventStoreError> {
        self.store.stream_version(&stream("s")).await?;
        self.events += 1;
        Ok(())
    }
}

/// A page that is read ahead must not keep the place in the queue that the projector beside it needs.
#[tokio::test(flavor = "multi_thread")]
async fn projectors_that_read_their_own_store_do_not_wait_for_each_other() {
    const EVENTS: u64 = 60;
    let home = Home::new();
    let store = home.open_with(patient().reader_pool_size(ReaderPoolSize::try_new(1).unwrap())).await;
    for n in 0..EVENTS {
        append(&store, "s", &n.to_string()).await.unwrap();
    }
    let runs: Vec<_> = (0..16)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let config = ProjectionConfig::default().page_size(PageSize::try_new(3).unwrap());
                run_projection(Curious { store: store.clone(), events: 0 }, &store, config).await.unwrap()
            })
        })
        .collect();
    for run in runs {
        let outcome = tokio::time::timeout(PATIENCE, run).await.expect("it comes to its end").unwrap();
        assert_eq!(outcome.projector.events, EVENTS);
    }
}

/// SQLite never waits for readers, so those that follow each other without a pause would keep it growing.
#[tokio::test(flavor = "multi_thread")]
async fn readers_without_a_pause_do_not_let_the_write_ahead_log_grow_for_ever() {
    const MIB: usize = 1024 * 1024;
    let home = Home::new();
    let store = home.open().await;
    let payload = format!("\"{}\"", "x".repeat(MIB / 2));
    for _ in 0..20 {
        append(&store, "s", &payload).await.unwrap();
    }
    let stop = CancellationToken::new();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    store.read_stream(&stream("s"), StreamVersion::default(), PageSize::default()).await.unwrap();
                }
            })
        })
        .collect();
    // It begins anew when it has 64 MiB. Readers that have not come to an end within a second by then put that off for as
    // much again; on a busy machine that happens. Without limit it would grow with every append.
    let size = || std::fs::metadata(home.join("store.db-wal")).unwrap().len();
    let mut largest = 0;
    let begun_anew = loop {
        append(&store, "t", &payload).await.unwrap();
        let now = size();
        if now < largest || largest > 512 * MIB as u64 {
            break now < largest;
        }
        largest = now;
    };
    stop.cancel();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(begun_anew, "it grew to {} MiB", largest / MIB as u64);
}

/// Appends so many events to a stream, with payloads that count them.
async fn fill(store: &SqliteEventStore, name: &str, events: std::ops::Range<u64>) {
    let request = events.fold(AppendRequest::builder(), |request, n| request.event(stream(name), event(n.to_string())));
    store.append(request.build().unwrap()).await.unwrap();
}

/// Streams on both sides of the size from which on two threads read them, alone and beside others, from the beginning and
/// from further on.
#[tokio::test(flavor = "multi_thread")]
async fn long_streams_come_whole_and_in_order() {
    let home = Home::new();
    let store = home.open_with(patient()).await;
    let long: [(&str, u64); 5] = [("a", 128), ("b", 4_223), ("c", 4_224), ("d", 4_225), ("e", 9_001)];
    for (name, events) in long {
        fill(&store, name, 0..events / 3).await;
        append(&store, "between", "0").await.unwrap();
        fill(&store, name, events / 3..events).await;
    }
    for (name, events) in long {
        for after in [0, 1, 3_000] {
            let after = StreamVersion::try_new(after).unwrap();
            let from = StreamPosition { stream_id: stream(name), after };
            let read = store.read_streams(ReadStreams::after([from]).unwrap()).await.unwrap();
            let expected: Vec<u64> = (after.get() + 1..=events).collect();
            let versions: Vec<u64> = read.events.iter().map(|event| event.version().get()).collect();
            assert_eq!(versions, expected, "{name} after {after}");
            assert!(read.events.iter().all(|event| {
                *event.stream_id() == stream(name)
                    && event.payload().bytes()[..] == *(event.version().get() - 1).to_string().as_bytes()
            }));
            assert!(read.events.is_sorted_by_key(RecordedEvent::position));
            assert_eq!(read.versions, [StreamVersion::try_new(events).unwrap()]);
        }
    }
    let both = store.read_streams(ReadStreams::new([stream("e"), stream("between")]).unwrap()).await.unwrap();
    assert_eq!(both.events.len(), 9_001 + long.len());
    assert!(both.events.is_sorted_by_key(RecordedEvent::position));
}

#[tokio::test]
async fn a_lost_event_of_a_long_stream_is_noticed_in_either_half() {
    // The first event, at the end of what is read first, in the older half, on both sides of the middle, in the younger
    // half.
    for lost in [1, 128, 129, 2_000, 4_564, 4_565, 7_000, 8_999] {
        let home = Home::new();
        let store = home.open().await;
        fill(&store, "s", 0..9_000).await;
        let delete = format!("delete from eventcore_events where position = {lost}");
        home.raw().execute_batch(&format!("drop trigger eventcore_events_delete; {delete}")).unwrap();
        let error = store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{lost}: {error:?}");
        assert!(error.to_string().contains(&format!("version {lost} of a stream")), "{lost}: {error}");
    }
}

#[tokio::test]
async fn a_page_of_few_events_holds_no_room_for_many() {
    let home = Home::new();
    let store = home.open().await;
    append(&store, "rare-1", "0").await.unwrap();
    fill(&store, "s", 0..4_000).await;
    let rare = EventFilter::all().stream_prefix(StreamPrefix::new("rare-").unwrap());
    let page = store.read_page(&rare, None, PageSize::try_new(10_000).unwrap()).await.unwrap();
    assert_eq!(page.events.len(), 1);
    assert!(page.events.capacity() <= 4, "room for {}", page.events.capacity());
}
