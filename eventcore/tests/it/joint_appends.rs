//! Commands that are decided on what those before them decided: whatever happens, each was decided on what is stored before
//! its events, has one effect, and is answered.

use async_trait::async_trait;
use eventcore::{
    AppendLimits, AppendRequest, Appended, Command, CommandContext, CommandError, CommandExecutor, CommandId,
    CommandLogic, Event, EventId, EventMetadata, EventStore, EventStoreError, ExecutionOutcome, ExpectedVersion,
    GlobalPosition, MaxAttempts, NewEvent, NewEvents, ReadStreams, RecordedEvent, RetryPolicy, StateFold, StreamId,
    StreamState, StreamVersion, StreamsRead, Timestamp, require,
};
use eventcore_memory::{MemoryConfig, MemoryEventStore};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const LATENCY: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Fact {
    /// Noted by a command that had seen all of this.
    Noted {
        command: u64,
        seen: u64,
    },
    Foreign {
        number: u64,
    },
}

/// What tells apart any two histories.
#[derive(Debug, Default, Clone)]
struct Seen(u64);

impl StreamState for Seen {
    type Event = Fact;

    fn apply(&mut self, event: &RecordedEvent<Fact>) {
        let (kind, number) = match event.payload() {
            Fact::Noted { command, .. } => (3, *command),
            Fact::Foreign { number } => (5, *number),
        };
        let stream = event.stream_id().as_str().bytes().map(u64::from).sum::<u64>();
        for part in [kind, number, stream, event.version().get()] {
            self.0 = (self.0 ^ part).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("no, after {0}")]
struct No(u64);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    /// Notes something.
    Ready,
    /// Says no to every third history.
    Fussy,
    /// Has nothing to note after every third history.
    Idle,
    Panics,
}

/// Notes what it has seen in its streams, in each of them.
#[derive(Debug, Clone, Command)]
struct Note {
    #[stream]
    to: Vec<StreamId>,
    command: u64,
    mood: Mood,
}

impl CommandLogic for Note {
    type Event = Fact;
    type State = Seen;
    type Error = No;

    fn apply(&self, _: &mut Seen, _: &RecordedEvent<Fact>) {
        panic!("the state folds by itself");
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::by_state().timeless()
    }

    fn handle(&self, state: &Seen, streams: &NoteStreams) -> Result<NewEvents<Self>, No> {
        let third = state.0 % 3 == 1;
        require!(self.mood != Mood::Fussy || !third, No(state.0));
        assert!(self.mood != Mood::Panics, "a command panics");
        if self.mood == Mood::Idle && third {
            return Ok(NewEvents::new());
        }
        let note = |events: NewEvents<Self>, stream| {
            events.append(stream, Fact::Noted { command: self.command, seen: state.0 })
        };
        Ok(streams.to.iter().fold(NewEvents::new(), note))
    }
}

/// What the store does with one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Fine,
    Race,
    Unavailable,
    LostAfter,
    LostBefore,
    LostAndRace,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        4 => Just(Chance::Fine),
        1 => Just(Chance::Race),
        1 => Just(Chance::Unavailable),
        1 => Just(Chance::LostAfter),
        1 => Just(Chance::LostBefore),
        1 => Just(Chance::LostAndRace),
    ]
}

/// A store that takes its time, which is virtual here.
#[derive(Clone)]
struct Store {
    inner: MemoryEventStore,
    chances: Arc<Mutex<VecDeque<Chance>>>,
    appends: Arc<AtomicU64>,
}

impl Store {
    fn new(chances: Vec<Chance>) -> Self {
        Self::with(chances, MemoryConfig::default())
    }

    fn with(chances: Vec<Chance>, config: MemoryConfig) -> Self {
        let inner = MemoryEventStore::with_config(config);
        Self { inner, chances: Arc::new(Mutex::new(chances.into())), appends: Arc::default() }
    }

    async fn race(&self, number: u64, request: &AppendRequest) {
        let stream = request.streams()[0].stream_id.clone();
        let event = Fact::Foreign { number };
        let event = NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()).unwrap();
        let foreign = AppendRequest::builder().expect(stream.clone(), ExpectedVersion::Any).event(stream, event);
        self.inner.append(foreign.build().unwrap()).await.unwrap();
    }

    /// All events, in order, and for each stream its own.
    async fn log(&self, streams: &[StreamId]) -> Vec<RecordedEvent<Fact>> {
        let read = self.inner.read_streams(ReadStreams::new(streams.iter().cloned()).unwrap()).await.unwrap();
        read.events.into_iter().map(|event| event.decode().unwrap()).collect()
    }
}

