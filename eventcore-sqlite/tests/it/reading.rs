//! Readers that share few connections.

use crate::support::{Home, append, stream};
use eventcore::{
    Event, EventReader, EventStore, EventStoreError, InMemory, PageSize, ProjectionConfig, Projector, RecordedEvent,
    StreamVersion, run_projection,
};
use eventcore_sqlite::{ReaderPoolSize, SqliteConfig, SqliteEventStore, Synchronous};
use serde::{Deserialize, Serialize};
use std::time::Duration;
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
    let config = SqliteConfig::default().synchronous(Synchronous::Normal);
    let store = home.open_with(config.reader_pool_size(ReaderPoolSize::try_new(1).unwrap())).await;
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
        let outcome = tokio::time::timeout(Duration::from_secs(60), run).await.expect("it comes to its end").unwrap();
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
    let mut largest = 0;
    for _ in 0..300 {
        append(&store, "t", &payload).await.unwrap();
        largest = largest.max(std::fs::metadata(home.join("store.db-wal")).unwrap().len());
    }
    stop.cancel();
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(largest < 100 * MIB as u64, "it grew to {} MiB", largest / MIB as u64);
}
