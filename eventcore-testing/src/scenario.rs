//! Given these events, when this command is executed, then that happens.

use eventcore::{
    Appended, AppendedEvent, CommandContext, CommandError, CommandLogic, DecisionStep, Entropy, ErrorKind, Event,
    EventHeader, EventId, EventMetadata, EventStoreError, GlobalPosition, NewEvent, ReadStreams, RecordedEvent,
    RetryPolicy, StreamId, StreamName, StreamVersion, StreamsRead, Timestamp, decide,
};
use std::collections::HashMap;
use std::fmt::Debug;
use std::marker::PhantomData;

/// A command under test: some history, the command, and what it has to decide. It runs on the machine that decides in
/// production, without a store and without a runtime.
///
/// The assertions panic, as those of the standard library do.
///
/// ```
/// use eventcore::{Command, CommandLogic, Event, NewEvents, RecordedEvent, StreamId, require};
/// use eventcore_testing::Scenario;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
/// #[event(namespace = "bank")]
/// enum BankEvent {
///     Deposited { cents: u64 },
///     Withdrawn { cents: u64 },
/// }
///
/// #[derive(Debug, PartialEq, thiserror::Error)]
/// #[error("there are only {balance} cents")]
/// struct InsufficientFunds { balance: u64 }
///
/// #[derive(Command)]
/// struct Withdraw { #[stream] account: StreamId, cents: u64 }
///
/// impl CommandLogic for Withdraw {
///     type Event = BankEvent;
///     type State = u64;
///     type Error = InsufficientFunds;
///
///     fn apply(&self, balance: &mut u64, event: &RecordedEvent<BankEvent>) {
///         match event.payload() {
///             BankEvent::Deposited { cents } => *balance += cents,
///             BankEvent::Withdrawn { cents } => *balance -= cents,
///         }
///     }
///
///     fn handle(&self, balance: &u64, streams: &WithdrawStreams) -> Result<NewEvents<Self>, InsufficientFunds> {
///         require!(*balance >= self.cents, InsufficientFunds { balance: *balance });
///         Ok(NewEvents::new().append(&streams.account, BankEvent::Withdrawn { cents: self.cents }))
///     }
/// }
///
/// let account = StreamId::new("account-1")?;
/// let history = || Scenario::new().given(&account, [BankEvent::Deposited { cents: 500 }]);
///
/// history()
///     .when(Withdraw { account: account.clone(), cents: 500 })
///     .then_events([(&account, BankEvent::Withdrawn { cents: 500 })]);
/// history()
///     .when(Withdraw { account: account.clone(), cents: 501 })
///     .then_rejected(InsufficientFunds { balance: 500 });
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug)]
#[must_use = "a scenario without a command tests nothing"]
pub struct Scenario<C> {
    log: Vec<RecordedEvent>,
    versions: HashMap<StreamId, StreamVersion>,
    command: PhantomData<fn() -> C>,
}

impl<C: CommandLogic> Scenario<C> {
    /// A scenario in which nothing has happened yet.
    pub fn new() -> Self {
        Self { log: Vec::new(), versions: HashMap::new(), command: PhantomData }
    }

    /// Events that have happened in a stream, after all that was given before.
    ///
    /// # Panics
    /// If the stream has no valid name or an event cannot be encoded.
    #[track_caller]
    pub fn given(self, stream: impl StreamName, events: impl IntoIterator<Item = C::Event>) -> Self {
        let encode = |event: C::Event| valid(NewEvent::encode(EventId::generate(), &event, EventMetadata::empty()));
        let encoded: Vec<_> = events.into_iter().map(encode).collect();
        self.given_encoded(stream, encoded)
    }

