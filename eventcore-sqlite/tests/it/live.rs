//! Live projections while their store cannot be reached.

use crate::support::{Home, event_of, stream};
use eventcore::{
    AppendRequest, Event, EventStore, GlobalPosition, InMemory, LiveConfig, LiveState, LiveStates, ProjectionContext,
    ProjectionManager, Projector, RecordedEvent,
};
use eventcore_testing::FaultyStore;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "live")]
enum Happened {
    Once {},
}

/// Counts; does nothing while it is held.
#[derive(Clone)]
struct Count<C> {
    name: &'static str,
    count: Arc<AtomicU64>,
    held: watch::Receiver<bool>,
    context: PhantomData<C>,
}

impl<C: ProjectionContext + Sync> Projector for Count<C> {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = C;

    fn name(&self) -> &str {
        self.name
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut C) -> Result<(), Self::Error> {
        // An error means that the test is over.
        let _ = self.held.wait_for(|held| !held).await;
        self.count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

async fn append(store: &impl EventStore) -> GlobalPosition {
    let request = AppendRequest::builder().event(stream("s"), event_of("live.Once", "{}")).build().unwrap();
    store.append(request).await.unwrap().events[0].position
}

async fn then(states: &mut LiveStates, wanted: fn(&LiveState) -> bool) {
    let next = tokio::time::timeout(crate::support::PATIENCE, states.next()).await.expect("the state stays as it is");
    assert!(next.as_ref().is_some_and(wanted), "{next:?}");
}

/// With a read model in memory, which is made anew, and with a stored checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_seen_by_live_projections_and_nothing_is_missed() {
    outage::<InMemory>("in-memory").await;
    outage::<()>("stored").await;
}

async fn outage<C: ProjectionContext + Sync>(name: &'static str)
where
    FaultyStore<eventcore_sqlite::SqliteEventStore>: eventcore::UnitOfWork<C>,
{
    let home = Home::new();
    let store = FaultyStore::new(home.open().await);
    append(&store).await;
    let (hold, held) = watch::channel(false);
    let count = Arc::new(AtomicU64::new(0));
    let made = Arc::new(AtomicU64::new(0));
    let make = {
        let (count, made) = (Arc::clone(&count), Arc::clone(&made));
        move || {
            made.fetch_add(1, Ordering::SeqCst);
            if !C::DURABLE {
                count.store(0, Ordering::SeqCst);
            }
            Count::<C> { name, count: Arc::clone(&count), held: held.clone(), context: PhantomData }
        }
    };
    let config = LiveConfig::default()
        .reconnect_delay(Duration::from_millis(1), Duration::from_millis(5))
        .checkpoint_interval(Duration::ZERO);
    let manager = ProjectionManager::builder(store.clone()).register(make).unwrap().live_config(config).build();
    let live = manager.start_live().unwrap();
    let mut states = live.states();
    while !live.is_caught_up() {
        states.next().await;
    }
    let mut states = live.states();
    then(&mut states, |state| matches!(state, LiveState::Live)).await;

    store.faults().cut();
    then(&mut states, |state| matches!(state, LiveState::Reconnecting)).await;
    // Longer than one run endures; that one after the other is begun and fails is no other state.
    let before = made.load(Ordering::SeqCst);
    while made.load(Ordering::SeqCst) < before + 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    append(store.store()).await;
    // What comes next can take as little time as it wants: it is held there until it was seen.
    hold.send_replace(true);
    assert!(!live.is_caught_up());
    store.faults().restore();
    then(&mut states, |state| matches!(state, LiveState::CatchingUp)).await;
    hold.send_replace(false);
    then(&mut states, |state| matches!(state, LiveState::Live)).await;
    let head = append(&store).await;
    live.wait_for(head).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 3, "{name}: events applied");
    live.shutdown().await.unwrap();
    store.close().await.unwrap();
}
