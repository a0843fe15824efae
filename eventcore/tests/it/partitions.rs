//! Projections split by stream: the machines against a simulated store, the driver on the memory store.

use crate::troubled_store::TroubledStore;
use eventcore::{
    AppendRequest, Applied, Checkpoint, CheckpointStore, DeadLetterStore, Epoch, Event, EventFilter, EventId,
    EventMetadata, EventStore, FailureContext, FailureStrategy, Fault, GlobalPosition, InMemory, LineageId, LogCursor,
    NewEvent, PageDone, PageShape, PageSize, PartEffect, PartInput, PartMachine, Partitions, ProjectionConfig,
    ProjectionEffect, ProjectionError, ProjectionInput, ProjectionMachine, ProjectionName, ProjectionRules,
    ProjectionStop, Projector, RecordedEvent, RetryPolicy, Signals, StreamId, Timestamp, run_partitioned,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;
use tokio::sync::Barrier;
use tokio_util::sync::CancellationToken;

/// What happens at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Fine,
    Unavailable,
    /// The process dies and starts again, with another number of workers.
    Crash,
    /// It is told to stop, and started again.
    Stop,
    /// The leadership is no longer sure.
    Lost,
    Skip,
    Retry,
    Park,
    Fatal,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        14 => Just(Chance::Fine),
        1 => Just(Chance::Unavailable),
        1 => Just(Chance::Crash),
        1 => Just(Chance::Stop),
        1 => Just(Chance::Lost),
        1 => Just(Chance::Skip),
        2 => Just(Chance::Retry),
        1 => Just(Chance::Park),
        1 => Just(Chance::Fatal),
    ]
}

struct World {
    log: Vec<(LogCursor, StreamId)>,
    lineage: LineageId,
    page: usize,
    checkpoint_pages: u32,
    chances: VecDeque<Chance>,
    /// Whose turn it is among the workers.
    turns: VecDeque<usize>,
    workers: VecDeque<u32>,
    now: Duration,
    checkpoint: Option<LogCursor>,
    effects: Vec<u64>,
    skipped: BTreeSet<u64>,
    /// What has a dead letter, and what a worker gave up on that has none yet.
    letters: BTreeSet<u64>,
    given_up: BTreeSet<u64>,
    /// What every stream has come to since the run began at its checkpoint.
    reached: BTreeMap<StreamId, u64>,
    /// How often the run had to begin at its checkpoint.
    beginnings: usize,
    stop: bool,
    lost: bool,
}

impl World {
    fn chance(&mut self) -> Chance {
        self.chances.pop_front().unwrap_or(Chance::Fine)
    }

    fn run(&mut self) {
        for _ in 0..1_000 {
            (self.stop, self.lost) = (false, false);
            if self.live() {
                return;
            }
        }
        panic!("the batch does not end");
    }

