//! The decision machine against a simulated store: conflicts, lost answers and faults in any order.

use eventcore::{
    AppendRequest, Appended, AppendedEvent, Command, CommandContext, CommandError, CommandId, CommandLogic,
    DecisionStep, Discovered, Entropy, Event, EventHeader, EventId, EventMetadata, EventStoreError, EventType,
    ExecutionOutcome, GlobalPosition, MaxAttempts, NewEvents, ReadStreams, Receipt, RecordedEvent, RetryPolicy,
    SchemaVersion, StreamId, StreamVersion, StreamsRead, Timestamp, decide, require,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Counted {
    Added { amount: u64 },
    Linked { to: StreamId },
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("over the limit")]
struct OverLimit;

/// Adds to a counter as long as it stays within a limit.
#[derive(Command)]
struct Add {
    #[stream]
    counter: StreamId,
    #[stream(read_only)]
    limits: Option<StreamId>,
    limit: u64,
}

#[derive(Default)]
struct Sum(u64);

impl CommandLogic for Add {
    type Event = Counted;
    type State = Sum;
    type Error = OverLimit;

    fn apply(&self, state: &mut Sum, event: &RecordedEvent<Counted>) {
        if let (Counted::Added { amount }, true) = (event.payload(), event.stream_id() == &self.counter) {
            state.0 += amount;
        }
    }

    fn handle(&self, state: &Sum, streams: &AddStreams) -> Result<NewEvents<Self>, OverLimit> {
        require!(state.0 < self.limit, OverLimit);
        Ok(NewEvents::new()
            .append(&streams.counter, Counted::Added { amount: 1 })
            .append(&streams.counter, Counted::Added { amount: 0 }))
    }
}

/// Follows links from stream to stream, and adds to the last one.
#[derive(Command)]
struct Follow {
    #[stream(read_only)]
    start: StreamId,
}

impl CommandLogic for Follow {
    type Event = Counted;
    type State = Vec<StreamId>;
    type Error = OverLimit;

    fn apply(&self, state: &mut Vec<StreamId>, event: &RecordedEvent<Counted>) {
        if let Counted::Linked { to } = event.payload() {
            state.push(to.clone());
        }
    }

    fn discover(&self, state: &Vec<StreamId>) -> Discovered {
        state.iter().fold(Discovered::none(), |found, stream| found.write(stream.clone()))
    }

    fn handle(&self, state: &Vec<StreamId>, streams: &FollowStreams) -> Result<NewEvents<Self>, OverLimit> {
        let last = state.last().and_then(|stream| streams.discovered().get(stream)).ok_or(OverLimit)?;
        Ok(NewEvents::new().append(last, Counted::Added { amount: 1 }))
    }
}

/// What the store does with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Fine,
    /// Somebody else writes to the counter first.
    Race,
    /// Somebody else writes to the stream that is only read first.
    RaceOnRead,
    Unavailable,
    /// It happens, but the answer is lost.
    LostAfter,
    /// It does not happen, and the answer is lost.
    LostBefore,
    /// It happens, the answer is lost, and somebody else writes behind it.
    LostAndRace,
    /// The store was closed.
    Closed,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        3 => Just(Chance::Fine),
        1 => Just(Chance::Race),
        1 => Just(Chance::RaceOnRead),
        1 => Just(Chance::Unavailable),
        1 => Just(Chance::LostAfter),
        1 => Just(Chance::LostBefore),
        1 => Just(Chance::LostAndRace),
    ]
}

#[derive(Default)]
struct Store {
    log: Vec<RecordedEvent>,
    receipts: BTreeMap<CommandId, Receipt>,
    chances: VecDeque<Chance>,
    /// Who wrote by chance: these events are not the command's.
    foreign: usize,
    sent: u64,
}

impl Store {
    fn version(&self, stream: &StreamId) -> StreamVersion {
        StreamVersion::try_new(self.log.iter().filter(|event| event.stream_id() == stream).count() as u64).unwrap()
    }

    fn write(&mut self, stream: &StreamId, id: EventId, event: &Counted) -> AppendedEvent {
        let header = EventHeader {
            position: GlobalPosition::try_new(self.log.len() as u64 + 1).unwrap(),
            stream_id: stream.clone(),
            version: self.version(stream).next().unwrap(),
            id,
            event_type: event.event_type(),
            schema_version: SchemaVersion::default(),
            recorded_at: Timestamp::now(),
            metadata: EventMetadata::empty(),
        };
        let appended = AppendedEvent { stream_id: stream.clone(), version: header.version, position: header.position };
        self.log.push(RecordedEvent::new(header, event.encode().unwrap()));
        appended
    }

