//! The decision as a pure machine: given results, it says what to do next.
//!
//! Every step is a type of its own that takes exactly the result it asked for, so it cannot be driven wrongly. It does no
//! I/O, reads no clock and draws no random number: [`Entropy`] is passed in.

use super::streams::BoundStream;
use super::{CommandContext, CommandError, CommandLogic, Discovered, ExecutionOutcome, RetryPolicy, StreamBinder};
use crate::{
    AppendRequest, Appended, AppendedEvent, CommandClaim, DecodeError, EventId, EventMetadata, EventStoreError,
    ExpectedVersion, Fingerprint, NewEvent, ReadStreams, SharedError, StreamId, StreamVersion, StreamsRead,
    VersionConflict,
};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// How often `discover` may name new streams in one attempt.
const MAX_ROUNDS: u32 = 16;

/// What the machine cannot have of its own.
pub trait Entropy {
    /// The identity of a new event.
    fn event_id(&mut self) -> EventId;
    /// The random part of a delay, from 0.0 to 1.0.
    fn jitter(&mut self) -> f64;
}

/// What to do next. Drivers perform it and hand the result to the value inside.
pub enum DecisionStep<C: CommandLogic> {
    /// Read streams.
    Read(Reading<C>),
    /// Append what was decided.
    Append(Appending<C>),
    /// Wait before the next attempt.
    Wait(Waiting<C>),
    /// Answer the caller.
    Done(Result<ExecutionOutcome, CommandError<C::Error>>),
}

/// Begins the execution of a command.
#[must_use]
pub fn decide<C: CommandLogic>(command: C, context: CommandContext, retry: RetryPolicy) -> DecisionStep<C> {
    let metadata = match context.event_metadata() {
        Ok(metadata) => metadata,
        Err(error) => return DecisionStep::Done(Err(error.into())),
    };
    let run = Run { command, metadata, retry, claim: None, decisions: 0, faults: 0 };
    run.claimed(&context).map_or_else(|error| DecisionStep::Done(Err(error)), |run| run.attempt())
}

/// What stays the same over all attempts of one execution, and how many there were.
struct Run<C> {
    command: C,
    metadata: EventMetadata,
    retry: RetryPolicy,
    claim: Option<CommandClaim>,
    decisions: u32,
    faults: u32,
}

impl<C: CommandLogic> Run<C> {
    /// Works out the fingerprint, of the declared streams alone: a receipt is looked up before anything is discovered.
    fn claimed(mut self, context: &CommandContext) -> Result<Self, CommandError<C::Error>> {
        if let Some(id) = context.id() {
            let mut binder = StreamBinder::new(Discovered::none());
            self.command.bind(&mut binder)?;
            let streams = binder.into_streams();
            let fingerprint = Fingerprint::of(C::command_type(), streams.iter().map(|stream| &stream.stream_id));
            self.claim = Some(CommandClaim { command_id: id.clone(), fingerprint });
        }
        Ok(self)
    }

    /// Begins an attempt with the declared streams.
    fn attempt(self) -> DecisionStep<C> {
        self.round(Discovered::none(), 0)
    }

    /// One round of an attempt: reads the declared and the discovered streams together.
    fn round(self, discovered: Discovered, rounds: u32) -> DecisionStep<C> {
        let mut binder = StreamBinder::new(discovered.clone());
        let handles = match self.command.bind(&mut binder) {
            Ok(handles) => handles,
            Err(error) => return DecisionStep::Done(Err(error.into())),
        };
        let streams = binder.into_streams();
        let request = ReadStreams::new(streams.iter().map(|stream| stream.stream_id.clone()));
        match request {
            Ok(request) => {
                let request = request.with_receipt_of(self.claim.as_ref().map(|claim| claim.command_id.clone()));
                let purpose = Purpose::Decide(Round { streams, handles, discovered, rounds });
                DecisionStep::Read(Reading { run: self, request, purpose })
            }
            Err(error) => DecisionStep::Done(Err(EventStoreError::from(error).into())),
        }
    }

    /// Folds what was read, lets the command discover or decide, and makes the append.
    fn decide(mut self, round: Round<C>, read: StreamsRead, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        if let (Some(claim), Some(receipt)) = (&self.claim, &read.receipt) {
            let replayed = receipt.replay(claim).map(|appended| ExecutionOutcome::appended(appended, self.decisions));
            return DecisionStep::Done(replayed.map_err(CommandError::from));
        }
        let StreamsRead { events, versions, .. } = read;
        let state = match self.fold(events) {
            Ok(state) => state,
            Err(error) => return DecisionStep::Done(Err(error)),
        };
        if let Some(discovered) = round.enlarged_by(self.command.discover(&state)) {
            if round.rounds >= MAX_ROUNDS {
                return DecisionStep::Done(Err(CommandError::TooManyRounds { limit: MAX_ROUNDS }));
            }
            return self.round(discovered, round.rounds + 1);
        }
        self.decisions += 1;
        let events = match self.command.handle(&state, &round.handles) {
            Ok(events) => events.into_vec(),
            Err(rejection) => return DecisionStep::Done(Err(CommandError::Rejected(rejection))),
        };
        if events.is_empty() && self.claim.is_none() {
            return DecisionStep::Done(Ok(ExecutionOutcome::nothing(self.decisions)));
        }
        match self.request(&round.streams, &versions, events, entropy) {
            Ok(request) => DecisionStep::Append(Appending { run: self, request, sent_before: false }),
            Err(error) => DecisionStep::Done(Err(error)),
        }
    }