    /// One process; whether it came to the end of the log.
    fn live(&mut self) -> bool {
        let rules = ProjectionRules {
            durable: true,
            transactional: false,
            partitioned: true,
            continuous: false,
            wait_for_leadership: true,
            accept_filter_change: false,
            poll_interval: Duration::from_millis(100),
            standby_interval: Duration::from_millis(100),
            failure_delay: Duration::from_millis(100),
            hold_time: Duration::from_millis(50),
            checkpoint_pages: self.checkpoint_pages,
            checkpoint_interval: Duration::from_secs(5),
            batch_patience: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            retries: 1_000,
            max_failures: 1_000,
            filter: EventFilter::all(),
            lineage: self.lineage,
        };
        let workers = self.workers.pop_front().unwrap_or(3);
        let mut machine = ProjectionMachine::<&'static str>::new(rules);
        let mut page: Vec<LogCursor> = Vec::new();
        let mut input = ProjectionInput::Start;
        for _ in 0..100_000 {
            let signals = Signals { now: self.now, stop: self.stop, lost: self.lost };
            let effect = machine.step(input, signals, 0.5);
            let chance = match effect {
                ProjectionEffect::ApplyParts { .. } => Chance::Fine,
                _ => self.chance(),
            };
            if chance == Chance::Crash {
                return false;
            }
            let down = (chance == Chance::Unavailable).then_some(Fault::Transient("unavailable"));
            input = match effect {
                ProjectionEffect::Finish(Ok(())) => return !self.stop || self.is_done(),
                ProjectionEffect::Finish(Err(ProjectionStop::Failed("fatal"))) => return false,
                ProjectionEffect::Finish(Err(stop)) => panic!("stopped: {stop:?}"),
                ProjectionEffect::Acquire => {
                    self.lost = false;
                    ProjectionInput::Acquired(down.map_or(Ok(()), Err))
                }
                ProjectionEffect::StepDown | ProjectionEffect::Begin | ProjectionEffect::Verify(_) => {
                    ProjectionInput::Done(Ok(()))
                }
                ProjectionEffect::Resume => {
                    self.beginnings += 1;
                    self.reached.clear();
                    self.given_up.clear();
                    // What comes after the checkpoint comes again.
                    let after = self.checkpoint.map_or(0, |cursor| cursor.position.get());
                    self.letters.retain(|position| *position <= after);
                    ProjectionInput::Resumed(Ok(self.checkpoint.map(|cursor| Checkpoint {
                        name: ProjectionName::new("p").unwrap(),
                        cursor: Some(cursor),
                        filter: EventFilter::all().identity(),
                        lineage: self.lineage,
                        updated_at: Timestamp::now(),
                    })))
                }
                ProjectionEffect::Head => ProjectionInput::Head(Ok(self.log.last().map(|(last, _)| last.position))),
                ProjectionEffect::Read { after } => {
                    let rest = self.log.iter().map(|(cursor, _)| *cursor).filter(|c| Some(c.position) > after);
                    page = rest.take(self.page).collect();
                    let (end, more) = (page.last().copied(), page.len() == self.page);
                    let shape = PageShape { end, more, events: page.clone() };
                    ProjectionInput::Read(down.map_or(Ok(shape), Err))
                }
                ProjectionEffect::ApplyParts { from, until } => {
                    match self.apply_parts(&page, from, until, Partitions::try_new(workers).unwrap()) {
                        Some(done) => ProjectionInput::AppliedParts(done),
                        None => return false,
                    }
                }
                ProjectionEffect::Park { index } => {
                    if down.is_none() {
                        let position = page[index].position.get();
                        assert!(self.given_up.contains(&position), "nobody gave up on {position}");
                        self.letters.insert(position);
                    }
                    ProjectionInput::Done(down.map_or(Ok(()), Err))
                }
                ProjectionEffect::Commit(cursor) if down.is_none() => {
                    assert!(Some(cursor.position) > self.checkpoint.map(|c| c.position), "a checkpoint went back");
                    for (event, _) in self.log.iter().filter(|(event, _)| event.position <= cursor.position) {
                        assert!(self.knows(event.position.get()), "the checkpoint ran ahead of {}", event.position);
                    }
                    self.checkpoint = Some(cursor);
                    ProjectionInput::Done(Ok(()))
                }
                ProjectionEffect::Commit(_) => ProjectionInput::Done(Err(Fault::Transient("unavailable"))),
                ProjectionEffect::Wait(time) | ProjectionEffect::Pause(time) => {
                    self.now += time;
                    ProjectionInput::Waited
                }
                other => panic!("{other:?}"),
            };
        }
        panic!("the run does not end");
    }

