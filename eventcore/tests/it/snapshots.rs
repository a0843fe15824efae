//! Executions that begin from snapshots, beside the same executions without, in a simulated store: commits that come to
//! light late, races, lost answers, snapshots lost, stale and damaged, logs set back to an older backup.

use eventcore::{
    AppendRequest, Appended, AppendedEvent, CacheKey, CachedState, Command, CommandContext, CommandError, CommandId,
    CommandLogic, DecisionOptions, DecisionStep, Discovered, DueSnapshot, Entropy, Event, EventHeader, EventId,
    EventMetadata, EventStoreError, GlobalPosition, MaxAttempts, NewEvents, ReadStreams, Receipt, RecordedEvent,
    RetryPolicy, SchemaVersion, Snapshot, SnapshotKey, SnapshotPolicy, SnapshotSchema, SnapshotState, StateFold,
    StreamId, StreamState, StreamVersion, StreamsRead, Timestamp, decide_with, require,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Fact {
    Noted { trace: u64 },
    Linked { to: StreamId },
}

/// Depends on every event and on their order.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
struct Trace {
    trace: u64,
    links: Vec<StreamId>,
}

impl StreamState for Trace {
    type Event = Fact;

    fn apply(&mut self, event: &RecordedEvent<Fact>) {
        let noted = match event.payload() {
            Fact::Noted { trace } => *trace,
            Fact::Linked { to } => {
                self.links.push(to.clone());
                1
            }
        };
        let stream =
            event.stream_id().as_str().len() as u64 + event.stream_id().as_str().bytes().map(u64::from).sum::<u64>();
        let mixed = [event.position().get(), event.version().get(), stream, noted];
        self.trace = mixed.iter().fold(self.trace, |trace, n| (trace ^ n).wrapping_mul(0x0100_0000_01b3));
    }
}

impl SnapshotState for Trace {
    const NAME: &'static str = "test.Trace";
    const VERSION: u32 = 1;
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the trace {0} says no")]
struct No(u64);

/// Notes the trace of what it decided on, so that any other decision shows.
#[derive(Debug, Clone, Command)]
struct Note {
    #[stream]
    to: StreamId,
    #[stream(read_only)]
    beside: Vec<StreamId>,
    follow: bool,
    link: Option<StreamId>,
}

impl CommandLogic for Note {
    type Event = Fact;
    type State = Trace;
    type Error = No;

    fn apply(&self, _: &mut Trace, _: &RecordedEvent<Fact>) {
        panic!("the state folds by itself");
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::with_snapshots()
    }

    fn discover(&self, state: &Trace) -> Discovered {
        let links = state.links.iter().filter(|_| self.follow);
        links.fold(Discovered::none(), |found, stream| found.write(stream.clone()))
    }

    fn handle(&self, state: &Trace, streams: &NoteStreams) -> Result<NewEvents<Self>, No> {
        require!(state.trace % 7 != 3, No(state.trace));
        if state.trace % 11 == 5 {
            return Ok(NewEvents::new());
        }
        let mut events = NewEvents::new().append(&streams.to, Fact::Noted { trace: state.trace });
        for found in streams.discovered().writable() {
            events.push(found, Fact::Noted { trace: state.trace });
        }
        if let Some(to) = &self.link {
            events.push(&streams.to, Fact::Linked { to: to.clone() });
        }
        Ok(events)
    }
}

fn name(n: u8) -> StreamId {
    StreamId::new(format!("s{n}")).unwrap()
}

/// What happens while a command is executed, call by call.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Chance {
    Fine,
    /// Somebody else appends to this stream first.
    Race(u8),
    LostAfter,
    LostBefore,
    Unavailable,
}

#[derive(Debug, Clone)]
enum Step {
    Execute {
        command: Note,
        id: Option<u8>,
        chances: Vec<Chance>,
    },
    /// Somebody else appends.
    Append(u8),
    /// Somebody else has drawn a position for this stream and does not commit yet.
    Draw(u8),
    /// What was drawn is committed.
    Commit,
    /// The log goes back to a backup, of so many events less, and lives on.
    SetBack(usize),
    /// Snapshots that are due from now on are stored, or lost.
    Lose(bool),
    /// Something is wrong with every snapshot from here on.
    Spoil(Spoil),
}

#[derive(Debug, Clone, Copy)]
enum Spoil {
    Flip(usize),
    Truncate(usize),
    Schema,
    Version(u8),
    Event,
    Position(u8),
    /// Every key has what another one should have.
    Exchange,
    /// The payload of the one before.
    Stale,
}

/// One log, and what is kept beside it. Its appends are those of the ports.
#[derive(Default, Clone)]
struct World {
    log: Vec<RecordedEvent>,
    drawn: Option<RecordedEvent>,
    last_position: u64,
    receipts: BTreeMap<CommandId, Receipt>,
    ids: u64,
    epoch: u64,
    snapshots: BTreeMap<SnapshotKey, Snapshot>,
    before: BTreeMap<SnapshotKey, Snapshot>,
    losing: bool,
    begun_from_snapshots: usize,
    /// The executor's states, if it keeps any.
    cache: Option<HashMap<CacheKey, CachedState>>,
    sent: BTreeSet<EventId>,
    decided_without_read: usize,
}

impl World {
    fn version(&self, stream: &StreamId) -> StreamVersion {
        let count = self.log.iter().filter(|event| event.stream_id() == stream).count();
        StreamVersion::try_new(count as u64).unwrap()
    }

    fn event(&mut self, stream: &StreamId, id: EventId, fact: &Fact) -> RecordedEvent {
        self.last_position += 1;
        let header = EventHeader {
            position: GlobalPosition::try_new(self.last_position).unwrap(),
            stream_id: stream.clone(),
            version: self.version(stream).next().unwrap(),
            id,
            event_type: fact.event_type(),
            schema_version: SchemaVersion::default(),
            recorded_at: Timestamp::from_micros(0).unwrap(),
            metadata: EventMetadata::empty(),
        };
        RecordedEvent::new(header, fact.encode().unwrap())
    }

    fn insert(&mut self, event: RecordedEvent) {
        let index = self.log.partition_point(|stored| stored.position() < event.position());
        self.log.insert(index, event);
    }

    fn commit(&mut self) {
        if let Some(drawn) = self.drawn.take() {
            self.insert(drawn);
        }
    }

    /// Whoever writes to a stream waits for a commit to it that is under way.
    fn lock(&mut self, stream: &StreamId) {
        if self.drawn.as_ref().is_some_and(|drawn| drawn.stream_id() == stream) {
            self.commit();
        }
    }

    fn foreign(&mut self, stream: u8) -> RecordedEvent {
        self.ids += 1;
        let trace = self.ids * 100 + self.epoch;
        self.lock(&name(stream));
        self.event(&name(stream), EventId::generate(), &Fact::Noted { trace })
    }

    fn append(&mut self, request: &AppendRequest) -> Result<Appended, EventStoreError> {
        if let Some((claim, receipt)) = request.command().and_then(|c| Some((c, self.receipts.get(&c.command_id)?))) {
            return receipt.replay(claim);
        }
        request.streams().iter().for_each(|stream| self.lock(&stream.stream_id));
        request.judge(|stream| self.version(stream))?;
        let mut events = Vec::new();
        for item in request.events() {
            let new = &item.event;
            let fact = Fact::decode(&new.event_type, new.schema_version, &new.payload).unwrap();
            let event = self.event(request.stream_of(item), new.id, &fact);
            events.push(AppendedEvent {
                stream_id: event.stream_id().clone(),
                version: event.version(),
                position: event.position(),
            });
            self.insert(event);
        }
        let recorded_at = Timestamp::from_micros(0).unwrap();
        if let Some(claim) = request.command() {
            let receipt = Receipt { claim: claim.clone(), events: events.clone(), recorded_at };
            self.receipts.insert(claim.command_id.clone(), receipt);
        }
        Ok(Appended { events, recorded_at, replayed: false })
    }

    fn read(&self, request: &ReadStreams) -> StreamsRead {
        let wanted = |event: &&RecordedEvent| {
            request.streams().iter().any(|s| &s.stream_id == event.stream_id() && event.version() > s.after)
        };
        StreamsRead {
            events: self.log.iter().filter(wanted).cloned().collect(),
            versions: request.streams().iter().map(|stream| self.version(&stream.stream_id)).collect(),
            receipt: request.command_id().and_then(|id| self.receipts.get(id)).cloned(),
        }
    }

    fn set_back(&mut self, by: usize) {
        self.drawn = None;
        self.log.truncate(self.log.len().saturating_sub(by));
        self.last_position = self.log.last().map_or(0, |event| event.position().get());
        let last = self.last_position;
        self.receipts.retain(|_, receipt| receipt.events.iter().all(|event| event.position.get() <= last));
        // As after a failover: processes start anew.
        self.cache.iter_mut().for_each(HashMap::clear);
        // What is written from now on differs from what was there.
        self.epoch += 1;
    }

    fn store(&mut self, due: DueSnapshot) {
        if self.losing {
            return;
        }
        let snapshot = due.make().unwrap();
        if let Some(old) = self.snapshots.insert(snapshot.key.clone(), snapshot) {
            self.before.insert(old.key.clone(), old);
        }
    }

    fn spoil(&mut self, spoil: Spoil) {
        let others: Vec<Snapshot> = self.snapshots.values().cloned().collect();
        let count = others.len().max(1);
        for (n, (key, snapshot)) in self.snapshots.iter_mut().enumerate() {
            let mut bytes = snapshot.payload.to_vec();
            match spoil {
                Spoil::Flip(bit) => {
                    let at = bit / 8 % bytes.len().max(1);
                    bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
                }
                Spoil::Truncate(to) => bytes.truncate(to % (bytes.len() + 1)),
                Spoil::Schema => snapshot.schema = SnapshotSchema::from_uuid(EventId::generate().as_uuid()),
                Spoil::Version(more) => {
                    snapshot.streams[0].version = snapshot.streams[0].version.plus(u64::from(more) + 1).unwrap();
                }
                Spoil::Event => snapshot.streams[0].event_id = Some(EventId::generate()),
                Spoil::Position(less) => {
                    let position = snapshot.position.get().saturating_sub(u64::from(less) + 1).max(1);
                    snapshot.position = GlobalPosition::try_new(position).unwrap();
                }
                Spoil::Exchange => *snapshot = Snapshot { key: key.clone(), ..others[(n + 1) % count].clone() },
                Spoil::Stale => {
                    if let Some(old) = self.before.get(key) {
                        bytes = old.payload.to_vec();
                    }
                }
            }
            if !matches!(spoil, Spoil::Exchange) {
                snapshot.payload = bytes.into();
            }
        }
    }

    fn execute(&mut self, command: Note, id: Option<u8>, chances: &[Chance], policy: Option<SnapshotPolicy>) -> Answer {
        let mut context = CommandContext::new();
        if let Some(id) = id {
            // The same id is only ever used for the same command.
            context = context.command_id(CommandId::new(format!("{id} {command:?}")).unwrap());
        }
        let retry = RetryPolicy::default().max_attempts(MaxAttempts::try_new(1_000).unwrap());
        let mut chances = chances.iter().copied();
        let mut entropy = Ids;
        let mut step =
            decide_with(command, context, DecisionOptions { retry, snapshots: policy, cache: self.cache.is_some() });
        loop {
            step = match step {
                DecisionStep::Recall(recalling) => {
                    let state = self.cache.as_ref().and_then(|cache| cache.get(recalling.key())).cloned();
                    let step = recalling.recalled(state, &mut entropy);
                    self.decided_without_read += usize::from(matches!(step, DecisionStep::Append(_)));
                    step
                }
                DecisionStep::Load(loading) => {
                    let found = self.snapshots.get(loading.key()).cloned();
                    let step = loading.loaded(Ok(found));
                    if let DecisionStep::Read(reading) = &step {
                        let on = reading.request().streams().iter().any(|stream| stream.after.get() > 0);
                        self.begun_from_snapshots += usize::from(on);
                    }
                    step
                }
                DecisionStep::Read(reading) => {
                    let read = self.read(&reading.request());
                    reading.read(Ok(read), &mut entropy)
                }
                DecisionStep::Append(appending) => {
                    let request = appending.request();
                    let sent = request.events().first().is_some_and(|item| !self.sent.insert(item.event.id));
                    let replays = request.command().is_some_and(|c| self.receipts.contains_key(&c.command_id));
                    if let (false, false, Err(stale)) = (sent, replays, request.judge(|stream| self.version(stream))) {
                        // Decided on what is out of date, which nothing but a cache can bring about: no other chance.
                        step = appending.appended(Err(stale.into()), &mut entropy);
                        continue;
                    }
                    if replays && !sent {
                        // Without a cache the read would have brought the receipt.
                        let replayed = self.append(&request);
                        step = appending.appended(replayed, &mut entropy);
                        continue;
                    }
                    let answer = match chances.next().unwrap_or(Chance::Fine) {
                        Chance::Fine => self.append(&request),
                        Chance::Race(stream) => {
                            let event = self.foreign(stream);
                            self.insert(event);
                            self.append(&request)
                        }
                        Chance::LostAfter => self.append(&request).and(Err(EventStoreError::outcome_unknown("lost"))),
                        Chance::LostBefore => Err(EventStoreError::outcome_unknown("lost")),
                        Chance::Unavailable => Err(EventStoreError::unavailable("down")),
                    };
                    appending.appended(answer, &mut entropy)
                }
                DecisionStep::Wait(waiting) => waiting.waited(),
                DecisionStep::Keep(mut keeping) => {
                    if let Some(due) = keeping.snapshot() {
                        self.store(due);
                    }
                    if let (Some((key, state)), Some(cache)) = (keeping.state(), &mut self.cache) {
                        cache.insert(key, state);
                    }
                    keeping.kept()
                }
                DecisionStep::Done(result) => {
                    return match result {
                        // Attempts may differ: one on a cached state does not count.
                        Ok(outcome) => Ok((outcome.events().to_vec(), outcome.replayed())),
                        Err(CommandError::Rejected(no)) => Err(no),
                        Err(other) => panic!("{other:?}"),
                    };
                }
            };
        }
    }
}

type Answer = Result<(Vec<AppendedEvent>, bool), No>;

struct Ids;

impl Entropy for Ids {
    fn event_id(&mut self) -> EventId {
        EventId::generate()
    }

    fn jitter(&mut self) -> f64 {
        0.0
    }
}

fn note() -> impl Strategy<Value = Note> {
    (
        0..3_u8,
        prop::collection::btree_set(0..4_u8, 0..3),
        prop::bool::weighted(0.2),
        prop::option::weighted(0.1, 0..4_u8),
    )
        .prop_map(|(to, beside, follow, link)| Note {
            to: name(to),
            beside: beside.into_iter().map(name).collect(),
            follow,
            link: link.map(name),
        })
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        5 => Just(Chance::Fine),
        2 => (0..4_u8).prop_map(Chance::Race),
        1 => Just(Chance::LostAfter),
        1 => Just(Chance::LostBefore),
        1 => Just(Chance::Unavailable),
    ]
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        (0..100_000_usize).prop_map(Spoil::Flip),
        (0..1_000_usize).prop_map(Spoil::Truncate),
        Just(Spoil::Schema),
        (0..4_u8).prop_map(Spoil::Version),
        Just(Spoil::Event),
        (0..9_u8).prop_map(Spoil::Position),
        Just(Spoil::Exchange),
        Just(Spoil::Stale),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (note(), prop::option::weighted(0.3, 0..2_u8), prop::collection::vec(chance(), 0..4))
            .prop_map(|(command, id, chances)| Step::Execute { command, id, chances }),
        2 => (0..4_u8).prop_map(Step::Append),
        2 => (0..4_u8).prop_map(Step::Draw),
        2 => Just(Step::Commit),
        1 => (0..12_usize).prop_map(Step::SetBack),
        1 => any::<bool>().prop_map(Step::Lose),
        1 => spoil().prop_map(Step::Spoil),
    ]
}

