//! Readers that share few connections.

use crate::support::{Home, PATIENCE, append, patient, stream};
use eventcore::{
    Event, EventReader, EventStore, EventStoreError, InMemory, PageSize, ProjectionConfig, Projector, RecordedEvent,
    StreamVersion, run_projection,
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