    /// The workers, in any order; `None` if the process dies.
    fn apply_parts(
        &mut self,
        page: &[LogCursor],
        from: usize,
        until: usize,
        partitions: Partitions,
    ) -> Option<PageDone<&'static str>> {
        let mut parts = vec![Vec::new(); partitions.get()];
        for (index, cursor) in page.iter().enumerate().take(until).skip(from) {
            parts[partitions.of(&self.stream_of(cursor.position.get()))].push(index);
        }
        let mut halt = false;
        let mut done = Vec::new();
        let mut at_work: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let mut machine = PartMachine::new(part, RetryPolicy::default(), 1_000);
                let effect = machine.step(PartInput::Start, halt, 0.5);
                (machine, effect)
            })
            .collect();
        while !at_work.is_empty() {
            let turn = self.turns.pop_front().unwrap_or(0) % at_work.len();
            let (mut machine, effect) = at_work.swap_remove(turn);
            let input = match effect {
                PartEffect::Apply { index, .. } => {
                    let chance = self.chance();
                    match chance {
                        Chance::Crash => return None,
                        Chance::Stop => (self.stop, halt) = (true, true),
                        Chance::Lost => (self.lost, halt) = (true, true),
                        _ => {}
                    }
                    PartInput::Applied(self.apply(page[index].position.get(), chance))
                }
                PartEffect::Pause(time) => {
                    self.now += time;
                    PartInput::Waited
                }
                PartEffect::Finish => {
                    let part = machine.finish();
                    halt |= part.failed.is_some();
                    done.push(part);
                    continue;
                }
            };
            let effect = machine.step(input, halt, 0.5);
            at_work.push((machine, effect));
        }
        Some(PageDone::of(until, done))
    }

    fn apply(&mut self, position: u64, chance: Chance) -> Applied<&'static str> {
        let stream = self.stream_of(position);
        let mut of_stream = self.log.iter().filter(|(_, s)| *s == stream).map(|(cursor, _)| cursor.position.get());
        if let Some(before) = of_stream.rfind(|other| *other < position) {
            assert!(
                self.knows(before) || self.given_up.contains(&before),
                "{position} came before {before} of its stream"
            );
        }
        let reached = self.reached.get(&stream).copied().unwrap_or(0);
        assert!(position > reached, "{position} came after {reached} in one run");
        let applied = match chance {
            Chance::Skip => Applied::Skip,
            Chance::Park => Applied::DeadLetter,
            Chance::Retry => return Applied::Retry("not yet"),
            Chance::Fatal => return Applied::Fatal("fatal"),
            _ => Applied::Ok,
        };
        self.reached.insert(stream, position);
        match applied {
            Applied::Ok => self.effects.push(position),
            Applied::DeadLetter => drop(self.given_up.insert(position)),
            _ => drop(self.skipped.insert(position)),
        }
        applied
    }

    fn stream_of(&self, position: u64) -> StreamId {
        self.log[position as usize - 1].1.clone()
    }

    fn knows(&self, position: u64) -> bool {
        [&self.skipped, &self.letters].iter().any(|known| known.contains(&position)) || self.effects.contains(&position)
    }

    fn is_done(&self) -> bool {
        self.checkpoint == self.log.last().map(|(last, _)| *last)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_stream_in_order_and_nothing_lost_whatever_happens(
        streams in prop::collection::vec(0_u8..6, 0..40), page in 1_usize..14, pages in 1_u32..4,
        workers in prop::collection::vec(1_u32..9, 0..20), turns in prop::collection::vec(any::<usize>(), 0..300),
        chances in prop::collection::vec(chance(), 0..200),
    ) {
        let log: Vec<_> = streams.iter().zip(1_u64..).map(|(stream, position)| {
            let cursor =
                LogCursor { position: GlobalPosition::try_new(position).unwrap(), event_id: EventId::generate() };
            (cursor, StreamId::new(format!("s-{stream}")).unwrap())
        }).collect();
        let mut world = World {
            log, lineage: LineageId::generate(), page, checkpoint_pages: pages, chances: chances.into(),
            turns: turns.into(), workers: workers.into(), now: Duration::ZERO, checkpoint: None, effects: Vec::new(),
            skipped: BTreeSet::new(), letters: BTreeSet::new(), given_up: BTreeSet::new(), reached: BTreeMap::new(), beginnings: 0, stop: false, lost: false,
        };
        world.run();
        prop_assert!((1..=streams.len() as u64).all(|position| world.knows(position)), "an event was lost");
        prop_assert!(world.is_done());
        let repeats = page * pages as usize * (world.beginnings - 1);
        prop_assert!(world.effects.len() <= streams.len() + repeats, "more than the pages in hand was repeated");
    }
}

#[test]
fn a_stream_belongs_to_the_same_partition_for_ever() {
    let of = |partitions: u32, stream: &str| Partitions::try_new(partitions).unwrap().of(&stream.parse().unwrap());
    let known = KNOWN_OF_EIGHT.map(|(stream, _)| (stream, of(8, stream)));
    assert_eq!(known, KNOWN_OF_EIGHT);
    assert!((1..=100).all(|n| of(1, &format!("account-{n}")) == 0));
    let mut counts = [0; 8];
    (0..8_000).for_each(|n| counts[of(8, &format!("account-{n}"))] += 1);
    assert!(counts.iter().all(|count| (800..1_200).contains(count)), "uneven: {counts:?}");
    assert!(Partitions::try_new(0).is_err() && Partitions::try_new(257).is_err());
    assert_eq!(Partitions::default().get(), 1);
}

