//! Live projections while their server goes away and comes back.

use crate::fixtures::{Counted, Log, PATIENCE, append_to, stream};
use crate::pages::Tally;
use crate::proxy::Proxy;
use eventcore::{
    EventStore, ExpectedVersion, InMemory, LiveConfig, LiveState, LiveStates, ProjectionManager, Projector,
    RecordedEvent,
};
use eventcore_postgres::PostgresEventStore;
use eventcore_testing::postgres::Cluster;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Counts in memory; does nothing while it is held.
#[derive(Clone)]
struct Count {
    count: u64,
    held: watch::Receiver<bool>,
}

impl Projector for Count {
    type Event = Counted;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "count"
    }

    async fn apply(&mut self, _: &RecordedEvent<Counted>, _: &mut InMemory) -> Result<(), Self::Error> {
        // An error means that the test is over.
        let _ = self.held.wait_for(|held| !held).await;
        self.count += 1;
        Ok(())
    }
}

async fn append(store: &PostgresEventStore, events: u64) {
    for _ in 0..events {
        store.append(append_to(&stream("s"), ExpectedVersion::Any)).await.unwrap();
    }
}

/// In the end it is this state. Before that, a busy server may be taken for one that is away, or have leaderships lapse.
async fn until(states: &mut LiveStates, wanted: fn(&LiveState) -> bool) {
    let reached = async { while !wanted(&states.next().await.expect("it came to its end")) {} };
    tokio::time::timeout(PATIENCE, reached).await.expect("the state is never reached");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_seen_by_live_projections_and_nothing_is_missed() {
    let cluster = Cluster::start(&[]).unwrap();
    let log = Log::at(cluster.url("postgres")).unwrap();
    // The store by itself would sit out a short restart.
    let config = log.config().retry_for(Duration::from_millis(50)).beat_interval(Duration::from_millis(500));
    let proxy = Proxy::start(format!("127.0.0.1:{}", cluster.port())).await;
    let url = log.url.replace(&cluster.port().to_string(), &proxy.port.to_string());
    let store = PostgresEventStore::connect(&url, config).await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    // Who writes is more patient.
    let writer = PostgresEventStore::connect(&log.url, log.config()).await.unwrap();
    append(&writer, 5).await;
    writer.close().await.unwrap();

    let (hold, held) = watch::channel(false);
    let quick = LiveConfig::default().reconnect_delay(Duration::from_millis(20), Duration::from_millis(100));
    let in_memory = ProjectionManager::builder(store.clone())
        .register(move || Count { count: 0, held: held.clone() })
        .unwrap()
        .live_config(quick)
        .build();
    let schema = Arc::new(log.schema.clone());
    let in_tables = ProjectionManager::builder(store.clone())
        .register(move || Tally::of(&schema))
        .unwrap()
        .live_config(quick)
        .build();
    let (live, tables) = (in_memory.start_live().unwrap(), in_tables.start_live().unwrap());
    let (mut states, mut states_of_tables) = (live.states(), tables.states());
    for states in [&mut states, &mut states_of_tables] {
        until(states, |state| matches!(state, LiveState::Live)).await;
    }

    cluster.crash().unwrap();
    until(&mut states, |state| matches!(state, LiveState::Reconnecting)).await;
    until(&mut states_of_tables, |state| matches!(state, LiveState::Reconnecting)).await;
    assert!(!live.is_caught_up() && !tables.is_caught_up());
    // The server is back, and has more to tell, before the store reaches it again.
    proxy.bar(log.schema.as_str());
    cluster.start_again().unwrap();
    // Another one: on a connection that the crash broke, nobody would know what became of an append.
    let writer = PostgresEventStore::connect(&log.url, log.config()).await.unwrap();
    append(&writer, 5).await;
    // What comes next can take as little time as it wants: it is held there until it was seen.
    hold.send_replace(true);
    proxy.bar("");
    until(&mut states, |state| matches!(state, LiveState::CatchingUp)).await;
    hold.send_replace(false);
    until(&mut states, |state| matches!(state, LiveState::Live)).await;
    until(&mut states_of_tables, |state| matches!(state, LiveState::Live)).await;

    append(&writer, 1).await;
    let head = writer.head().await.unwrap().unwrap();
    live.wait_for(head).await.unwrap();
    tables.wait_for(head).await.unwrap();
    assert_eq!(in_memory.live::<Count>().await.unwrap().count, 11);
    assert_eq!(log.number(Tally::WRONG).await, 0, "each event counted once");
    live.shutdown().await.unwrap();
    tables.shutdown().await.unwrap();
    writer.close().await.unwrap();
    store.close().await.unwrap();
}