fn policy() -> impl Strategy<Value = SnapshotPolicy> {
    (0..6_u64, 0..6_usize).prop_map(|(every, streams)| SnapshotPolicy::every(every).up_to_streams(streams))
}

/// Everything but the ids, which are drawn at random.
fn facts(world: &World) -> Vec<(StreamId, u64, u64, Vec<u8>)> {
    let fact = |e: &RecordedEvent| {
        (e.stream_id().clone(), e.version().get(), e.position().get(), e.payload().bytes().to_vec())
    };
    world.log.iter().map(fact).collect()
}

/// Runs the steps in two worlds, and tells how often a command began from a snapshot.
fn same_with_and_without(steps: &[Step], policy: Option<SnapshotPolicy>, cache: bool) -> Result<World, TestCaseError> {
    let (mut plain, mut kept) = (World::default(), World::default());
    kept.cache = cache.then(HashMap::new);
    for step in steps {
        match step {
            Step::Execute { command, id, chances } => {
                let expected = plain.execute(command.clone(), *id, chances, None);
                let found = kept.execute(command.clone(), *id, chances, policy);
                prop_assert_eq!(found, expected, "the answer to {:?}", command);
            }
            Step::Spoil(spoil) => kept.spoil(*spoil),
            Step::Lose(losing) => kept.losing = *losing,
            step => [&mut plain, &mut kept].into_iter().for_each(|world| match step {
                Step::Append(stream) => {
                    let event = world.foreign(*stream);
                    world.insert(event);
                }
                Step::Draw(stream) => {
                    world.commit();
                    world.drawn = Some(world.foreign(*stream));
                }
                Step::Commit => world.commit(),
                Step::SetBack(by) => world.set_back(*by),
                _ => {}
            }),
        }
        prop_assert_eq!(facts(&kept), facts(&plain), "the log after {:?}", step);
    }
    Ok(kept)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_happens_snapshots_change_no_decision(steps in prop::collection::vec(step(), 1..40), policy in policy()) {
        same_with_and_without(&steps, Some(policy), false)?;
    }

    #[test]
    fn whatever_happens_a_state_cache_changes_no_decision(
        steps in prop::collection::vec(step(), 1..40), policy in prop::option::of(policy()),
    ) {
        same_with_and_without(&steps, policy, true)?;
    }
}

