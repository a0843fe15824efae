//! Many projections, supervised, on the memory store.

use crate::troubled_store::TroubledStore;
use eventcore::{
    Activity, AppendRequest, Backend, DeadLetterStore, Event, EventId, EventMetadata, EventStore, FailureContext,
    FailureStrategy, GlobalPosition, InMemory, LiveConfig, LiveState, ManagerError, NewEvent, PageSize, Partitions,
    Progress, ProjectionConfig, ProjectionManager, ProjectionState, Projector, RebuildState, RecordedEvent, StreamId,
    run_projection,
};
use eventcore_memory::MemoryEventStore;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Happened {
    Once { amount: u64 },
}

/// Sums amounts; fails, panics or waits when the test wants it.
#[derive(Clone)]
struct Sum {
    name: &'static str,
    total: u64,
    applied: u64,
    trouble: Arc<Trouble>,
}

#[derive(Default)]
struct Trouble {
    /// How often to fail before going on.
    failures: AtomicU64,
    panics: AtomicU64,
    /// When an event was tried.
    tried: Mutex<Vec<Instant>>,
    /// The run that has applied this many events waits until it is let go.
    hold_at: AtomicU64,
    let_go: tokio::sync::Notify,
    holds: tokio::sync::Notify,
}

#[derive(Debug, thiserror::Error)]
#[error("on purpose")]
struct OnPurpose;

fn take_one(counter: &AtomicU64) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Projector for Sum {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = InMemory;

    fn name(&self) -> &str {
        self.name
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), OnPurpose> {
        self.trouble.tried.lock().unwrap().push(Instant::now());
        if take_one(&self.trouble.failures) {
            return Err(OnPurpose);
        }
        assert!(!take_one(&self.trouble.panics), "on purpose");
        if self.applied > 0 && self.applied == self.trouble.hold_at.load(Ordering::SeqCst) {
            self.trouble.holds.notify_one();
            self.trouble.let_go.notified().await;
        }
        let Happened::Once { amount } = event.payload();
        self.total += amount;
        self.applied += 1;
        Ok(())
    }
}

/// A second type, since a manager knows projections by their type.
#[derive(Clone)]
struct Other(Sum);

impl Projector for Other {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = InMemory;

    fn name(&self) -> &str {
        "other"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, context: &mut InMemory) -> Result<(), OnPurpose> {
        self.0.apply(event, context).await
    }
}

/// A projection with a stored checkpoint.
struct Durable;

fn durable() -> Durable {
    Durable
}

impl Projector for Durable {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = ();

    fn name(&self) -> &str {
        "durable"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, (): &mut ()) -> Result<(), OnPurpose> {
        Ok(())
    }
}

fn sum(trouble: &Arc<Trouble>) -> impl Fn() -> Sum + Send + Sync + 'static {
    let trouble = Arc::clone(trouble);
    move || Sum { name: "sum", total: 0, applied: 0, trouble: Arc::clone(&trouble) }
}

fn quick() -> LiveConfig {
    LiveConfig::default().reconnect_delay(Duration::from_millis(1), Duration::from_millis(5))
}

async fn append(store: &impl EventStore, amounts: impl IntoIterator<Item = u64>) -> GlobalPosition {
    let stream = StreamId::new("s").unwrap();
    let request = amounts.into_iter().fold(AppendRequest::builder(), |request, amount| {
        let event = Happened::Once { amount };
        request.event(stream.clone(), NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()).unwrap())
    });
    store.append(request.build().unwrap()).await.unwrap().events.last().unwrap().position
}