#[async_trait]
impl EventStore for Store {
    async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        let number = self.appends.fetch_add(1, Ordering::SeqCst);
        let chance = self.chances.lock().unwrap().pop_front().unwrap_or(Chance::Fine);
        sleep(LATENCY).await;
        match chance {
            Chance::Race => self.race(number, &request).await,
            Chance::Unavailable => return Err(EventStoreError::unavailable("no connection")),
            Chance::LostBefore => return Err(EventStoreError::outcome_unknown("connection lost")),
            _ => {}
        }
        let result = self.inner.append(request.clone()).await;
        if chance == Chance::LostAndRace {
            self.race(number, &request).await;
        }
        sleep(LATENCY).await;
        match chance {
            Chance::LostAfter | Chance::LostAndRace => Err(EventStoreError::outcome_unknown("connection lost")),
            _ => result,
        }
    }
    async fn read_streams(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        let read = self.inner.read_streams(request).await;
        sleep(LATENCY).await;
        read
    }
    async fn stream_version(&self, stream_id: &StreamId) -> Result<StreamVersion, EventStoreError> {
        self.inner.stream_version(stream_id).await
    }
    async fn head(&self) -> Result<Option<GlobalPosition>, EventStoreError> {
        self.inner.head().await
    }
    async fn prune_receipts(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        self.inner.prune_receipts(older_than).await
    }
    async fn close(&self) -> Result<(), EventStoreError> {
        self.inner.close().await
    }
}

type Executor = CommandExecutor<Store>;
type Answer = Result<ExecutionOutcome, CommandError<No>>;

fn executor(store: &Store) -> Executor {
    CommandExecutor::new(store.clone()).retry(tireless()).state_cache(100)
}

fn tireless() -> RetryPolicy {
    RetryPolicy::default().max_attempts(MaxAttempts::try_new(1_000).unwrap())
}

fn hot() -> StreamId {
    StreamId::new("hot").unwrap()
}

fn note(command: u64, mood: Mood) -> Note {
    Note { to: vec![hot()], command, mood }
}

/// Every command's events stand together, after exactly what it had seen.
fn check_decisions(log: &[RecordedEvent<Fact>], streams_of: impl Fn(u64) -> Vec<StreamId>) {
    for (index, event) in log.iter().enumerate() {
        let Fact::Noted { command, seen } = event.payload() else { continue };
        let streams = streams_of(*command);
        let mut before = Seen::default();
        let others = log[..index].iter().filter(|event| streams.contains(event.stream_id()));
        let its_own =
            |event: &&RecordedEvent<Fact>| !matches!(event.payload(), Fact::Noted { command: c, .. } if c == command);
        others.filter(its_own).for_each(|event| before.apply(event));
        assert_eq!(before.0, *seen, "command {command} was decided on something that is not stored before it");
    }
}

/// Whether a reader of these streams can ever have seen this. Appends are atomic, but any prefix will do.
fn has_been(log: &[RecordedEvent<Fact>], streams: &[StreamId], seen: u64) -> bool {
    let mut state = Seen::default();
    let of_them = log.iter().filter(|event| streams.contains(event.stream_id()));
    let mut later = of_them.map(|event| {
        state.apply(event);
        state.0
    });
    seen == 0 || later.any(|state| state == seen)
}

#[tokio::test(start_paused = true)]
async fn commands_on_one_stream_are_stored_together() {
    const CALLERS: u64 = 16;
    const EACH: u64 = 25;
    let store = Store::new(Vec::new());
    let executor = executor(&store);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let executor = executor.clone();
        callers.spawn(async move {
            for number in 0..EACH {
                let outcome = executor.execute(note(caller * EACH + number, Mood::Ready)).await.unwrap();
                assert_eq!((outcome.attempts(), outcome.events().len()), (1, 1), "decisions and events");
            }
        });
    }
    timeout(Duration::from_secs(3_600), callers.join_all()).await.expect("callers wait for each other");
    let log = store.log(&[hot()]).await;
    assert_eq!(log.len() as u64, CALLERS * EACH);
    check_decisions(&log, |_| vec![hot()]);
    let appends = store.appends.load(Ordering::SeqCst);
    assert!(appends <= 2 * EACH, "{appends} appends for {} commands of {CALLERS} callers", CALLERS * EACH);
}

