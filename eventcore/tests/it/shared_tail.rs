//! Many live projections read the end of the log once.

use crate::troubled_store::TroubledStore;
use eventcore::{
    AppendRequest, Backend, Event, EventFilter, EventId, EventMetadata, EventStore, GlobalPosition, InMemory,
    LiveConfig, LiveState, NewEvent, PageSize, ProjectionManager, ProjectionManagerBuilder, Projector,
    ReadModelVersion, RecordedEvent, StreamId, StreamPrefix, VersionedProjector, WindowLimits,
};
use eventcore_memory::MemoryEventStore;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "tail")]
enum Happened {
    Common {},
    Rare {},
}

/// Where the projections say what they were given.
#[derive(Default)]
struct Seen {
    positions: Mutex<Vec<Vec<u64>>>,
    /// The projection that waits before its next event until it is let go; 0 is none.
    slow: AtomicU64,
    waits: Notify,
    let_go: Notify,
}

impl Seen {
    fn of(&self, number: usize) -> Vec<u64> {
        self.positions.lock().unwrap().get(number).cloned().unwrap_or_default()
    }
}

/// One of many projections. Each third one wants another part of the log.
#[derive(Clone)]
struct Nth<const N: usize>(Arc<Seen>, String);

impl<const N: usize> Nth<N> {
    fn wants() -> EventFilter {
        match N % 3 {
            0 => EventFilter::of::<Happened>(),
            1 => EventFilter::all().types(["tail.Rare".parse().unwrap()]),
            _ => EventFilter::of::<Happened>().stream_prefix(StreamPrefix::new("a-").unwrap()),
        }
    }
}

impl<const N: usize> Projector for Nth<N> {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        &self.1
    }

    fn filter(&self) -> EventFilter {
        Self::wants()
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), Self::Error> {
        if self.0.slow.load(Ordering::SeqCst) == N as u64 && N > 0 {
            self.0.waits.notify_one();
            self.0.let_go.notified().await;
        }
        let mut seen = self.0.positions.lock().unwrap();
        let number = seen.len().max(N + 1);
        seen.resize(number, Vec::new());
        seen[N].push(event.position().get());
        Ok(())
    }
}

fn register<const N: usize, B: Backend + Clone + 'static>(
    builder: ProjectionManagerBuilder<B>,
    seen: &Arc<Seen>,
) -> ProjectionManagerBuilder<B> {
    let seen = Arc::clone(seen);
    builder.register(move || Nth::<N>(Arc::clone(&seen), format!("nth-{N}"))).unwrap()
}

macro_rules! register_all {
    ($builder:expr, $seen:expr, $($number:literal)+) => {{
        let builder = $builder;
        $(let builder = register::<$number, _>(builder, $seen);)+
        builder
    }};
}

fn twenty(store: &TroubledStore, seen: &Arc<Seen>, config: LiveConfig) -> ProjectionManager<TroubledStore> {
    let builder = ProjectionManager::builder(store.clone()).live_config(config);
    register_all!(builder, seen, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19).build()
}

async fn append(store: &impl EventStore, number: u64) -> GlobalPosition {
    let event = if number.is_multiple_of(7) { Happened::Rare {} } else { Happened::Common {} };
    let stream = StreamId::new(format!("{}-{}", if number.is_multiple_of(2) { "a" } else { "b" }, number % 5)).unwrap();
    let event = NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()).unwrap();
    let request = AppendRequest::builder().event(stream, event).build().unwrap();
    store.append(request).await.unwrap().events[0].position
}