#[tokio::test]
async fn live_shows_what_was_written_and_follows() {
    let store = MemoryEventStore::new();
    append(&store, [1, 2, 3]).await;
    let trouble = Arc::default();
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 6, "pulled, since nothing is live");
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    assert!(live.is_caught_up() && matches!(live.state(), LiveState::Live));
    let position = append(&store, [10]).await;
    live.wait_for(position).await.unwrap();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 16);
    append(&store, [100]).await;
    assert_eq!(manager.projection::<Sum>().await.unwrap().total, 116, "up to what was acknowledged");

    let status = manager.status().await.remove(0);
    assert_eq!((status.name.as_str(), status.lag, status.applied, status.restarts), ("sum", 0, 5, 0));
    assert!(status.leader && matches!(status.state, ProjectionState::Live), "{status:?}");
}

#[tokio::test]
async fn a_second_start_waits_for_the_shutdown_of_the_first() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let trouble = Arc::default();
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    let first = manager.start_live().unwrap();
    assert!(matches!(manager.start_live(), Err(ManagerError::AlreadyLive)));
    let again = first.clone();
    let (a, b) = tokio::join!(first.shutdown(), again.shutdown());
    a.unwrap();
    b.unwrap();
    assert!(matches!(first.state(), LiveState::Stopped));
    let head = append(&store, [1]).await;
    assert!(matches!(first.wait_for(head).await, Err(ManagerError::NotLive)));
    let second = manager.start_live().unwrap();
    second.wait_for(head).await.unwrap();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 2);
}

#[tokio::test]
async fn one_failing_projection_does_not_stop_the_others() {
    let store = MemoryEventStore::new();
    append(&store, [1, 2]).await;
    let broken = Arc::new(Trouble { failures: AtomicU64::new(u64::MAX), ..Trouble::default() });
    let healthy = Arc::default();
    let other = {
        let make = sum(&healthy);
        move || Other(make())
    };
    let manager = ProjectionManager::builder(store.clone())
        .register(sum(&broken))
        .unwrap()
        .register(other)
        .unwrap()
        .live_config(quick())
        .build();
    let live = manager.start_live().unwrap();
    let error = live.wait_until_caught_up().await.unwrap_err();
    assert!(matches!(&error, ManagerError::Failed { name, .. } if name.as_str() == "sum"), "{error:?}");
    let source = std::error::Error::source(&error).and_then(|source| source.source()).unwrap();
    assert!(source.is::<OnPurpose>(), "the original error is kept: {source:?}");
    assert!(matches!(live.state(), LiveState::Failed(_)));

    let head = append(&store, [4]).await;
    let progress = async {
        loop {
            let status = manager.status().await.remove(1);
            if status.position == Some(head) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(30), progress).await.unwrap();
    assert_eq!(status.applied, 3);
    assert_eq!(manager.live::<Other>().await.unwrap().0.total, 7);
    assert!(matches!(live.shutdown().await, Err(ManagerError::Failed { .. })), "the first error is told at the end");
}

#[tokio::test]
async fn a_panic_is_caught_shown_and_started_again() {
    let store = MemoryEventStore::new();
    append(&store, [1, 2]).await;
    let trouble = Arc::new(Trouble { panics: AtomicU64::new(2), ..Trouble::default() });
    let manager =
        ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().live_config(quick()).build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let status = manager.status().await.remove(0);
    assert_eq!(status.restarts, 2);
    assert!(status.last_error.is_some_and(|error| error.to_string().contains("panic")));
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 3, "nothing of the broken runs is left");
}

#[tokio::test]
async fn restarts_have_a_limit() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let trouble = Arc::new(Trouble { panics: AtomicU64::new(u64::MAX), ..Trouble::default() });
    let config = quick().max_restarts(eventcore::MaxRestarts::try_new(3).unwrap());
    let manager = ProjectionManager::builder(store).register(sum(&trouble)).unwrap().live_config(config).build();
    let live = manager.start_live().unwrap();
    assert!(matches!(live.wait_until_caught_up().await, Err(ManagerError::Failed { .. })));
    assert_eq!(manager.status().await[0].restarts, 3);
}

