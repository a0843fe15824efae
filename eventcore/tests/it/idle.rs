//! Who waits for something new hardly asks a store that tells him.

use crate::troubled_store::TroubledStore;
use eventcore::{
    AppendRequest, Event, EventFilter, EventId, EventMetadata, EventStore, FeedItem, GlobalPosition, InMemory,
    NewEvent, Progress, ProjectionConfig, Projector, RecordedEvent, StartFrom, StreamId, StreamState, run_projection,
    subscribe, watch,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "idle")]
enum Happened {
    Once,
}

#[derive(Debug, Default, Clone)]
struct Count(u64);

impl StreamState for Count {
    type Event = Happened;

    fn apply(&mut self, _: &RecordedEvent<Happened>) {
        self.0 += 1;
    }
}

struct Counter;

impl Projector for Counter {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "counter"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), Self::Error> {
        Ok(())
    }
}

fn stream() -> StreamId {
    StreamId::new("a").unwrap()
}

async fn append(store: &TroubledStore) -> GlobalPosition {
    let event = NewEvent::encode(EventId::generate(), &Happened::Once, EventMetadata::empty()).unwrap();
    let request = AppendRequest::builder().event(stream(), event).build().unwrap();
    store.append(request).await.unwrap().events[0].position
}

/// Ten projections and ten subscriptions, and how far each has come.
fn follow(store: &TroubledStore, stop: &CancellationToken, tasks: &mut JoinSet<()>) -> Vec<Progress> {
    let mut all = Vec::new();
    for _ in 0..10 {
        let progress = Progress::default();
        all.push(progress.clone());
        let config = ProjectionConfig::default().continuous().shutdown(stop.clone()).progress(progress);
        let log = store.clone();
        tasks.spawn(async move { run_projection(Counter, &log, config).await.map(|_| ()).unwrap() });

        let mut subscription = subscribe(store.clone(), EventFilter::all(), StartFrom::Beginning);
        all.push(subscription.progress());
        let stop = stop.clone();
        tasks.spawn(async move {
            while let Some(item) = stop.run_until_cancelled(subscription.next()).await {
                let _: FeedItem = item.unwrap();
            }
        });
    }
    all
}

/// How many pages are read in a minute in which nothing happens, and then everybody is told of an event at once.
async fn pages_in_a_minute(store: TroubledStore) -> u64 {
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    let position = append(&store).await;
    let all = follow(&store, &stop, &mut tasks);
    for progress in &all {
        progress.wait_for(position).await.unwrap();
    }
    let before = store.pages();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let pages = store.pages() - before;

    let told = tokio::time::Instant::now();
    let position = append(&store).await;
    for progress in &all {
        progress.wait_for(position).await.unwrap();
    }
    assert_eq!(told.elapsed(), Duration::ZERO, "somebody was not told");
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    pages
}

#[tokio::test(start_paused = true)]
async fn who_is_told_by_the_store_looks_every_five_seconds_and_else_every_100_ms() {
    let untended = pages_in_a_minute(TroubledStore::default()).await;
    let tended = TroubledStore::default();
    tended.tend();
    let tended = pages_in_a_minute(tended).await;
    println!("20 followers, a minute: {tended} pages, {untended} if the store does not look by itself");
    assert!(tended <= 20 * 13, "{tended} pages were read in vain");
    assert!(untended >= 20 * 500, "{untended} pages were read: who may have missed something has to look");
}

#[tokio::test(start_paused = true)]
async fn whoever_sets_an_interval_looks_as_often() {
    let store = TroubledStore::default();
    store.tend();
    append(&store).await;
    let second = Duration::from_secs(1);
    let mut watcher = watch::<Count, _>(store.clone(), [stream()]).poll_interval(second);
    assert_eq!(watcher.next().await.unwrap().state.unwrap().0, 1);
    // Something comes to light of which nobody is told.
    let late = StreamId::new("late").unwrap();
    let mut late_watcher = watch::<Count, _>(store.clone(), [late.clone()]).poll_interval(second);
    store.hide();
    let event = NewEvent::encode(EventId::generate(), &Happened::Once, EventMetadata::empty()).unwrap();
    store.append(AppendRequest::builder().event(late, event).build().unwrap()).await.unwrap();
    assert!(late_watcher.next().await.unwrap().state.is_none());
    // The wake-up of the append is used up while there is nothing to see.
    let half = second / 2;
    assert!(tokio::time::timeout(half, late_watcher.next()).await.is_err(), "it saw what is hidden");
    let began = tokio::time::Instant::now();
    let (seen, ()) = tokio::join!(late_watcher.next(), async {
        tokio::time::sleep(half).await;
        store.reveal();
    });
    assert_eq!(seen.unwrap().state.unwrap().0, 1);
    let took = began.elapsed();
    assert!(took > half && took <= second, "it looked after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_projection_looks_as_often_as_it_is_told_to() {
    for tended in [true, false] {
        let store = TroubledStore::default();
        if tended {
            store.tend();
        }
        append(&store).await;
        let stop = CancellationToken::new();
        let config = ProjectionConfig::default().poll_interval(Duration::from_secs(1));
        let run = run_projection(Counter, &store, config.continuous().shutdown(stop.clone()));
        let (ended, ()) = tokio::join!(run, async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            stop.cancel();
        });
        assert_eq!(ended.map(|outcome| outcome.applied).unwrap(), 1);
        let pages = store.pages();
        assert!((60..=63).contains(&pages), "{pages} pages, tended: {tended}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_looks_as_often_as_it_is_told_to() {
    for tended in [true, false] {
        let store = TroubledStore::default();
        if tended {
            store.tend();
        }
        append(&store).await;
        let mut subscription = subscribe(store.clone(), EventFilter::all(), StartFrom::Beginning);
        subscription = subscription.poll_interval(Duration::from_secs(1));
        let minute = tokio::time::Instant::now() + Duration::from_secs(60);
        while let Ok(item) = tokio::time::timeout_at(minute, subscription.next()).await {
            let _: FeedItem = item.unwrap();
        }
        let pages = store.pages();
        assert!((60..=63).contains(&pages), "{pages} pages, tended: {tended}");
    }
}