/// What each projection should have seen of the whole log.
async fn assert_complete(store: &MemoryEventStore, seen: &Seen) {
    use eventcore::EventReader;
    let page = store.read_page(&EventFilter::all(), None, PageSize::try_new(10_000).unwrap()).await.unwrap();
    for number in 0..20 {
        let wants = [Nth::<0>::wants(), Nth::<1>::wants(), Nth::<2>::wants()][number % 3].clone();
        let wanted = page.events.iter().filter(|event| wants.matches(event.stream_id(), event.event_type()));
        let wanted: Vec<u64> = wanted.map(|event| event.position().get()).collect();
        assert_eq!(seen.of(number), wanted, "projection {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn twenty_projections_read_the_end_of_the_log_once() {
    let store = TroubledStore::default();
    for number in 0..50 {
        append(&store, number).await;
    }
    let seen = Arc::new(Seen::default());
    let live = twenty(&store, &seen, LiveConfig::default()).start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let before = store.pages();
    for number in 0..1_000 {
        let position = append(&store, number).await;
        live.wait_for(position).await.unwrap();
    }
    let read = store.pages() - before;
    println!("20 projections, 1,000 appends: {read} pages read");
    assert!(read <= 1_100, "{read} pages were read for 1,000 appends");
    live.shutdown().await.unwrap();
    assert_complete(&store.store, &seen).await;
}

#[tokio::test(start_paused = true)]
async fn twenty_idle_projections_look_as_often_as_one() {
    let store = TroubledStore::default();
    append(&store, 0).await;
    let seen = Arc::new(Seen::default());
    let live = twenty(&store, &seen, LiveConfig::default()).start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let before = store.pages();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let read = store.pages() - before;
    println!("20 idle projections, 60 s: {read} pages read");
    assert!(read <= 650, "{read} pages were read in 60 s, at 100 ms apart");
    let position = append(&store, 0).await;
    live.wait_for(position).await.unwrap();
    live.shutdown().await.unwrap();
    assert_complete(&store.store, &seen).await;
}

#[tokio::test(start_paused = true)]
async fn who_is_slow_keeps_nobody_waiting_and_misses_nothing() {
    let store = TroubledStore::default();
    append(&store, 0).await;
    let seen = Arc::new(Seen::default());
    // Room for a few events, so that the slow one is left behind.
    let limits = WindowLimits { max_events: 20, max_bytes: 1 << 20 };
    let config = LiveConfig::default().shared_window(limits).page_size(PageSize::try_new(7).unwrap());
    let manager = twenty(&store, &seen, config);
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    seen.slow.store(3, Ordering::SeqCst);
    let mut last = append(&store, 1).await;
    seen.waits.notified().await;
    for number in 2..200 {
        last = append(&store, number).await;
    }
    // Everybody else is done with all of it.
    while (0..20).filter(|number| number % 3 == 0 && *number != 3).any(|number| seen.of(number).len() < 200) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(seen.of(3).len(), 1, "the slow one waits");
    seen.slow.store(0, Ordering::SeqCst);
    seen.let_go.notify_one();
    live.wait_for(last).await.unwrap();
    // It has come near, and reads with the others again.
    let before = store.pages();
    for number in 0..100 {
        let position = append(&store, number).await;
        live.wait_for(position).await.unwrap();
    }
    let read = store.pages() - before;
    assert!(read <= 150, "{read} pages were read for 100 appends");
    live.shutdown().await.unwrap();
    assert_complete(&store.store, &seen).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_seen_by_all_and_nothing_is_missed_or_shown_twice() {
    let store = TroubledStore::default();
    append(&store, 0).await;
    let seen = Arc::new(Seen::default());
    let manager = twenty(&store, &seen, LiveConfig::default());
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    store.unplug();
    for number in 0..30 {
        append(&store, number).await;
    }
    // Shorter than what is endured: no run ends, and no read model begins anew.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!live.is_caught_up());
    store.plug_in();
    let last = append(&store, 30).await;
    live.wait_for(last).await.unwrap();
    live.wait_until_caught_up().await.unwrap();
    let before = store.pages();
    for number in 0..100 {
        let position = append(&store, number).await;
        live.wait_for(position).await.unwrap();
    }
    assert!(store.pages() - before <= 150, "they read together again");
    live.shutdown().await.unwrap();
    assert_complete(&store.store, &seen).await;
}

// One worker runs what was woken last first, so a shutdown that does not wait for the reader returns before it has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_restart_the_end_is_read_by_the_new_reader_alone() {
    let test = tokio::spawn(async {
        let store = TroubledStore::default();
        append(&store, 0).await;
        let seen = Arc::new(Seen::default());
        let manager = twenty(&store, &seen, LiveConfig::default());
        let mut live = manager.start_live().unwrap();
        for number in 1..20 {
            live.wait_until_caught_up().await.unwrap();
            let stalled = store.stall_reads().await;
            append(&store, number).await;
            // The event is on its way to the window of this run.
            while store.reading.now() == 0 {
                tokio::task::yield_now().await;
            }
            live.shutdown().await.unwrap();
            let left = store.reading.now();
            drop(stalled);
            live = manager.start_live().unwrap();
            assert_eq!(left, 0, "the old run still reads when the new one begins");
        }
        live.shutdown().await.unwrap();
    });
    test.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_started_again_reads_the_end_of_the_log_once() {
    let store = TroubledStore::default();
    let seen = Arc::new(Seen::default());
    let manager = twenty(&store, &seen, LiveConfig::default());
    for number in 0..5 {
        append(&store, number).await;
        let live = manager.start_live().unwrap();
        live.wait_until_caught_up().await.unwrap();
        live.shutdown().await.unwrap();
    }
    // The read models of each run begin anew.
    seen.positions.lock().unwrap().clear();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let before = store.pages();
    for number in 5..205 {
        let position = append(&store, number).await;
        live.wait_for(position).await.unwrap();
    }
    let read = store.pages() - before;
    assert!(read <= 220, "{read} pages were read for 200 appends");
    live.shutdown().await.unwrap();
    assert_complete(&store.store, &seen).await;
}

/// A projection with versions. The second one waits at its third event until it is let go.
struct OfVersion {
    version: ReadModelVersion,
    seen: Arc<Seen>,
    applied: u64,
}

impl Projector for OfVersion {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "versions"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, (): &mut ()) -> Result<(), Self::Error> {
        self.applied += 1;
        if (self.version.into_inner(), self.applied) == (2, 3) {
            self.seen.waits.notify_one();
            self.seen.let_go.notified().await;
        }
        Ok(())
    }
}

impl VersionedProjector for OfVersion {
    async fn prepare(&mut self, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }
    async fn activate(&mut self, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }
    async fn retire(&mut self, (): &mut ()) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn each_version_of_a_read_model_hears_of_an_outage_and_makes_sure_of_its_place() {
    let store = TroubledStore::default();
    for number in 0..20 {
        append(&store, number).await;
    }
    store.model.lock().unwrap().in_force = Some(ReadModelVersion::try_new(1).unwrap());
    let seen = Arc::new(Seen::default());
    let make = {
        let seen = Arc::clone(&seen);
        move |version| OfVersion { version, seen: Arc::clone(&seen), applied: 0 }
    };
    let config = LiveConfig::default().page_size(PageSize::try_new(2).unwrap());
    let builder = ProjectionManager::builder(store.clone()).live_config(config);
    let manager = builder.register_versioned(make).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let mut rebuild = manager.rebuild("versions").await.unwrap();
    seen.waits.notified().await;

    // The version in force is at the end, the one that is built far from it.
    let verified = |at_end: bool| store.verified().iter().filter(|position| (**position >= 20) == at_end).count();
    let before = (verified(true), verified(false));
    store.unplug();
    while !matches!(live.state(), LiveState::Reconnecting) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    store.plug_in();
    let last = append(&store, 20).await;
    live.wait_for(last).await.unwrap();
    assert!(verified(true) > before.0, "the version in force goes on from a place that may be gone");
    assert_eq!(verified(false), before.1, "the new one has still an event in hand");
    seen.let_go.notify_one();
    rebuild.done().await.unwrap();
    assert!(verified(false) > before.1, "the version that is built goes on from a place that may be gone");
    live.shutdown().await.unwrap();
}