#[tokio::test(start_paused = true)]
async fn restarts_are_further_and_further_apart_until_it_has_caught_up() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let trouble = Arc::new(Trouble { panics: AtomicU64::new(8), ..Trouble::default() });
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let gaps = || {
        let mut tried = trouble.tried.lock().unwrap();
        let gaps: Vec<_> = tried.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        tried.clear();
        gaps
    };
    let growing = gaps();
    assert_eq!(growing.len(), 8);
    for (gap, longest) in growing.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
        // Timers have a resolution of 1 ms.
        assert!((longest / 2.0..longest + 0.01).contains(gap), "{gap} of at most {longest}: {growing:?}");
    }
    let shares: Vec<_> = growing.iter().skip(5).map(|gap| gap / 30.0).collect();
    assert!(shares.windows(2).any(|pair| (pair[0] - pair[1]).abs() > 0.001), "without jitter: {growing:?}");

    trouble.panics.store(1, Ordering::SeqCst);
    let head = append(&store, [1]).await;
    live.wait_for(head).await.unwrap();
    let again = gaps();
    assert!((0.5..1.01).contains(&again[0]), "it begins anew once it has caught up: {again:?}");
}

#[tokio::test]
async fn a_paused_projection_keeps_its_place() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let trouble = Arc::default();
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    manager.pause("sum").unwrap();
    let head = append(&store, [1]).await;
    let status = manager.status().await.remove(0);
    assert!(matches!(status.state, ProjectionState::Paused));
    assert_eq!((status.lag, status.position, status.head), (1, GlobalPosition::try_new(1).ok(), Some(head)));
    assert!(status.lag_time.is_some(), "behind, and since when is known");
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 1);
    manager.resume("sum").unwrap();
    live.wait_for(head).await.unwrap();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 2);
    assert_eq!(manager.status().await[0].applied, 2, "it went on where it was");
    assert!(matches!(manager.pause("nobody"), Err(ManagerError::Unknown { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_more_is_woken_by_an_append() {
    let store = MemoryEventStore::new();
    let poll = Duration::from_secs(3_600);
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let config = ProjectionConfig::default().continuous().poll_interval(poll);
    let config = config.progress(progress.clone()).shutdown(stop.clone());
    let run = tokio::spawn({
        let (store, projector) = (store.clone(), sum(&Arc::default())());
        async move { run_projection(projector, &store, config).await.unwrap() }
    });
    progress.wait_until(Activity::Live).await.unwrap();
    // Time passes only when nothing else is left to do.
    let since = tokio::time::Instant::now();
    progress.wait_for(append(&store, [1]).await).await.unwrap();
    assert!(since.elapsed() < poll, "it looked by itself");
    stop.cancel();
    assert_eq!(run.await.unwrap().projector.total, 1);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_the_rate_of_late_and_the_lag_in_time() {
    let store = MemoryEventStore::new();
    let manager = ProjectionManager::builder(store.clone()).register(sum(&Arc::default())).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_for(append(&store, (0..30).map(|_| 1)).await).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The poll after a second was full has measured.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = manager.status().await.remove(0);
    assert!(status.rate > 20.0 && status.rate <= 30.0, "{status:?}");
    assert_eq!((status.lag, status.lag_time), (0, Some(Duration::ZERO)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = manager.status().await.remove(0);
    assert_eq!((status.rate, status.applied), (0.0, 30), "nothing of late");
    live.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_projection_with_an_event_in_hand_can_be_shut_down() {
    let store = MemoryEventStore::new();
    let manager = ProjectionManager::builder(store.clone()).register(sum(&Arc::default())).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    manager.pause("sum").unwrap();
    append(&store, [1]).await;
    // Time passes only when nothing else is left to do, so the event is in hand by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::time::timeout(Duration::from_secs(60), live.shutdown()).await.expect("it stops").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_old_read_model_serves_until_the_new_one_has_caught_up() {
    let store = MemoryEventStore::new();
    append(&store, (0..500).map(|_| 1)).await;
    let trouble = Arc::new(Trouble::default());
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    assert!(matches!(manager.rebuild("sum").await, Err(ManagerError::NotLive)));
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    trouble.hold_at.store(250, Ordering::SeqCst);
    let mut rebuild = manager.rebuild("sum").await.unwrap();
    trouble.holds.notified().await;
    // Half of the new one is built. Who asks for the read model gets all of it, never half.
    trouble.hold_at.store(0, Ordering::SeqCst);
    assert!(!live.is_caught_up());
    let progress = rebuild.progress().await.unwrap();
    assert_eq!((progress.state, progress.head.map(|head| head.get())), (RebuildState::Building, Some(500)));
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 500);
    trouble.let_go.notify_one();
    rebuild.done().await.unwrap();
    let progress = rebuild.progress().await.unwrap();
    assert_eq!((progress.state, progress.position), (RebuildState::Done, progress.head));
    live.wait_until_caught_up().await.unwrap();
    let head = append(&store, [1]).await;
    live.wait_for(head).await.unwrap();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 501);
    assert_eq!(manager.status().await[0].restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn half_a_read_model_is_shown_to_nobody() {
    let store = MemoryEventStore::new();
    append(&store, [1, 2, 3]).await;
    let manager = ProjectionManager::builder(store.clone()).register(sum(&Arc::default())).unwrap().build();
    manager.pause("sum").unwrap();
    let live = manager.start_live().unwrap();
    // Time passes only when nothing else is left to do, so the run has begun and waits by then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(manager.status().await[0].state, ProjectionState::Paused));
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 6, "paused before it had caught up");
    live.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn while_a_read_model_is_rebuilt_the_old_one_serves_without_a_read() {
    let store = TroubledStore::default();
    append(&store, [1, 2, 3]).await;
    let trouble = Arc::new(Trouble::default());
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    trouble.hold_at.store(1, Ordering::SeqCst);
    let mut rebuild = manager.rebuild("sum").await.unwrap();
    trouble.holds.notified().await;
    let pages = store.pages();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 6);
    assert_eq!(store.pages(), pages, "the log was read though the old read model serves");
    trouble.let_go.notify_one();
    rebuild.done().await.unwrap();
    // The next run is no rebuild: while it catches up, the read model it began with is not shown as it was.
    let head = append(&store, [10]).await;
    live.wait_for(head).await.unwrap();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 16);
    live.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_paused_projection() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let trouble = Arc::default();
    let builder = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap();
    let manager = builder.register(durable).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    for name in ["sum", "durable"] {
        manager.pause(name).unwrap();
        let head = append(&store, [1]).await;
        let error = live.wait_for(head).await.unwrap_err();
        assert!(matches!(&error, ManagerError::Paused { name: paused } if paused.as_str() == name), "{error:?}");
        live.wait_until_caught_up().await.unwrap();
        manager.resume(name).unwrap();
        live.wait_for(head).await.unwrap();
    }
    // Also one that is paused while somebody waits.
    let head = GlobalPosition::try_new(100).unwrap();
    let waiting = tokio::spawn({
        let live = live.clone();
        async move { live.wait_for(head).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    manager.pause("sum").unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(ManagerError::Paused { .. })));
    append(&store, [1]).await;
    assert_eq!(manager.projection::<Sum>().await.unwrap().total, 4, "read from the log");
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 3, "as it stands");
    live.shutdown().await.unwrap();
}

/// Counts events per partition.
#[derive(Clone, Default)]
struct Part(u64);

impl Projector for Part {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = InMemory;

    fn name(&self) -> &str {
        "parts"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), OnPurpose> {
        self.0 += 1;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_partitioned_projection_is_registered_followed_and_rebuilt() {
    let store = MemoryEventStore::new();
    let spread = |count: u64| {
        let store = store.clone();
        async move {
            let mut last = None;
            for number in 0..count {
                let stream = StreamId::new(format!("s-{number}")).unwrap();
                let event = Happened::Once { amount: 1 };
                let event = NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()).unwrap();
                let request = AppendRequest::builder().event(stream, event).build().unwrap();
                last = Some(store.append(request).await.unwrap().events[0].position);
            }
            last.unwrap()
        }
    };
    spread(30).await;
    let partitions = Partitions::try_new(3).unwrap();
    let builder = ProjectionManager::builder(store.clone()).register_partitioned(partitions, |_| Part::default());
    let manager = builder.unwrap().build();
    let total = |parts: Vec<Part>| (parts.len(), parts.iter().map(|part| part.0).sum::<u64>());
    assert_eq!(total(manager.parts::<Part>().await.unwrap()), (3, 30), "pulled, since nothing is live");
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    live.wait_for(spread(30).await).await.unwrap();
    let parts = manager.parts::<Part>().await.unwrap();
    assert!(parts.iter().all(|part| part.0 > 0), "each has some streams");
    assert_eq!(total(parts), (3, 60));
    assert!(matches!(manager.live::<Part>().await, Err(ManagerError::Partitioned { .. })));
    assert!(matches!(manager.projection::<Part>().await, Err(ManagerError::Partitioned { .. })));
    manager.rebuild("parts").await.unwrap().done().await.unwrap();
    assert_eq!(total(manager.parts::<Part>().await.unwrap()), (3, 60));
    live.shutdown().await.unwrap();
}

/// Has effects of its own, and gives up on amounts that it does not like.
struct Picky {
    partition: usize,
    refuses: Arc<AtomicU64>,
    effects: Arc<Mutex<Vec<(usize, u64)>>>,
}

impl Projector for Picky {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = ();

    fn name(&self) -> &str {
        "picky"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, (): &mut ()) -> Result<(), OnPurpose> {
        let Happened::Once { amount } = event.payload();
        if *amount <= self.refuses.load(Ordering::SeqCst) {
            return Err(OnPurpose);
        }
        self.effects.lock().unwrap().push((self.partition, *amount));
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, OnPurpose>) -> FailureStrategy {
        FailureStrategy::DeadLetter
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_of_a_live_projection_are_listed_replayed_and_discarded() {
    for partitions in [1, 3] {
        let store = MemoryEventStore::new();
        let last = append(&store, [1, 2, 3, 4, 5, 6]).await;
        let (refuses, effects) = (Arc::new(AtomicU64::new(4)), Arc::new(Mutex::new(Vec::new())));
        let make = {
            let (refuses, effects) = (Arc::clone(&refuses), Arc::clone(&effects));
            move |partition| Picky { partition, refuses: Arc::clone(&refuses), effects: Arc::clone(&effects) }
        };
        let builder = ProjectionManager::builder(store.clone());
        let partitions = Partitions::try_new(partitions).unwrap();
        let builder = match partitions.get() {
            1 => builder.register(move || make(0)),
            _ => builder.register_partitioned(partitions, make),
        };
        let manager = builder.unwrap().build();
        let live = manager.start_live().unwrap();
        live.wait_for(last).await.unwrap();
        let all = PageSize::default();
        let letters = manager.dead_letters("picky", None, all).await.unwrap();
        let positions: Vec<_> = letters.iter().map(|letter| letter.id.position).collect();
        assert_eq!(positions.len(), 4);
        assert_eq!(manager.dead_letters("picky", Some(positions[1]), all).await.unwrap().len(), 2);

        let refused = manager.replay_dead_letter("picky", positions[0]).await.unwrap_err();
        let source = std::error::Error::source(&refused).and_then(std::error::Error::source);
        assert!(matches!(refused, ManagerError::ReplayFailed { .. }) && source.is_some_and(|s| s.is::<OnPurpose>()));
        refuses.store(2, Ordering::SeqCst);
        manager.replay_dead_letter("picky", positions[3]).await.unwrap();
        assert!(manager.discard_dead_letter("picky", positions[0]).await.unwrap());
        assert!(!manager.discard_dead_letter("picky", positions[0]).await.unwrap());
        let replayed = manager.replay_dead_letters("picky").await.unwrap();
        assert_eq!((replayed.replayed, replayed.failed), (1, 1));
        let gone = manager.replay_dead_letter("picky", positions[3]).await;
        assert!(matches!(gone, Err(ManagerError::NoSuchLetter { .. })), "{gone:?}");
        let part = partitions.of(&StreamId::new("s").unwrap());
        assert_eq!(*effects.lock().unwrap(), [(part, 5), (part, 6), (part, 4), (part, 3)]);

        // The projection goes on by itself, and one that was paused before stays so.
        live.wait_for(append(&store, [7]).await).await.unwrap();
        manager.pause("picky").unwrap();
        let again = manager.replay_dead_letters("picky").await.unwrap();
        assert_eq!((again.replayed, again.failed), (0, 1));
        assert!(matches!(manager.status().await[0].state, ProjectionState::Paused));
        assert!(matches!(manager.dead_letters("nobody", None, all).await, Err(ManagerError::Unknown { .. })));
        live.shutdown().await.unwrap();
    }
}

/// Has effects of its own, and gives up on events while it is told to fail; waits in each event while it is told to hold.
struct Stubborn {
    fails: Arc<AtomicBool>,
    holds: Arc<AtomicBool>,
    trouble: Arc<Trouble>,
}

impl Projector for Stubborn {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = ();

    fn name(&self) -> &str {
        "stubborn"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, (): &mut ()) -> Result<(), OnPurpose> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(OnPurpose);
        }
        if self.holds.load(Ordering::SeqCst) {
            self.trouble.holds.notify_one();
            self.trouble.let_go.notified().await;
        }
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, OnPurpose>) -> FailureStrategy {
        FailureStrategy::DeadLetter
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_does_while_letters_are_replayed_stands_and_nobody_else_notices() {
    let store = MemoryEventStore::new();
    let letter = append(&store, [1]).await;
    let (fails, holds) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let trouble = Arc::new(Trouble::default());
    let make = {
        let (fails, holds, trouble) = (Arc::clone(&fails), Arc::clone(&holds), Arc::clone(&trouble));
        move || Stubborn { fails: Arc::clone(&fails), holds: Arc::clone(&holds), trouble: Arc::clone(&trouble) }
    };
    let manager = ProjectionManager::builder(store.clone()).register(make).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_for(letter).await.unwrap();
    fails.store(false, Ordering::SeqCst);
    holds.store(true, Ordering::SeqCst);
    let replay = tokio::spawn({
        let manager = manager.clone();
        async move { manager.replay_dead_letters("stubborn").await }
    });
    trouble.holds.notified().await;

    // Who waits for what was written waits, since nobody has paused anything.
    let last = append(&store, [1]).await;
    let waiting = tokio::spawn({
        let live = live.clone();
        async move { live.wait_for(last).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "{:?}", waiting.await);
    let state = manager.status().await.remove(0).state;
    assert!(!matches!(state, ProjectionState::Paused), "{state:?} though nobody paused it");

    // To resume what is not paused lets nothing run beside the replay.
    manager.resume("stubborn").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished(), "the projection ran during the replay");
    manager.pause("stubborn").unwrap();
    assert!(matches!(waiting.await.unwrap(), Err(ManagerError::Paused { .. })));

    holds.store(false, Ordering::SeqCst);
    trouble.let_go.notify_one();
    assert_eq!(replay.await.unwrap().unwrap().replayed, 1);
    // Time passes only when nothing else is left to do.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = manager.status().await.remove(0);
    assert!(matches!(status.state, ProjectionState::Paused), "the end of the replay has resumed it: {status:?}");
    assert!(matches!(live.wait_for(last).await, Err(ManagerError::Paused { .. })));
    manager.resume("stubborn").unwrap();
    live.wait_for(last).await.unwrap();
    live.shutdown().await.unwrap();
}

/// Gives up on events that fail.
#[derive(Clone)]
struct GivesUp(Sum);

impl Projector for GivesUp {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = InMemory;

    fn name(&self) -> &str {
        "gives up"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, context: &mut InMemory) -> Result<(), OnPurpose> {
        self.0.apply(event, context).await
    }

    fn on_error(&mut self, _: &FailureContext<'_, OnPurpose>) -> FailureStrategy {
        FailureStrategy::DeadLetter
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_beside_the_live_projection_throws_none_of_its_dead_letters_away() {
    let store = MemoryEventStore::new();
    append(&store, [1, 2, 4]).await;
    let trouble = Arc::new(Trouble::default());
    trouble.failures.store(1, Ordering::SeqCst);
    let make = sum(&trouble);
    let builder = ProjectionManager::builder(store.clone()).register(move || GivesUp(make()));
    let manager = builder.unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    assert_eq!(manager.live::<GivesUp>().await.unwrap().0.total, 6, "all but the first one");

    // Not live, so the look is a run of its own. The event does not fail there, but the live read model still lacks it.
    manager.pause("gives up").unwrap();
    assert_eq!(manager.projection::<GivesUp>().await.unwrap().0.total, 7);
    let letters = store.dead_letters(None, None, PageSize::default()).await.unwrap();
    assert_eq!(letters.len(), 1, "the letter about what the live read model lacks is gone");
    live.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_told_and_nothing_is_missed() {
    let store = TroubledStore::default();
    append(&store, [1, 1]).await;
    let trouble = Arc::new(Trouble::default());
    let manager = ProjectionManager::builder(store.clone()).register(sum(&trouble)).unwrap().build();
    let live = manager.start_live().unwrap();
    let mut states = live.states();
    assert!(matches!(states.next().await, Some(LiveState::CatchingUp)));
    assert!(matches!(states.next().await, Some(LiveState::Live)));

    store.unplug();
    append(&store, [1]).await;
    assert!(matches!(states.next().await, Some(LiveState::Reconnecting)));
    assert!(!live.is_caught_up());
    // Long enough for the run to give up and be started again, many times over: all that is no other state.
    let other = tokio::time::timeout(Duration::from_secs(300), states.next()).await;
    assert!(other.is_err(), "{other:?} while the store is unreachable");
    let status = manager.status().await.remove(0);
    assert!(status.head_error.is_some(), "the head of an unreachable store");
    assert_eq!((status.head, status.lag), (None, 0), "it was not asked for before");
    assert!(matches!(status.state, ProjectionState::Reconnecting) && status.last_error.is_some(), "{status:?}");

    // The new run waits at its second event, so that nobody has to be quick to see what it does.
    trouble.hold_at.store(1, Ordering::SeqCst);
    store.plug_in();
    assert!(matches!(states.next().await, Some(LiveState::CatchingUp)));
    trouble.let_go.notify_one();
    assert!(matches!(states.next().await, Some(LiveState::Live)));
    let head = append(&store, [1]).await;
    live.wait_for(head).await.unwrap();
    assert_eq!(manager.live::<Sum>().await.unwrap().total, 4);
    let status = manager.status().await.remove(0);
    assert!(status.restarts > 5 && status.head_error.is_none() && status.head == Some(head), "{status:?}");
    store.unplug();
    let status = manager.status().await.remove(0);
    assert!(status.head_error.is_some() && status.head == Some(head), "what the store said last: {status:?}");
    store.plug_in();
    live.shutdown().await.unwrap();
    assert!(matches!(states.next().await, Some(LiveState::Stopped)));
    assert!(states.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_short_fault_is_told_too_and_nothing_is_started_again() {
    let store = TroubledStore::default();
    append(&store, [1]).await;
    let manager = ProjectionManager::builder(store.clone()).register(sum(&Arc::default())).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    let mut states = live.states();
    assert!(matches!(states.next().await, Some(LiveState::Live)));
    store.unplug();
    assert!(matches!(states.next().await, Some(LiveState::Reconnecting)));
    store.plug_in();
    let head = append(&store, [1]).await;
    live.wait_for(head).await.unwrap();
    while !matches!(states.next().await, Some(LiveState::Live)) {}
    let status = manager.status().await.remove(0);
    assert_eq!((status.applied, status.restarts), (2, 0), "it went on where it was");
    live.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_pauses_and_resumes_at_once_restarts_nothing() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let manager = ProjectionManager::builder(store.clone()).register(durable).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    for _ in 0..3 {
        manager.pause("durable").unwrap();
        manager.resume("durable").unwrap();
        let since = tokio::time::Instant::now();
        live.wait_for(append(&store, [1]).await).await.unwrap();
        assert!(since.elapsed() < Duration::from_secs(1), "it waited as after a failure");
    }
    assert_eq!(manager.status().await[0].restarts, 0, "nothing failed");
    manager.pause("durable").unwrap();
    append(&store, [1]).await;
    // Time passes only when nothing else is left to do.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = manager.status().await.remove(0);
    assert!(matches!(status.state, ProjectionState::Paused), "{status:?}");
    live.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_projection_that_failed_for_good_is_not_rebuilt() {
    let store = MemoryEventStore::new();
    append(&store, [1]).await;
    let trouble = Arc::new(Trouble { failures: AtomicU64::new(u64::MAX), ..Trouble::default() });
    let manager = ProjectionManager::builder(store).register(sum(&trouble)).unwrap().register(durable).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap_err();
    assert!(matches!(manager.rebuild("sum").await, Err(ManagerError::Failed { .. })));
    assert!(matches!(live.wait_until_caught_up().await, Err(ManagerError::Failed { .. })), "it still says so");
    live.shutdown().await.unwrap_err();
}

#[tokio::test]
async fn names_and_types_are_registered_once() {
    let trouble = Arc::default();
    let backend: Arc<dyn Backend> = Arc::new(MemoryEventStore::new());
    let builder = ProjectionManager::builder(backend).register(sum(&trouble)).unwrap();
    assert!(matches!(builder.register(sum(&trouble)), Err(ManagerError::Duplicate { .. })));
    let nameless = {
        let make = sum(&trouble);
        move || Sum { name: "", ..make() }
    };
    let builder = ProjectionManager::builder(MemoryEventStore::new());
    assert!(matches!(builder.register(nameless), Err(ManagerError::Name(_))));
    let manager = ProjectionManager::builder(MemoryEventStore::new()).register(sum(&trouble)).unwrap().build();
    assert!(matches!(manager.live::<Other>().await, Err(ManagerError::Unknown { .. })));
}

#[tokio::test(start_paused = true)]
async fn who_waits_where_a_projection_stands_by_waits_for_its_leader() {
    let store = MemoryEventStore::new();
    let leader = ProjectionManager::builder(store.clone()).register(durable).unwrap().build();
    let leading = leader.start_live().unwrap();
    leading.wait_for(append(&store, [1]).await).await.unwrap();
    let manager = ProjectionManager::builder(store.clone()).register(durable).unwrap().build();
    let live = manager.start_live().unwrap();
    live.wait_until_caught_up().await.unwrap();
    assert!(matches!(manager.status().await[0].state, ProjectionState::Standby));

    let ahead = GlobalPosition::try_new(3).unwrap();
    let waiting = tokio::spawn({
        let live = live.clone();
        async move { live.wait_for(ahead).await }
    });
    append(&store, [1]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!waiting.is_finished(), "nobody has come so far");
    append(&store, [1]).await;
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the leader has come so far").unwrap().unwrap();
    live.shutdown().await.unwrap();
    leading.shutdown().await.unwrap();
}