/// Another answer would be another partition for streams of programs that are in use.
const KNOWN_OF_EIGHT: [(&str, usize); 4] = [("account-1", 4), ("account-2", 1), ("a", 0), ("日本", 4)];

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Happened {
    Once { number: u64 },
}

/// What was applied: streams and numbers.
type Seen = Vec<(StreamId, u64)>;

/// What the projectors of a run have in common.
#[derive(Default)]
struct Common {
    seen: Mutex<Seen>,
    epochs: Mutex<Vec<Epoch>>,
    /// How often the event with this number fails in stream `a`.
    fails: AtomicU64,
    strategy: Option<FailureStrategy>,
    stops: Option<CancellationToken>,
}

impl Common {
    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    /// The numbers seen of one stream.
    fn of(&self, stream: &str) -> Vec<u64> {
        self.seen().into_iter().filter(|(s, _)| s.as_str() == stream).map(|(_, number)| number).collect()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("on purpose")]
struct OnPurpose;

/// Durable effects of its own.
struct Durable(Arc<Common>);

/// The number of the event of stream `a` that has troubles.
const TROUBLE: u64 = 3;

impl Projector for Durable {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = ();

    fn name(&self) -> &str {
        "durable"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, (): &mut ()) -> Result<(), OnPurpose> {
        // So that the workers take turns.
        tokio::task::yield_now().await;
        let Happened::Once { number } = event.payload();
        if event.stream_id().as_str() == "a" && *number == TROUBLE {
            let left = self.0.fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() {
                return Err(OnPurpose);
            }
            if let Some(token) = &self.0.stops {
                token.cancel();
            }
        }
        self.0.seen.lock().unwrap().push((event.stream_id().clone(), *number));
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, OnPurpose>) -> FailureStrategy {
        self.0.strategy.unwrap_or(FailureStrategy::Fatal)
    }

    fn leading(&mut self, epoch: Epoch) {
        self.0.epochs.lock().unwrap().push(epoch);
    }
}

/// A read model in memory; waits for the others if there is a barrier, and panics at a number.
#[derive(Clone, Default)]
struct Part {
    seen: Seen,
    together: Option<Arc<Barrier>>,
    panics_at: Option<u64>,
}

impl Projector for Part {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = InMemory;

    fn name(&self) -> &str {
        "part"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), OnPurpose> {
        let Happened::Once { number } = event.payload();
        assert_ne!(self.panics_at, Some(*number), "on purpose");
        if let Some(together) = &self.together {
            together.wait().await;
        }
        self.seen.push((event.stream_id().clone(), *number));
        Ok(())
    }
}

/// Appends events 1 to `rounds` to each stream, in turns.
async fn store_with(streams: &[&str], rounds: u64) -> TroubledStore {
    let store = TroubledStore::default();
    append(&store, streams, 1..=rounds).await;
    store
}

async fn append(store: &TroubledStore, streams: &[&str], rounds: std::ops::RangeInclusive<u64>) {
    for number in rounds {
        let request = streams.iter().fold(AppendRequest::builder(), |request, stream| {
            let event = Happened::Once { number };
            let event = NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()).unwrap();
            request.event(stream.parse().unwrap(), event)
        });
        store.append(request.build().unwrap()).await.unwrap();
    }
}

fn pages_of(events: u32) -> ProjectionConfig {
    ProjectionConfig::default().page_size(PageSize::try_new(events).unwrap())
}

fn partitions(number: u32) -> Partitions {
    Partitions::try_new(number).unwrap()
}

/// Two streams of different partitions of two; the second one's worker is the run itself.
const APART: [&str; 2] = ["b", "a"];