    fn race(&mut self, stream: &str) {
        self.foreign += 1;
        self.write(&StreamId::new(stream).unwrap(), EventId::generate(), &Counted::Added { amount: 100 });
    }

    fn read(&mut self, request: &ReadStreams) -> Result<StreamsRead, EventStoreError> {
        if self.chances.front() == Some(&Chance::Unavailable) {
            self.chances.pop_front();
            return Err(EventStoreError::unavailable("no connection"));
        }
        let wanted = |event: &&RecordedEvent| request.streams().iter().any(|s| &s.stream_id == event.stream_id());
        Ok(StreamsRead {
            events: self.log.iter().filter(wanted).cloned().collect(),
            versions: request.streams().iter().map(|stream| self.version(&stream.stream_id)).collect(),
            receipt: request.command_id().and_then(|id| self.receipts.get(id)).cloned(),
        })
    }

    fn append(&mut self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        self.sent += 1;
        let chance = self.chances.pop_front().unwrap_or(Chance::Fine);
        match chance {
            Chance::Race => self.race("counter"),
            Chance::RaceOnRead => self.race("limits"),
            Chance::Unavailable => return Err(EventStoreError::unavailable("no connection")),
            Chance::LostBefore => return Err(EventStoreError::outcome_unknown("connection lost")),
            Chance::Closed => return Err(EventStoreError::Closed),
            _ => {}
        }
        let result = self.really_append(request);
        match chance {
            Chance::LostAfter | Chance::LostAndRace => {
                if chance == Chance::LostAndRace {
                    self.race("counter");
                }
                Err(EventStoreError::outcome_unknown("connection lost"))
            }
            _ => result,
        }
    }

    fn really_append(&mut self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        if let Some((claim, receipt)) =
            request.command().and_then(|claim| Some((claim, self.receipts.get(&claim.command_id)?)))
        {
            return receipt.replay(claim);
        }
        request.judge(|stream| self.version(stream))?;
        let events: Vec<_> = request
            .events()
            .iter()
            .map(|item| {
                let event = Counted::decode(&item.event.event_type, item.event.schema_version, &item.event.payload);
                self.write(request.stream_of(item), item.event.id, &event.unwrap())
            })
            .collect();
        let recorded_at = Timestamp::now();
        if let Some(claim) = request.command() {
            let receipt = Receipt { claim: claim.clone(), events: events.clone(), recorded_at };
            self.receipts.insert(claim.command_id.clone(), receipt);
        }
        Ok(Appended { events, recorded_at, replayed: false })
    }

    fn own_events(&self) -> usize {
        self.log.len() - self.foreign
    }
}

struct Seeded(u64);

impl Entropy for Seeded {
    fn event_id(&mut self) -> EventId {
        EventId::generate()
    }

    fn jitter(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 40) as f64 / (1_u64 << 24) as f64
    }
}

fn run<C: CommandLogic>(
    store: &mut Store,
    command: C,
    context: CommandContext,
    retry: RetryPolicy,
) -> Result<ExecutionOutcome, CommandError<C::Error>> {
    let mut entropy = Seeded(7);
    let mut step = decide(command, context, retry);
    for _ in 0..100_000 {
        step = match step {
            DecisionStep::Read(reading) => {
                let read = store.read(&reading.request());
                reading.read(read, &mut entropy)
            }
            DecisionStep::Append(appending) => {
                let appended = store.append(&appending.request());
                appending.appended(appended, &mut entropy)
            }
            DecisionStep::Wait(waiting) => waiting.waited(),
            DecisionStep::Recall(_) | DecisionStep::Load(_) | DecisionStep::Keep(_) => panic!("nothing was kept"),
            DecisionStep::Done(result) => return result,
        };
    }
    panic!("the execution does not end");
}

fn add(limit: u64) -> Add {
    let stream = |name| StreamId::new(name).unwrap();
    Add { counter: stream("counter"), limits: Some(stream("limits")), limit }
}

fn patient() -> RetryPolicy {
    RetryPolicy::default().max_attempts(MaxAttempts::try_new(1_000).unwrap())
}

fn with_id(id: &str) -> CommandContext {
    CommandContext::new().command_id(CommandId::new(id).unwrap())
}