#[tokio::test(start_paused = true)]
async fn the_outcome_tells_of_the_own_events_alone() {
    let store = Store::new(Vec::new());
    let executor = executor(&store);
    let answers = together(&executor, (0..10).map(|command| note(command, Mood::Ready))).await;
    let log = store.log(&[hot()]).await;
    for (command, answer) in answers {
        let outcome = answer.unwrap();
        let stored =
            log.iter().find(|event| matches!(event.payload(), Fact::Noted { command: c, .. } if *c == command));
        let stored = stored.unwrap();
        assert_eq!(outcome.events().len(), 1);
        assert_eq!((outcome.position(), outcome.version_of(&hot())), (Some(stored.position()), Some(stored.version())));
        assert_eq!(outcome.recorded_at(), Some(stored.recorded_at()));
    }
}

/// Executes commands all at once.
async fn together(executor: &Executor, notes: impl Iterator<Item = Note>) -> BTreeMap<u64, Answer> {
    let mut running = JoinSet::new();
    for note in notes {
        let executor = executor.clone();
        running.spawn(async move { (note.command, executor.execute(note).await) });
    }
    let answers = timeout(Duration::from_secs(3_600), running.join_all()).await;
    answers.expect("callers wait for each other").into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_command_with_an_id_has_an_append_of_its_own() {
    let store = Store::new(Vec::new());
    let executor = executor(&store);
    let mut running = JoinSet::new();
    for command in 0..8 {
        let executor = executor.clone();
        let context = CommandContext::new().command_id(CommandId::new(format!("c{}", command / 2)).unwrap());
        running.spawn(async move { executor.execute_with(context, note(command, Mood::Ready)).await.unwrap() });
    }
    let outcomes = running.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.replayed()).count(), 4);
    let log = store.log(&[hot()]).await;
    assert_eq!(log.len(), 4);
    check_decisions(&log, |_| vec![hot()]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_takes_nobody_along() {
    // At every moment of the first command's life. The store never fails: nothing has to be tried again.
    for (given_up_after, retry) in (0..=30).flat_map(|after| [(after, tireless()), (after, RetryPolicy::none())]) {
        let store = Store::new(Vec::new());
        let executor = executor(&store).retry(retry);
        let first = executor.clone();
        let first = async move {
            let given_up = Duration::from_millis(given_up_after);
            timeout(given_up, first.execute(note(100, Mood::Ready))).await.is_ok()
        };
        let first = tokio::spawn(first);
        let answers = together(&executor, (0..5).map(|command| note(command, Mood::Ready))).await;
        assert!(answers.values().all(Result::is_ok), "given up after {given_up_after} ms: {answers:?}");
        let answered = first.await.unwrap();
        let log = store.log(&[hot()]).await;
        check_decisions(&log, |_| vec![hot()]);
        assert!(log.len() == 6 || log.len() == 5 && !answered, "{} events", log.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_its_caller_does_not_poll_keeps_nobody_for_ever() {
    // Left alone while it reads, and while its append is under way, with others in it.
    let (reads, appends) = (LATENCY / 2, LATENCY * 3 / 2);
    for (polled, retry) in [(reads, tireless()), (appends, tireless()), (appends, RetryPolicy::none())] {
        let store = Store::new(Vec::new());
        let executor = executor(&store).retry(retry);
        let mut left_alone = Box::pin(executor.execute(note(100, Mood::Ready)));
        assert!(timeout(Duration::ZERO, &mut left_alone).await.is_err());
        let others = executor.clone();
        let others = tokio::spawn(async move { together(&others, (0..5).map(|c| note(c, Mood::Ready))).await });
        assert!(timeout(polled, &mut left_alone).await.is_err());
        let answers = others.await.unwrap();
        assert!(answers.values().all(Result::is_ok), "{answers:?}");
        if polled == reads {
            assert_eq!(store.appends.load(Ordering::SeqCst), 1, "appends of those who went on without it");
        }
        // Nobody waits for it a second time.
        let later = timeout(Duration::from_secs(1), executor.execute(note(200, Mood::Ready))).await;
        assert!(later.is_ok_and(|answer| answer.is_ok()), "a later command waits too");
        left_alone.await.unwrap();
        let log = store.log(&[hot()]).await;
        assert_eq!(log.len(), 7);
        check_decisions(&log, |_| vec![hot()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_found_in_a_stream_that_is_too_long_to_be_read() {
    let config = MemoryConfig { max_read_events: 10, ..MemoryConfig::default() };
    // The command that leads, and one that is taken along.
    for lost in [1, 2] {
        let store = Store::with(Vec::new(), config);
        let executor = executor(&store);
        for command in 0..20 {
            executor.execute(note(command, Mood::Ready)).await.unwrap();
        }
        store.chances.lock().unwrap().push_back(Chance::LostAfter);
        let answers = together(&executor, (20..20 + lost).map(|command| note(command, Mood::Ready))).await;
        assert!(answers.values().all(Result::is_ok), "{answers:?}");
        assert_eq!(store.inner.stream_version(&hot()).await.unwrap().get(), 20 + lost);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_reaches_the_caller_of_the_command_that_panics_and_nobody_else() {
    let store = Store::new(Vec::new());
    let executor = executor(&store);
    let mut running = JoinSet::new();
    for command in 0..9 {
        let executor = executor.clone();
        let mood = if command == 4 { Mood::Panics } else { Mood::Ready };
        running.spawn(async move { executor.execute(note(command, mood)).await });
    }
    let (mut fine, mut panicked) = (0, 0);
    while let Some(done) = timeout(Duration::from_secs(3_600), running.join_next()).await.unwrap() {
        match done {
            Ok(answer) => fine += u64::from(answer.is_ok()),
            Err(error) => panicked += u64::from(error.is_panic()),
        }
    }
    assert_eq!((fine, panicked), (8, 1));
    check_decisions(&store.log(&[hot()]).await, |_| vec![hot()]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_together_is_stored_one_by_one() {
    let one = Fact::Noted { command: 10, seen: u64::MAX }.encode().unwrap().bytes().len();
    let limits = AppendLimits { max_append_bytes: 2 * one, ..AppendLimits::default() };
    let store = Store::with(Vec::new(), MemoryConfig { limits, ..MemoryConfig::default() });
    let executor = executor(&store);
    let answers = together(&executor, (10..20).map(|command| note(command, Mood::Ready))).await;
    assert!(answers.values().all(Result::is_ok), "{answers:?}");
    let log = store.log(&[hot()]).await;
    assert_eq!(log.len(), 10);
    check_decisions(&log, |_| vec![hot()]);
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![3 => Just(Mood::Ready), 1 => Just(Mood::Fussy), 1 => Just(Mood::Idle)]
}

/// When a command comes, what it is, on which streams, and when its caller gives up.
fn plan() -> impl Strategy<Value = (u64, Mood, u8, Option<u64>)> {
    (0..30_u64, mood(), 0..4_u8, prop::option::weighted(0.2, 0..60_u64))
}

fn streams_of(which: u8) -> Vec<StreamId> {
    let other = StreamId::new("other").unwrap();
    match which {
        0 | 1 => vec![hot()],
        2 => vec![hot(), other],
        _ => vec![other],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_each_is_decided_on_what_is_stored_before_it(
        plans in prop::collection::vec(plan(), 1..14), chances in prop::collection::vec(chance(), 0..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = Store::new(chances);
            let executor = executor(&store);
            let mut running = JoinSet::new();
            for (command, (begins, mood, which, gives_up)) in (0..).zip(plans.clone()) {
                let executor = executor.clone();
                running.spawn(async move {
                    sleep(Duration::from_millis(begins)).await;
                    let note = Note { to: streams_of(which), command, mood };
                    let patience = Duration::from_millis(gives_up.unwrap_or(u64::from(u32::MAX)));
                    (command, timeout(patience, executor.execute(note)).await.ok())
                });
            }
            let answers = timeout(Duration::from_secs(3_600), running.join_all()).await.expect("callers wait for each other");
            let log = store.log(&streams_of(2)).await;
            check_decisions(&log, |command| streams_of(plans[command as usize].2));
            for (command, answer) in answers {
                let own = |event: &&RecordedEvent<Fact>| matches!(event.payload(), Fact::Noted { command: c, .. } if *c == command);
                let stored: Vec<_> = log.iter().filter(own).map(|event| (event.stream_id().clone(), event.position())).collect();
                let whole = streams_of(plans[command as usize].2).len();
                match answer {
                    Some(Ok(outcome)) => {
                        let told: Vec<_> = outcome.events().iter().map(|e| (e.stream_id.clone(), e.position)).collect();
                        assert_eq!(told, stored, "what command {command} was told and what is stored");
                    }
                    Some(Err(CommandError::Rejected(No(seen)))) => {
                        assert!(stored.is_empty(), "a rejected command has events");
                        let streams = streams_of(plans[command as usize].2);
                        assert!(has_been(&log, &streams, seen), "command {command} was rejected for what never was");
                    }
                    Some(Err(error)) => panic!("{error:?}"),
                    None => assert!(stored.is_empty() || stored.len() == whole, "half of command {command}"),
                }
            }
        });
    }
}
