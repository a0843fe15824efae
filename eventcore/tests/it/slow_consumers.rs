//! Consumers that are slow, or stand still, while the log grows by 100,000 events, and one that is faster than its store. What
//! they hold is counted.

use crate::troubled_store::{Held, TroubledStore};
use eventcore::{
    AppendRequest, Event, EventFilter, EventId, EventMetadata, EventStore, FeedItem, InMemory, LossyCapacity,
    LossyError, NewEvent, PageSize, ProjectionConfig, Projector, RecordedEvent, StartFrom, StreamId, run_projection,
    subscribe, subscribe_lossy,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::sync::Arc;
use tokio::sync::Notify;

const EVENTS: u64 = 100_000;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(namespace = "slow")]
enum Happened {
    Once { counted: Counted },
}

/// Counts how many decoded events there are. Only the test of the projection decodes any.
#[derive(Debug, Serialize)]
struct Counted;

static DECODED: Held = Held::new();

impl Counted {
    fn new() -> Self {
        DECODED.begin();
        Self
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <()>::deserialize(deserializer).map(|()| Self::new())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        DECODED.end();
    }
}

/// Appends in many steps, each of which is answered whatever the consumers do.
async fn append(store: &TroubledStore, events: u64) {
    let stream = StreamId::new("s").unwrap();
    let event = NewEvent {
        id: EventId::generate(),
        event_type: "slow.Once".parse().unwrap(),
        schema_version: eventcore::SchemaVersion::default(),
        payload: eventcore::Payload::json(r#"{"counted":null}"#),
        metadata: EventMetadata::empty(),
    };
    for _ in 0..events / 100 {
        let request = (0..100).fold(AppendRequest::builder(), |request, _| {
            request.event(stream.clone(), NewEvent { id: EventId::generate(), ..event.clone() })
        });
        store.append(request.build().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn a_subscription_that_stands_still_holds_a_page_and_nobody_up() {
    let store = TroubledStore::default();
    append(&store, 1_000).await;
    let size = PageSize::try_new(200).unwrap();
    let mut feed = subscribe(store.clone(), EventFilter::all(), StartFrom::Beginning).page_size(size);
    let mut in_hand = feed.next().await.unwrap();
    // Every append is acknowledged although the consumer does not move.
    append(&store, EVENTS - 1_000).await;
    assert!(store.held.most() <= 200, "{} events held", store.held.most());
    let mut seen = 0;
    loop {
        match in_hand {
            FeedItem::Event(event) => {
                seen += 1;
                assert_eq!(event.position().get(), seen);
            }
            FeedItem::CaughtUp => break,
            FeedItem::FellBehind => {}
        }
        in_hand = feed.next().await.unwrap();
    }
    assert_eq!(seen, EVENTS);
    assert!(store.held.most() <= 200 + 1, "{} events held: a page, and one in hand", store.held.most());
}

#[tokio::test]
async fn a_lossy_subscription_holds_its_capacity_and_a_page() {
    let store = TroubledStore::default();
    let capacity = LossyCapacity::try_new(64).unwrap();
    let mut lossy = subscribe_lossy(store.clone(), EventFilter::all(), capacity).await.unwrap();
    append(&store, EVENTS).await;
    let (mut last, mut seen, mut lost) = (0, 0, 0);
    while last < EVENTS {
        match lossy.next().await {
            Ok(event) => {
                last = event.position().get();
                seen += 1;
            }
            Err(LossyError::Lagged(events)) => lost += events,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(seen + lost, EVENTS);
    let most = 64 + PageSize::default().get() + 1;
    assert!(store.held.most() <= most, "{} events held", store.held.most());
}

/// Stands still at its first event until it is let go.
struct Slow {
    applied: u64,
    begun: Arc<Notify>,
    go: Arc<Notify>,
}

impl Projector for Slow {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "slow"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), Self::Error> {
        if self.applied == 0 {
            self.begun.notify_one();
            self.go.notified().await;
        }
        self.applied += 1;
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_that_stands_still_holds_two_pages_and_nobody_up() {
    let store = TroubledStore::default();
    append(&store, 1_000).await;
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let run = tokio::spawn({
        let store = store.clone();
        let projector = Slow { applied: 0, begun: Arc::clone(&begun), go: Arc::clone(&go) };
        let config = ProjectionConfig::default().page_size(PageSize::try_new(200).unwrap());
        async move { run_projection(projector, &store, config).await.unwrap().projector.applied }
    });
    begun.notified().await;
    append(&store, EVENTS - 1_000).await;
    go.notify_one();
    // A batch ends where the log ended when it began.
    assert_eq!(run.await.unwrap(), 1_000);
    let rest = Slow { applied: 1, begun, go };
    let config = ProjectionConfig::default().page_size(PageSize::try_new(200).unwrap());
    assert_eq!(run_projection(rest, &store, config).await.unwrap().projector.applied, EVENTS + 1);
    assert!(store.held.most() <= 2 * 200, "{} events held: the page in hand and the next one", store.held.most());
    assert_eq!(DECODED.most(), 1, "only the event in hand is decoded");
}

/// The same events, of which nobody counts those that are decoded.
#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "slow")]
enum Uncounted {
    Once {},
}

/// Wants its events in order, and has effects of its own.
#[derive(Default)]
struct Quick {
    applied: u64,
}

impl Projector for Quick {
    type Event = Uncounted;
    type Error = std::convert::Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "quick"
    }

    async fn apply(&mut self, event: &RecordedEvent<Uncounted>, (): &mut ()) -> Result<(), Self::Error> {
        self.applied += 1;
        assert_eq!(event.position().get(), self.applied);
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_that_waits_for_its_store_reads_several_pages_at_once_and_applies_them_one_by_one() {
    let store = TroubledStore::default();
    append(&store, 3_000).await;
    store.be_slow();
    let config = ProjectionConfig::default().page_size(PageSize::try_new(100).unwrap());
    assert_eq!(run_projection(Quick::default(), &store, config).await.unwrap().projector.applied, 3_000);
    let asked = store.asked();
    assert_eq!(asked[..5], [100, 100, 200, 400, 500], "{asked:?}");
    assert!(asked[5..].iter().all(|asked| *asked == 500), "{asked:?}");
    assert!(store.held.most() <= 2 * 500, "{} events held", store.held.most());
    let pages: Vec<u64> = (100..=3_000).step_by(100).collect();
    assert_eq!(store.saved(), pages, "a checkpoint per page");
}

#[tokio::test]
async fn a_projection_that_its_store_waits_for_reads_one_page_ahead() {
    let store = TroubledStore::default();
    append(&store, 3_000).await;
    let config = ProjectionConfig::default().page_size(PageSize::try_new(100).unwrap());
    run_projection(Quick::default(), &store, config).await.unwrap();
    assert!(store.asked().iter().all(|asked| *asked == 100), "{:?}", store.asked());
    assert!(store.held.most() <= 2 * 100, "{} events held", store.held.most());
}