proptest! {
    #[test]
    fn whatever_happens_a_command_has_one_effect(
        chances in prop::collection::vec(chance(), 0..60), with_command_id: bool,
    ) {
        let mut store = Store { chances: chances.into(), ..Store::default() };
        let context = if with_command_id { with_id("c") } else { CommandContext::new() };
        let outcome = run(&mut store, add(u64::MAX), context, patient()).unwrap();
        prop_assert_eq!(store.own_events(), 2);
        prop_assert_eq!(outcome.events().len(), 2);
        for appended in outcome.events() {
            let stored = &store.log[appended.position.get() as usize - 1];
            prop_assert_eq!(stored.version(), appended.version);
            let event = stored.clone().decode::<Counted>().unwrap();
            prop_assert_ne!(event.payload(), &Counted::Added { amount: 100 }, "took a foreign event for its own");
        }
    }

    #[test]
    fn a_decision_never_rests_on_less_than_what_is_stored(chances in prop::collection::vec(chance(), 0..60)) {
        // The limit is 1, so a single foreign event before the own ones must lead to a rejection.
        let mut store = Store { chances: chances.into(), ..Store::default() };
        let result = run(&mut store, add(1), CommandContext::new(), patient());
        let foreign_first = store
            .log
            .iter()
            .filter(|event| event.stream_id().as_str() == "counter")
            .take(1)
            .any(|event| event.clone().decode::<Counted>().unwrap().payload() == &Counted::Added { amount: 100 });
        match result {
            Ok(_) => prop_assert!(!foreign_first),
            Err(CommandError::Rejected(OverLimit)) => prop_assert!(foreign_first && store.own_events() == 0),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn an_error_that_denies_an_effect_has_none(chances in prop::collection::vec(chance(), 0..30), attempts in 1..6_u32) {
        let mut store = Store { chances: chances.into(), ..Store::default() };
        let impatient = RetryPolicy::default().max_attempts(MaxAttempts::try_new(attempts).unwrap());
        match run(&mut store, add(u64::MAX), CommandContext::new(), impatient) {
            Ok(_) => prop_assert_eq!(store.own_events(), 2),
            Err(CommandError::Store(EventStoreError::OutcomeUnknown { .. })) => {}
            Err(error) => prop_assert_eq!(store.own_events(), 0, "{}", error),
        }
    }

    #[test]
    fn the_same_id_again_answers_the_same(chances in prop::collection::vec(chance(), 0..30)) {
        let mut store = Store { chances: chances.into(), ..Store::default() };
        let first = run(&mut store, add(1_000), with_id("c"), patient()).unwrap();
        let head = store.log.len();
        // By now the limit would reject it.
        let again = run(&mut store, add(0), with_id("c"), patient()).unwrap();
        prop_assert!(again.replayed());
        prop_assert_eq!(again.events(), first.events());
        prop_assert_eq!(again.recorded_at(), first.recorded_at());
        prop_assert_eq!(store.own_events(), 2);
        prop_assert!(store.log.len() >= head);
    }
}

#[test]
fn an_id_used_for_other_streams_is_refused() {
    let mut store = Store::default();
    run(&mut store, add(9), with_id("c"), patient()).unwrap();
    let other = Add { limits: None, ..add(9) };
    let error = run(&mut store, other, with_id("c"), patient()).unwrap_err();
    assert!(matches!(error, CommandError::Store(EventStoreError::CommandIdReused { .. })), "{error:?}");
}

#[test]
fn a_rejection_stores_nothing_and_keeps_its_type() {
    let mut store = Store::default();
    let error = run(&mut store, add(0), with_id("c"), patient()).unwrap_err();
    assert!(matches!(error, CommandError::Rejected(OverLimit)));
    assert!(store.receipts.is_empty() && store.log.is_empty());
}

#[test]
fn conflicts_are_counted_and_the_last_one_is_told() {
    let mut store = Store { chances: vec![Chance::Race; 10].into(), ..Store::default() };
    let three = RetryPolicy::default().max_attempts(MaxAttempts::try_new(3).unwrap());
    let error = run(&mut store, add(u64::MAX), CommandContext::new(), three).unwrap_err();
    let CommandError::Conflict { stream, attempts, source } = error else { panic!("{error:?}") };
    assert_eq!((stream.as_str(), attempts, source.actual.get()), ("counter", 3, 3));
    assert_eq!(store.sent, 3);

    let mut store = Store { chances: vec![Chance::Race; 2].into(), ..Store::default() };
    let outcome = run(&mut store, add(u64::MAX), CommandContext::new(), three).unwrap();
    assert_eq!(outcome.attempts(), 3);
}

#[test]
fn a_failure_while_the_outcome_is_unknown_leaves_it_unknown() {
    for failure in [Chance::Unavailable, Chance::Closed] {
        let mut store = Store { chances: vec![Chance::LostAfter, failure].into(), ..Store::default() };
        let two = RetryPolicy::default().max_attempts(MaxAttempts::try_new(2).unwrap());
        let error = run(&mut store, add(9), CommandContext::new(), two).unwrap_err();
        assert!(matches!(error, CommandError::Store(EventStoreError::OutcomeUnknown { .. })), "{error:?}");
    }
}

/// Hands what it decided to whoever has the same stash, which is then another instance.
#[derive(Command)]
struct Stash {
    #[stream]
    counter: StreamId,
    stash: Arc<Mutex<Option<NewEvents<Stash>>>>,
}

impl CommandLogic for Stash {
    type Event = Counted;
    type State = Sum;
    type Error = OverLimit;

    fn apply(&self, _: &mut Sum, _: &RecordedEvent<Counted>) {}

    fn handle(&self, _: &Sum, streams: &StashStreams) -> Result<NewEvents<Self>, OverLimit> {
        let mut stash = self.stash.lock().unwrap();
        match stash.take() {
            Some(foreign) => Ok(foreign),
            None => {
                *stash = Some(NewEvents::new().append(&streams.counter, Counted::Added { amount: 1 }));
                Err(OverLimit)
            }
        }
    }
}

#[test]
fn events_for_the_streams_of_another_instance_are_refused() {
    let mut store = Store::default();
    let stash = Arc::default();
    let mut run_on = |name| {
        let command = Stash { counter: StreamId::new(name).unwrap(), stash: Arc::clone(&stash) };
        run(&mut store, command, CommandContext::new(), patient())
    };
    assert!(matches!(run_on("one"), Err(CommandError::Rejected(OverLimit))));
    let refused = run_on("another");
    assert!(
        matches!(&refused, Err(CommandError::UndeclaredStream { stream }) if stream.as_str() == "one"),
        "{refused:?}"
    );
    assert!(store.log.is_empty());
}

#[test]
fn discovery_reads_the_whole_set_until_nothing_new_is_named() {
    let mut store = Store::default();
    let stream = |n: u64| StreamId::new(format!("s{n}")).unwrap();
    for n in 0..16 {
        store.write(&stream(n), EventId::generate(), &Counted::Linked { to: stream(n + 1) });
    }
    let outcome = run(&mut store, Follow { start: stream(0) }, CommandContext::new(), patient()).unwrap();
    assert_eq!(outcome.events()[0].stream_id, stream(16));

    store.write(&stream(16), EventId::generate(), &Counted::Linked { to: stream(17) });
    let error = run(&mut store, Follow { start: stream(0) }, CommandContext::new(), patient()).unwrap_err();
    assert!(matches!(error, CommandError::TooManyRounds { limit: 16 }), "{error:?}");
}

#[test]
fn an_unknown_type_in_a_stream_is_an_error_unless_it_is_ignored() {
    #[derive(Debug, Serialize, Deserialize, Event)]
    #[event(namespace = "other")]
    enum Other {
        Thing,
    }

    #[derive(Command)]
    struct Lenient {
        #[stream]
        counter: StreamId,
    }

    impl CommandLogic for Lenient {
        type Event = Counted;
        type State = Sum;
        type Error = OverLimit;

        fn apply(&self, state: &mut Sum, _: &RecordedEvent<Counted>) {
            state.0 += 1;
        }

        fn handle(&self, state: &Sum, _: &LenientStreams) -> Result<NewEvents<Self>, OverLimit> {
            require!(state.0 == 0, OverLimit);
            Ok(NewEvents::new())
        }

        fn ignored_event_types(&self) -> Vec<EventType> {
            vec![Other::Thing.event_type()]
        }
    }

    let mut store = Store::default();
    let counter = StreamId::new("counter").unwrap();
    store.write(&counter, EventId::generate(), &Counted::Added { amount: 1 });
    let header = EventHeader { event_type: Other::Thing.event_type(), ..store.log[0].header().clone() };
    store.log[0] = RecordedEvent::new(header, Other::Thing.encode().unwrap());

    let error = run(&mut store, add(9), CommandContext::new(), patient()).unwrap_err();
    assert!(matches!(&error, CommandError::Decode { stream, .. } if stream == &counter), "{error:?}");
    let outcome = run(&mut store, Lenient { counter }, CommandContext::new(), patient()).unwrap();
    assert!(outcome.events().is_empty() && outcome.position().is_none());
}