    /// Events as they are stored, for example of an older schema version or of another domain's types.
    ///
    /// # Panics
    /// If the stream has no valid name.
    #[track_caller]
    pub fn given_encoded(mut self, stream: impl StreamName, events: impl IntoIterator<Item = NewEvent>) -> Self {
        let stream_id = valid(stream.stream_id());
        for event in events {
            let version = self.versions.entry(stream_id.clone()).or_default();
            *version = valid(version.next());
            self.log.push(RecordedEvent::new(
                EventHeader {
                    position: valid(GlobalPosition::try_new(self.log.len() as u64 + 1)),
                    stream_id: stream_id.clone(),
                    version: *version,
                    id: event.id,
                    event_type: event.event_type,
                    schema_version: event.schema_version,
                    recorded_at: epoch(),
                    metadata: event.metadata,
                },
                event.payload,
            ));
        }
        self
    }

    /// The state that `command` folds from everything given. For tests of [`CommandLogic::apply`] alone.
    ///
    /// # Panics
    /// If an event is of a type that the command's event does not know, unless the command ignores it.
    #[track_caller]
    pub fn state_of(&self, command: &C) -> C::State {
        let ignored = command.ignored_event_types();
        let mut state = C::State::default();
        for event in self.log.iter().filter(|event| !ignored.contains(event.event_type())) {
            command.apply(&mut state, &valid(event.clone().decode()));
        }
        state
    }

    /// Executes the command.
    #[must_use = "say what has to happen then"]
    pub fn when(self, command: C) -> Decision<C> {
        self.when_with(CommandContext::new(), command)
    }

    /// Executes the command with a context, for tests of its metadata.
    #[must_use = "say what has to happen then"]
    pub fn when_with(self, context: CommandContext, command: C) -> Decision<C> {
        let mut decided = Vec::new();
        let mut entropy = Counted::default();
        let mut step = decide(command, context, RetryPolicy::none());
        loop {
            step = match step {
                DecisionStep::Read(reading) => {
                    let read = self.read(&reading.request());
                    reading.read(Ok(read), &mut entropy)
                }
                DecisionStep::Append(appending) => {
                    let request = appending.request();
                    let events = request.events().iter();
                    decided = events.map(|item| (request.stream_of(item).clone(), item.event.clone())).collect();
                    appending.appended(self.places(&decided), &mut entropy)
                }
                DecisionStep::Wait(waiting) => waiting.waited(),
                DecisionStep::Recall(recalling) => recalling.recalled(None, &mut entropy),
                DecisionStep::Load(loading) => loading.loaded(Ok(None)),
                DecisionStep::Keep(keeping) => keeping.kept(),
                DecisionStep::Done(result) => return Decision { outcome: result.map(|_| decided) },
            };
        }
    }

    fn read(&self, request: &ReadStreams) -> StreamsRead {
        let wanted: HashMap<_, _> = request.streams().iter().map(|s| (&s.stream_id, s.after)).collect();
        let behind =
            |event: &&RecordedEvent| wanted.get(event.stream_id()).is_some_and(|after| event.version() > *after);
        StreamsRead {
            events: self.log.iter().filter(behind).cloned().collect(),
            versions: request.streams().iter().map(|s| self.version_of(&s.stream_id)).collect(),
            receipt: None,
        }
    }

    /// The answer to an append of these events.
    fn places(&self, events: &[(StreamId, NewEvent)]) -> Result<Appended, EventStoreError> {
        let mut versions = self.versions.clone();
        let mut places = Vec::with_capacity(events.len());
        for ((stream_id, _), position) in events.iter().zip(self.log.len() as u64 + 1..) {
            let version = versions.entry(stream_id.clone()).or_default();
            *version = version.next().map_err(EventStoreError::storage)?;
            let position = GlobalPosition::try_new(position).map_err(EventStoreError::storage)?;
            places.push(AppendedEvent { stream_id: stream_id.clone(), version: *version, position });
        }
        Ok(Appended { events: places, recorded_at: epoch(), replayed: false })
    }

    fn version_of(&self, stream_id: &StreamId) -> StreamVersion {
        self.versions.get(stream_id).copied().unwrap_or_default()
    }
}

/// A clone is the same history for another command; `C` itself need not be `Clone`.
impl<C> Clone for Scenario<C> {
    fn clone(&self) -> Self {
        Self { log: self.log.clone(), versions: self.versions.clone(), command: PhantomData }
    }
}