async fn position_of_checkpoint(store: &TroubledStore) -> Option<u64> {
    let checkpoint = store.load_checkpoint(&"durable".parse().unwrap()).await.unwrap();
    checkpoint.and_then(|checkpoint| checkpoint.cursor).map(|cursor| cursor.position.get())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_together_hold_every_stream_in_order() {
    let names: Vec<String> = (0..23).map(|n| format!("account-{n}")).collect();
    let streams: Vec<&str> = names.iter().map(String::as_str).collect();
    let store = store_with(&streams, 30).await;
    for number in [1, 2, 3, 8, 64, 256] {
        let config = pages_of(100).partitions(partitions(number));
        let outcome = run_partitioned(|_| Part::default(), &store, config).await.unwrap();
        assert_eq!((outcome.applied, outcome.skipped), (23 * 30, 0));
        assert_eq!(outcome.position, store.head().await.unwrap());
        assert_eq!(outcome.projectors.len(), number as usize);
        let mut together: BTreeMap<StreamId, Vec<u64>> = BTreeMap::new();
        for (place, part) in outcome.projectors.iter().enumerate() {
            for (stream, number_in_stream) in &part.seen {
                assert_eq!(partitions(number).of(stream), place);
                together.entry(stream.clone()).or_default().push(*number_in_stream);
            }
        }
        assert_eq!(together.len(), 23);
        assert!(together.values().all(|numbers| numbers.iter().copied().eq(1..=30)), "{together:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn workers_work_at_once() {
    let store = store_with(&APART, 10).await;
    let together = Arc::new(Barrier::new(2));
    let make = |_| Part { together: Some(Arc::clone(&together)), ..Part::default() };
    let run = run_partitioned(make, &store, pages_of(7 * 2).partitions(partitions(2)));
    // One after the other they would wait for ever; the time is virtual.
    let outcome = tokio::time::timeout(Duration::from_secs(60), run).await.expect("they meet").unwrap();
    assert_eq!(outcome.applied, 20);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_tried_again_keeps_its_place_and_holds_up_its_own_partition_alone() {
    let store = store_with(&APART, 5).await;
    let common =
        Arc::new(Common { fails: AtomicU64::new(2), strategy: Some(FailureStrategy::Retry), ..Common::default() });
    let config = pages_of(100).partitions(partitions(2));
    let outcome = run_partitioned(|_| Durable(Arc::clone(&common)), &store, config).await.unwrap();
    assert_eq!((outcome.applied, outcome.skipped), (10, 0));
    assert_eq!((common.of("a"), common.of("b")), (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5]));
    let last_of_b = common.seen().iter().rposition(|(stream, _)| stream.as_str() == "b");
    let after_trouble = common.seen().iter().position(|(stream, n)| stream.as_str() == "a" && *n == TROUBLE);
    assert!(last_of_b < after_trouble, "the other partition went on: {:?}", common.seen());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_left_out_is_counted() {
    let store = store_with(&APART, 5).await;
    let common =
        Arc::new(Common { fails: AtomicU64::new(1), strategy: Some(FailureStrategy::Skip), ..Common::default() });
    let config = pages_of(4).partitions(partitions(3));
    let outcome = run_partitioned(|_| Durable(Arc::clone(&common)), &store, config).await.unwrap();
    assert_eq!((outcome.applied, outcome.skipped), (9, 1));
    assert_eq!(common.of("a"), [1, 2, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_a_worker_gives_up_on_becomes_a_dead_letter() {
    for (strategy, attempts) in [(FailureStrategy::DeadLetter, 1), (FailureStrategy::RetryThenDeadLetter, 4)] {
        for number in [2, 7] {
            let store = store_with(&APART, 5).await;
            let common = Arc::new(Common { fails: AtomicU64::new(4), strategy: Some(strategy), ..Common::default() });
            let config = pages_of(100).partitions(partitions(number));
            let outcome = run_partitioned(|_| Durable(Arc::clone(&common)), &store, config).await.unwrap();
            assert_eq!((outcome.applied, outcome.skipped, outcome.parked), (9, 0, 1));
            assert_eq!((common.of("a"), common.of("b")), (vec![1, 2, 4, 5], vec![1, 2, 3, 4, 5]));
            let letters = store.dead_letters(None, None, PageSize::default()).await.unwrap();
            let told: Vec<_> = letters.iter().map(|letter| (letter.id.position.get(), letter.attempts)).collect();
            assert_eq!(told, [(6, attempts)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_fatal_event_another_number_of_workers_goes_on_from_what_was_done_without_a_gap() {
    let store = store_with(&APART, 5).await;
    let common = Arc::new(Common { fails: AtomicU64::new(1), ..Common::default() });
    let run = |number| {
        let common = Arc::clone(&common);
        run_partitioned(move |_| Durable(Arc::clone(&common)), &store, pages_of(100).partitions(partitions(number)))
    };
    let failed = run(2).await.map(drop);
    assert!(matches!(failed, Err(ProjectionError::Apply { attempts: 1, .. })), "{failed:?}");
    // The event before the third one of stream `a`, the sixth of all, is the fifth.
    let saved = position_of_checkpoint(&store).await;
    assert!(saved.is_some() && saved <= Some(5), "{saved:?}");
    assert_eq!(common.of("a"), [1, 2]);
    let outcome = run(3).await.unwrap();
    assert_eq!(outcome.position, store.head().await.unwrap());
    for stream in APART {
        let mut numbers = common.of(stream);
        numbers.dedup();
        let distinct: BTreeSet<_> = numbers.iter().copied().collect();
        assert!(distinct.into_iter().eq(1..=5), "{stream}: {numbers:?}");
    }
    assert!(common.seen().len() <= 10 + 5, "what one worker was ahead of the other comes again: {:?}", common.seen());
    let epochs = common.epochs.lock().unwrap().clone();
    assert_eq!(epochs.len(), 2 + 3, "each projector is told each epoch: {epochs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_saves_what_is_done_without_a_gap() {
    let store = store_with(&APART, 5).await;
    let token = CancellationToken::new();
    let common = Arc::new(Common { stops: Some(token.clone()), ..Common::default() });
    let config = pages_of(100).shutdown(token).partitions(partitions(2));
    let outcome = run_partitioned(|_| Durable(Arc::clone(&common)), &store, config).await.unwrap();
    assert_eq!(common.of("a"), [1, 2, 3], "the event in hand is finished, no other one is begun");
    let saved = position_of_checkpoint(&store).await;
    assert_eq!(saved, outcome.position.map(GlobalPosition::get));
    assert!(saved.is_some() && saved <= Some(7), "{saved:?}");
    let again = run_partitioned(|_| Durable(Arc::clone(&common)), &store, pages_of(2).partitions(partitions(5)));
    assert_eq!(again.await.unwrap().position, store.head().await.unwrap());
}

#[tokio::test]
async fn a_panic_of_any_worker_is_a_panic_of_the_run() {
    let store = store_with(&APART, 5).await;
    for stream in APART {
        append(&store, &[stream], 66..=66).await;
        let store = store.clone();
        let run = tokio::spawn(async move {
            let make = |_| Part { panics_at: Some(66), ..Part::default() };
            run_partitioned(make, &store, pages_of(100).partitions(partitions(2))).await.map(drop)
        });
        assert!(run.await.unwrap_err().is_panic());
    }
}

/// Takes some time for each event, and tells when it begins.
struct Slowly(mpsc::Sender<()>);

impl Projector for Slowly {
    type Event = Happened;
    type Error = OnPurpose;
    type Context = InMemory;

    fn name(&self) -> &str {
        "slowly"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), OnPurpose> {
        self.0.send(()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

/// Keeps who wakes it until the other end is dropped.
struct Keeps(Mutex<mpsc::Receiver<()>>);

impl Wake for Keeps {
    fn wake(self: Arc<Self>) {
        let _ = self.0.lock().unwrap().recv();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_the_workers_hear_of_before_the_run_does_is_a_stop() {
    let store = store_with(&APART, 200).await;
    let shutdown = CancellationToken::new();
    // Told of the stop after the workers and before the run, whom it does not let be told before it has ended.
    let (ended, has_ended) = mpsc::channel();
    let mut between = pin!(shutdown.child_token().cancelled_owned());
    let keeps = Waker::from(Arc::new(Keeps(Mutex::new(has_ended))));
    assert!(between.as_mut().poll(&mut Context::from_waker(&keeps)).is_pending());
    let (begin, begun) = mpsc::channel();
    let stopping = std::thread::spawn({
        let shutdown = shutdown.clone();
        move || {
            begun.recv().unwrap();
            shutdown.cancel();
            // The projectors go on to tell.
            begun.iter().for_each(drop);
        }
    });
    let config = pages_of(1_000).shutdown(shutdown.clone()).partitions(partitions(2));
    let outcome = run_partitioned(move |_| Slowly(begin.clone()), &store, config).await;
    drop(ended);
    outcome.expect("a stop is no error");
    stopping.join().unwrap();
}