    fn fold(&self, events: Vec<crate::RecordedEvent>) -> Result<C::State, CommandError<C::Error>> {
        let mut state = C::State::default();
        let mut ignored = None;
        for event in events {
            let (stream, position) = (event.stream_id().clone(), event.position());
            match event.decode::<C::Event>() {
                Ok(event) => self.command.apply(&mut state, &event),
                Err(DecodeError::UnknownType { event_type })
                    if ignored
                        .get_or_insert_with(|| self.command.ignored_event_types().into_iter().collect::<BTreeSet<_>>())
                        .contains(&event_type) => {}
                Err(source) => return Err(CommandError::Decode { stream, position, source }),
            }
        }
        Ok(state)
    }

    fn request(
        &self,
        streams: &[BoundStream],
        versions: &[StreamVersion],
        events: Vec<(StreamId, C::Event)>,
        entropy: &mut dyn Entropy,
    ) -> Result<AppendRequest, CommandError<C::Error>> {
        if streams.len() != versions.len() {
            let what = format!("the store told {} versions of {} streams", versions.len(), streams.len());
            return Err(EventStoreError::storage(what).into());
        }
        let mut builder = AppendRequest::builder();
        for (stream, version) in streams.iter().zip(versions) {
            builder = builder.expect(stream.stream_id.clone(), ExpectedVersion::Exact(*version));
        }
        for (stream_id, event) in events {
            if !streams.iter().any(|stream| stream.writable && stream.stream_id == stream_id) {
                return Err(CommandError::UndeclaredStream { stream: stream_id });
            }
            let event = NewEvent::encode(entropy.event_id(), &event, self.metadata.clone())?;
            builder = builder.event(stream_id, event);
        }
        if let Some(claim) = &self.claim {
            builder = builder.command(claim.clone());
        }
        Ok(builder.build().map_err(EventStoreError::from)?)
    }

    /// After a conflict: decides again on a fresh read, unless that was the last attempt.
    fn conflicted(self, conflict: VersionConflict, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        let attempts = self.decisions;
        if attempts >= self.retry.attempts() {
            let stream = conflict.stream_id.clone();
            return DecisionStep::Done(Err(CommandError::Conflict { stream, attempts, source: conflict }));
        }
        let delay = self.retry.delay(attempts, entropy.jitter());
        DecisionStep::Wait(Waiting { delay, contended: Some(conflict.stream_id), then: Box::new(self.attempt()) })
    }

    /// After a fault: does `again`, unless that was the last attempt.
    fn faulted(
        mut self,
        error: EventStoreError,
        entropy: &mut dyn Entropy,
        again: impl FnOnce(Self) -> DecisionStep<C>,
    ) -> DecisionStep<C> {
        self.faults += 1;
        if self.faults >= self.retry.attempts() {
            return DecisionStep::Done(Err(error.into()));
        }
        let delay = self.retry.delay(self.faults, entropy.jitter());
        DecisionStep::Wait(Waiting { delay, contended: None, then: Box::new(again(self)) })
    }
}

/// One round of an attempt, while its read is under way.
struct Round<C: CommandLogic> {
    streams: Vec<BoundStream>,
    handles: C::Streams,
    discovered: Discovered,
    rounds: u32,
}

impl<C: CommandLogic> Round<C> {
    /// The discovered streams with what is new in `more`; `None` if nothing is.
    fn enlarged_by(&self, more: Discovered) -> Option<Discovered> {
        let known: HashMap<&StreamId, bool> = self.streams.iter().map(|s| (&s.stream_id, s.writable)).collect();
        let mut enlarged = self.discovered.clone();
        let before = enlarged.streams.len();
        for stream in more.streams {
            let news = known.get(&stream.stream_id).is_none_or(|writable| stream.writable && !writable);
            if news && !enlarged.streams.contains(&stream) {
                enlarged.streams.push(stream);
            }
        }
        (enlarged.streams.len() > before).then_some(enlarged)
    }
}

/// A read is needed.
pub struct Reading<C: CommandLogic> {
    run: Run<C>,
    request: ReadStreams,
    purpose: Purpose<C>,
}

enum Purpose<C: CommandLogic> {
    /// To decide on what is read.
    Decide(Round<C>),
    /// To see whether an append whose answer was lost had happened, now that it conflicts.
    Settle { request: AppendRequest, conflict: VersionConflict },
}