impl<C: CommandLogic> Default for Scenario<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// What a command decided.
pub struct Decision<C: CommandLogic> {
    outcome: Result<Vec<(StreamId, NewEvent)>, CommandError<C::Error>>,
}

impl<C: CommandLogic> Decision<C> {
    /// Exactly these events have to be appended to these streams, in this order.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_events<S: StreamName>(self, expected: impl IntoIterator<Item = (S, C::Event)>) -> Self
    where
        C::Event: PartialEq + Debug,
    {
        let expected = expected.into_iter().map(|(stream, event)| (valid(stream.stream_id()), event));
        assert_eq!(self.events(), expected.collect::<Vec<_>>(), "the events decided are not those expected");
        self
    }

    /// The command has to be accepted without an event.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_nothing(self) -> Self
    where
        C::Event: PartialEq + Debug,
    {
        assert_eq!(self.events(), [], "the command was expected to do nothing");
        self
    }

    /// Every event has to be stored with this metadata.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_metadata(self, expected: &EventMetadata) -> Self {
        for (stream_id, event) in self.accepted() {
            assert_eq!(&event.metadata, expected, "metadata of {} in {stream_id}", event.event_type);
        }
        self
    }

    /// The domain has to say no, for this reason.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_rejected(self, expected: C::Error) -> Self
    where
        C::Error: PartialEq,
    {
        match &self.outcome {
            Err(CommandError::Rejected(rejection)) => assert_eq!(rejection, &expected, "another rejection"),
            other => fail(&format!("expected the rejection {expected:?}, found {other:#?}")),
        }
        self
    }

    /// The domain has to say no, for a reason that `is_expected` knows. For errors that cannot be compared.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_rejected_as(self, is_expected: impl FnOnce(&C::Error) -> bool) -> Self {
        let rejected = matches!(&self.outcome, Err(CommandError::Rejected(rejection)) if is_expected(rejection));
        assert!(rejected, "expected another rejection, found {:#?}", self.outcome);
        self
    }

    /// The execution has to fail in this way, for example as bad input.
    ///
    /// # Panics
    /// If it is not so.
    #[track_caller]
    pub fn then_fails_as(self, kind: ErrorKind) -> Self {
        let found = self.outcome.as_ref().err().map(CommandError::kind);
        assert_eq!(found, Some(kind), "the way in which it failed: {:#?}", self.outcome);
        self
    }

    /// What was decided, as it goes to the store.
    ///
    /// # Errors
    /// Why the command had no effect.
    pub fn into_result(self) -> Result<Vec<(StreamId, NewEvent)>, CommandError<C::Error>> {
        self.outcome
    }

    #[track_caller]
    fn accepted(&self) -> &[(StreamId, NewEvent)] {
        match &self.outcome {
            Ok(events) => events,
            Err(error) => fail(&format!("expected the command to be accepted, found {error:?}")),
        }
    }

    /// The events, read back from what is stored.
    #[track_caller]
    fn events(&self) -> Vec<(StreamId, C::Event)> {
        let decode = |event: &NewEvent| C::Event::decode(&event.event_type, event.schema_version, &event.payload);
        self.accepted().iter().map(|(stream_id, event)| (stream_id.clone(), valid(decode(event)))).collect()
    }
}

/// Event ids without clock and chance: of one scenario, they are the same at every run.
#[derive(Default)]
struct Counted(u64);

impl Entropy for Counted {
    fn event_id(&mut self) -> EventId {
        self.0 += 1;
        format!("00000000-0000-7000-8000-{:012x}", self.0).parse().unwrap_or_else(|_| EventId::generate())
    }

    fn jitter(&mut self) -> f64 {
        0.0
    }
}

/// When everything in a scenario happens.
#[track_caller]
fn epoch() -> Timestamp {
    valid(Timestamp::from_micros(0))
}

#[track_caller]
fn valid<T, E: Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => fail(&format!("the scenario holds an invalid value: {error:?}")),
    }
}

/// Fails the test.
#[track_caller]
#[expect(clippy::panic, reason = "the assertions of a test tool panic, as those of the standard library do")]
fn fail(what: &str) -> ! {
    panic!("{what}")
}