/// The properties mean something only if snapshots and the cache are used.
#[test]
fn the_simulation_begins_from_snapshots_and_cached_states() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut begun, mut unread) = (0, 0);
    for _ in 0..100 {
        let steps = prop::collection::vec(step(), 40).new_tree(&mut runner).unwrap().current();
        let policy = SnapshotPolicy::every(2).up_to_streams(4);
        begun += same_with_and_without(&steps, Some(policy), false).unwrap().begun_from_snapshots;
        unread += same_with_and_without(&steps, None, true).unwrap().decided_without_read;
    }
    assert!(unread > 100, "commands that were decided without a read: {unread}");
    assert!(begun > 300, "commands that began from a snapshot: {begun}");
}

#[test]
fn a_state_of_discovered_streams_takes_no_place_in_the_cache() {
    let mut world = World { cache: Some(HashMap::new()), ..World::default() };
    let note = |follow, link| Note { to: name(0), beside: Vec::new(), follow, link };
    let places = |world: &World| world.cache.as_ref().map_or(0, HashMap::len);
    world.execute(note(false, Some(name(1))), None, &[], None).unwrap();
    assert_eq!(places(&world), 1);
    let (written, _) = world.execute(note(true, None), None, &[], None).unwrap();
    assert!(written.iter().any(|event| event.stream_id == name(1)), "nothing was discovered");
    assert_eq!(places(&world), 1, "nobody looks for it");
}