impl<C: CommandLogic> Reading<C> {
    /// What to read.
    #[must_use]
    pub fn request(&self) -> ReadStreams {
        self.request.clone()
    }

    /// Goes on with what was read.
    #[must_use]
    pub fn read(self, result: Result<StreamsRead, EventStoreError>, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        let Self { run, request, purpose } = self;
        match (result, purpose) {
            (Ok(read), Purpose::Decide(round)) => run.decide(round, read, entropy),
            (Ok(read), Purpose::Settle { request, conflict }) => match own_events(&request, &read) {
                Some(outcome) => {
                    let recorded_at = read.events.iter().find(|e| outcome.iter().any(|o| o.position == e.position()));
                    let recorded_at = recorded_at.map(crate::RecordedEvent::recorded_at);
                    DecisionStep::Done(Ok(ExecutionOutcome::settled(outcome, recorded_at, run.decisions)))
                }
                None => run.conflicted(conflict, entropy),
            },
            (Err(error), purpose) => {
                let transient = error.is_transient();
                let error = if matches!(purpose, Purpose::Settle { .. }) { unsettled(error) } else { error };
                if !transient {
                    return DecisionStep::Done(Err(error.into()));
                }
                run.faulted(error, entropy, |run| DecisionStep::Read(Reading { run, request, purpose }))
            }
        }
    }
}

/// Where the events of `request` stand in what was read; `None` if they are not there.
fn own_events(request: &AppendRequest, read: &StreamsRead) -> Option<Vec<AppendedEvent>> {
    let by_id: HashMap<EventId, &crate::RecordedEvent> = read.events.iter().map(|event| (event.id(), event)).collect();
    let find = |item: &crate::EventToAppend| {
        by_id.get(&item.event.id).map(|event| AppendedEvent {
            stream_id: event.stream_id().clone(),
            version: event.version(),
            position: event.position(),
        })
    };
    // Appends are atomic: all of its events are there, or none.
    request.events().iter().map(find).collect::<Option<Vec<_>>>().filter(|events| !events.is_empty())
}

/// Whatever fails while an outcome is unknown leaves it unknown.
fn unsettled(error: EventStoreError) -> EventStoreError {
    match error {
        unknown @ EventStoreError::OutcomeUnknown { .. } => unknown,
        other => EventStoreError::OutcomeUnknown { source: SharedError::new(other) },
    }
}

/// An append is needed.
pub struct Appending<C: CommandLogic> {
    run: Run<C>,
    request: AppendRequest,
    /// Whether the same request was sent before and its outcome is unknown.
    sent_before: bool,
}

impl<C: CommandLogic> Appending<C> {
    /// What to append.
    #[must_use]
    pub fn request(&self) -> AppendRequest {
        self.request.clone()
    }

    /// Goes on with the answer.
    #[must_use]
    pub fn appended(self, result: Result<Appended, EventStoreError>, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        let Self { run, request, sent_before } = self;
        match result {
            Ok(appended) => DecisionStep::Done(Ok(ExecutionOutcome::appended(appended, run.decisions))),
            Err(EventStoreError::Conflict(conflict)) if sent_before => run.settle(request, conflict),
            Err(EventStoreError::Conflict(conflict)) => run.conflicted(conflict, entropy),
            Err(error @ EventStoreError::OutcomeUnknown { .. }) => {
                run.faulted(error, entropy, |run| DecisionStep::Append(Self { run, request, sent_before: true }))
            }
            Err(error) if error.is_transient() => {
                let error = if sent_before { unsettled(error) } else { error };
                run.faulted(error, entropy, |run| DecisionStep::Append(Self { run, request, sent_before }))
            }
            Err(error) if sent_before => DecisionStep::Done(Err(unsettled(error).into())),
            Err(error) => DecisionStep::Done(Err(error.into())),
        }
    }
}

impl<C: CommandLogic> Run<C> {
    /// An append whose first answer was lost conflicts: perhaps with itself.
    fn settle(self, request: AppendRequest, conflict: VersionConflict) -> DecisionStep<C> {
        let written = request.streams().iter().filter(|stream| stream.written).map(|stream| stream.stream_id.clone());
        match ReadStreams::new(written) {
            Ok(read) => {
                DecisionStep::Read(Reading { run: self, request: read, purpose: Purpose::Settle { request, conflict } })
            }
            Err(error) => DecisionStep::Done(Err(unsettled(error.into()).into())),
        }
    }
}

/// A pause is needed before the next step.
pub struct Waiting<C: CommandLogic> {
    delay: Duration,
    contended: Option<StreamId>,
    then: Box<DecisionStep<C>>,
}

impl<C: CommandLogic> Waiting<C> {
    /// How long to wait.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// The stream on which somebody else was faster, if that is why to wait.
    #[must_use]
    pub const fn contended(&self) -> Option<&StreamId> {
        self.contended.as_ref()
    }

    /// Goes on after the pause.
    #[must_use]
    pub fn waited(self) -> DecisionStep<C> {
        *self.then
    }
}
