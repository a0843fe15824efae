//! The decision as a pure machine: given results, it says what to do next.
//!
//! Every step is a type of its own that takes exactly the result it asked for, so it cannot be driven wrongly. It does no
//! I/O, reads no clock and draws no random number: [`Entropy`] is passed in.

use super::cache::{CacheKey, CachedState};
use super::known::{Known, Useless};
use super::recall::Recalling;
use super::snapshot::{self, DueSnapshot, Unusable};
use super::streams::BoundStream;
use super::{
    CommandContext, CommandError, CommandLogic, Discovered, ExecutionOutcome, RetryPolicy, SnapshotPolicy, StateFold,
    StreamBinder,
};
use crate::{
    AppendRequest, Appended, AppendedEvent, CommandClaim, DecodeError, Event, EventHeader, EventId, EventMetadata,
    EventStoreError, EventToAppend, ExpectedVersion, Fingerprint, InvalidAppend, NewEvent, ReadStreams, RecordedEvent,
    SharedError, Snapshot, SnapshotKey, StreamExpectation, StreamId, StreamPosition, StreamVersion, StreamsRead,
    VersionConflict,
};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
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
    /// Look for a state in the cache.
    Recall(Recalling<C>),
    /// Load a snapshot to begin from.
    Load(Loading<C>),
    /// Read streams.
    Read(Reading<C>),
    /// Append what was decided.
    Append(Appending<C>),
    /// Wait before the next attempt.
    Wait(Waiting<C>),
    /// Keep the state, and have a snapshot stored, without waiting for it.
    Keep(Keeping<C>),
    /// Answer the caller.
    Done(Result<ExecutionOutcome, CommandError<C::Error>>),
}

/// How an execution is done.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DecisionOptions {
    /// How often and how soon it tries again.
    pub retry: RetryPolicy,
    /// When snapshots of its state are taken; without, none is looked for either.
    pub snapshots: Option<SnapshotPolicy>,
    /// Whether states are kept in memory.
    pub cache: bool,
}

/// Begins the execution of a command that always reads all of its streams.
#[must_use]
pub fn decide<C: CommandLogic>(command: C, context: CommandContext, retry: RetryPolicy) -> DecisionStep<C> {
    decide_with(command, context, DecisionOptions { retry, ..DecisionOptions::default() })
}

/// Begins the execution of a command.
#[must_use]
pub fn decide_with<C: CommandLogic>(command: C, context: CommandContext, options: DecisionOptions) -> DecisionStep<C> {
    let metadata = match context.event_metadata() {
        Ok(metadata) => metadata,
        Err(error) => return DecisionStep::Done(Err(error.into())),
    };
    let run = Box::new(Run {
        command,
        metadata,
        retry: options.retry,
        fold: C::state_fold(),
        snapshots: options.snapshots,
        cache: options.cache,
        recall: Recall::ToDecide,
        key: None,
        looked_up: None,
        stored_is_useless: false,
        recent: None,
        from: None,
        claim: None,
        decisions: 0,
        faults: 0,
    });
    run.claimed(&context).map_or_else(|error| DecisionStep::Done(Err(error)), |run| run.attempt())
}

/// What stays the same over all attempts of one execution, and what was learned in them. It is large, and goes from step to
/// step: in a box.
pub(super) struct Run<C: CommandLogic> {
    pub(super) command: C,
    metadata: EventMetadata,
    retry: RetryPolicy,
    pub(super) fold: StateFold<C>,
    snapshots: Option<SnapshotPolicy>,
    pub(super) cache: bool,
    /// What the cache is looked into for. What is in there may be out of date, so once is enough.
    pub(super) recall: Recall,
    /// Where the state of the streams in hand is kept; `None` if it is not.
    pub(super) key: Option<CacheKey>,
    /// The snapshot that was looked for last; it is not looked for again.
    looked_up: Option<SnapshotKey>,
    /// A snapshot is stored that will never be of use again, so the next one is due at once.
    stored_is_useless: bool,
    /// What the attempt before was decided on.
    recent: Option<Known<C::State>>,
    /// What the read under way goes on from, so that only what is new is read.
    from: Option<Known<C::State>>,
    pub(super) claim: Option<CommandClaim>,
    decisions: u32,
    faults: u32,
}

/// What the cache is looked into for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recall {
    /// To decide on what is in there.
    ToDecide,
    /// To go on from what is in there by reading.
    ToReadOn,
    /// For nothing more.
    Not,
}

impl<C: CommandLogic> Run<C> {
    /// Works out the fingerprint, of the declared streams alone: a receipt is looked up before anything is discovered.
    fn claimed(mut self: Box<Self>, context: &CommandContext) -> Result<Box<Self>, CommandError<C::Error>> {
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
    pub(super) fn attempt(self: Box<Self>) -> DecisionStep<C> {
        self.round(Discovered::none(), 0)
    }

    /// One round of an attempt: reads the declared and the discovered streams together.
    fn round(self: Box<Self>, discovered: Discovered, rounds: u32) -> DecisionStep<C> {
        let mut binder = StreamBinder::new(discovered.clone());
        let handles = match self.command.bind(&mut binder) {
            Ok(handles) => handles,
            Err(error) => return DecisionStep::Done(Err(error.into())),
        };
        let streams = binder.into_streams();
        let round = Round { streams, handles, discovered, rounds };
        self.recall(round)
    }

    /// Reads as little as possible: on from the attempt before, or from a snapshot, or else everything.
    pub(super) fn begin(mut self: Box<Self>, round: Round<C>) -> DecisionStep<C> {
        if let Some(known) = self.recent.take_if(|known| known.is_of(&round.streams)) {
            return self.read_on(round, known);
        }
        match self.snapshot_key(&round.streams) {
            Some(key) if self.looked_up.as_ref() != Some(&key) => DecisionStep::Load(Loading { run: self, key, round }),
            _ => self.read_all(round),
        }
    }

    /// The key of the snapshots of a state of these streams; `None` if none are taken.
    fn snapshot_key(&self, streams: &[BoundStream]) -> Option<SnapshotKey> {
        let (policy, codec) = (self.snapshots?, self.fold.codec()?);
        if streams.is_empty() || streams.len() > policy.max_streams {
            return None;
        }
        let key = snapshot::key(codec, streams, self.command.ignored_event_types());
        key.inspect_err(
            |error| tracing::error!(%error, state = codec.name, "no snapshots: a state has an invalid name"),
        )
        .ok()
    }

    fn read_all(self: Box<Self>, round: Round<C>) -> DecisionStep<C> {
        let request = ReadStreams::new(round.streams.iter().map(|stream| stream.stream_id.clone()));
        self.read(round, request)
    }

    pub(super) fn read_on(mut self: Box<Self>, round: Round<C>, known: Known<C::State>) -> DecisionStep<C> {
        let request = known.request();
        self.from = Some(known);
        self.read(round, request)
    }

    fn read(self: Box<Self>, round: Round<C>, request: Result<ReadStreams, InvalidAppend>) -> DecisionStep<C> {
        match request {
            Ok(request) => {
                let request = request.unless_executed(self.claim.as_ref().map(|claim| claim.command_id.clone()));
                DecisionStep::Read(Reading { run: self, request, purpose: Purpose::Decide(round) })
            }
            Err(error) => DecisionStep::Done(Err(EventStoreError::from(error).into())),
        }
    }

    /// Folds what was read, lets the command discover or decide, and makes the append.
    fn decide(mut self: Box<Self>, round: Round<C>, read: StreamsRead, entropy: &mut dyn Entropy) -> DecisionStep<C> {
        if let (Some(claim), Some(receipt)) = (&self.claim, &read.receipt) {
            let replayed = receipt.replay(claim).map(|appended| ExecutionOutcome::appended(appended, self.decisions));
            return DecisionStep::Done(replayed.map_err(CommandError::from));
        }
        let StreamsRead { events, versions, .. } = read;
        let known = match self.from.take() {
            // Where nobody goes on from it, nothing has to be known of its streams.
            None => self.fold(Known::nothing(if self.goes_on() { &round.streams } else { &[] }), events).map(Ok),
            Some(known) => match known.news(events) {
                Ok(news) => self.fold(known, news).map(|known| match known.is_at(&versions) {
                    true => Ok(known),
                    false => Err(Useless::Diverged),
                }),
                Err(useless) => Ok(Err(useless)),
            },
        };
        let known = match known {
            Ok(Ok(known)) => known,
            Ok(Err(why)) => {
                tracing::warn!(?why, "what was folded before cannot be gone on from: all events are read");
                self.stored_is_useless = true;
                return self.read_all(round);
            }
            Err(error) => return DecisionStep::Done(Err(error)),
        };
        // A store that tells other versions than it brings events of: nothing is kept of that.
        if self.goes_on() && !known.is_at(&versions) {
            (self.snapshots, self.cache) = (None, false);
        }
        if let Some(discovered) = round.enlarged_by(self.command.discover(&known.state)) {
            if round.rounds >= MAX_ROUNDS {
                return DecisionStep::Done(Err(CommandError::TooManyRounds { limit: MAX_ROUNDS }));
            }
            return self.round(discovered, round.rounds + 1);
        }
        self.decisions += 1;
        let events = match self.command.handle(&known.state, &round.handles) {
            Ok(events) => events.into_vec(),
            Err(rejection) => return self.finish(known, Err(CommandError::Rejected(rejection))),
        };
        if events.is_empty() && self.claim.is_none() {
            let nothing = ExecutionOutcome::nothing(self.decisions);
            return self.finish(known, Ok(nothing));
        }
        match self.request(&round.streams, versions.into_iter(), events, entropy) {
            Ok(request) => {
                let alone = round.rounds > 0;
                let known = Some(known);
                DecisionStep::Append(Appending {
                    run: self,
                    request,
                    own: None,
                    known,
                    predicted: None,
                    alone,
                    sent_before: false,
                })
            }
            Err(error) => DecisionStep::Done(Err(error)),
        }
    }

    /// Folds events on top of what is known.
    fn fold(
        &self,
        mut known: Known<C::State>,
        events: Vec<RecordedEvent>,
    ) -> Result<Known<C::State>, CommandError<C::Error>> {
        // What is folded is noted only for those who go on from it.
        let indexes: HashMap<StreamId, usize> = match self.goes_on() {
            true => known.streams.iter().map(|stream| stream.stream_id.clone()).zip(0..).collect(),
            false => HashMap::new(),
        };
        let mut ignored = None;
        for event in events {
            if let Some(&index) = indexes.get(event.stream_id()) {
                known.note(index, event.header());
            }
            let (header, payload) = event.into_parts();
            match C::Event::decode(&header.event_type, header.schema_version, &payload) {
                Ok(payload) => {
                    self.fold.apply(&self.command, &mut known.state, &RecordedEvent::new(header, payload));
                }
                Err(DecodeError::UnknownType { event_type })
                    if ignored
                        .get_or_insert_with(|| self.command.ignored_event_types().into_iter().collect::<BTreeSet<_>>())
                        .contains(&event_type) => {}
                Err(source) => {
                    let EventHeader { stream_id: stream, position, .. } = header;
                    return Err(CommandError::Decode { stream, position, source });
                }
            }
        }
        Ok(known)
    }

    /// Whether what is folded may be gone on from, in another attempt or from a snapshot.
    fn goes_on(&self) -> bool {
        self.snapshots.is_some() && self.fold.codec().is_some() || self.cache && self.fold.own().is_some()
    }

    /// Whether a snapshot is due when so many events are folded that the stored one does not have.
    fn is_due(&self, unsaved: u64) -> bool {
        self.fold.codec().is_some()
            && self.snapshots.is_some_and(|policy| self.stored_is_useless || unsaved >= policy.every)
    }

    /// Answers the caller, and has the state kept, and a snapshot of it stored if one is due.
    fn finish(
        &self,
        mut known: Known<C::State>,
        result: Result<ExecutionOutcome, CommandError<C::Error>>,
    ) -> DecisionStep<C> {
        let snapshot = self.due_snapshot(&mut known);
        let state = self.key.zip(self.fold.own()).map(|(key, fold)| (key, (fold.cached)(known)));
        if snapshot.is_none() && state.is_none() {
            return DecisionStep::Done(result);
        }
        DecisionStep::Keep(Keeping { state, snapshot, result })
    }

    fn due_snapshot(&self, known: &mut Known<C::State>) -> Option<DueSnapshot> {
        let policy = self.snapshots.filter(|_| self.is_due(known.unsaved) && known.position.is_some())?;
        let streams = known.streams.iter().map(|s| BoundStream { stream_id: s.stream_id.clone(), writable: false });
        let key = self.snapshot_key(&streams.collect::<Vec<_>>())?;
        known.unsaved = 0;
        let known = (self.fold.own()?.copy)(known);
        Some(DueSnapshot::new::<C>(C::state_fold(), key, known, policy.max_bytes))
    }

    pub(super) fn request(
        &self,
        streams: &[BoundStream],
        versions: impl ExactSizeIterator<Item = StreamVersion>,
        events: Vec<(StreamId, C::Event)>,
        entropy: &mut dyn Entropy,
    ) -> Result<AppendRequest, CommandError<C::Error>> {
        if streams.len() != versions.len() {
            let what = format!("the store told {} versions of {} streams", versions.len(), streams.len());
            return Err(EventStoreError::storage(what).into());
        }
        let expect = |(stream, version): (&BoundStream, StreamVersion)| StreamExpectation {
            stream_id: stream.stream_id.clone(),
            expected: ExpectedVersion::Exact(version).normalized(),
            written: false,
        };
        let mut expected: Vec<StreamExpectation> = streams.iter().zip(versions).map(expect).collect();
        let mut to_append = Vec::with_capacity(events.len());
        for (stream_id, event) in events {
            let declared = streams.iter().zip(&mut expected).enumerate();
            let mut declared = declared.filter(|(_, (stream, _))| stream.writable);
            let Some((stream, (_, expected))) = declared.find(|(_, (stream, _))| stream.stream_id == stream_id) else {
                return Err(CommandError::UndeclaredStream { stream: stream_id });
            };
            expected.written = true;
            let event = NewEvent::encode(entropy.event_id(), &event, self.metadata.clone())?;
            to_append.push(EventToAppend { stream, event });
        }
        // The streams of a command are named once each, which is what a builder would see to.
        Ok(AppendRequest::checked(expected, to_append, self.claim.clone()).map_err(EventStoreError::from)?)
    }

    /// After a conflict: decides again on a fresh read, unless that was the last attempt.
    fn conflicted(self: Box<Self>, conflict: VersionConflict, entropy: &mut dyn Entropy) -> DecisionStep<C> {
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
        mut self: Box<Self>,
        error: EventStoreError,
        entropy: &mut dyn Entropy,
        again: impl FnOnce(Box<Self>) -> DecisionStep<C>,
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
pub(super) struct Round<C: CommandLogic> {
    pub(super) streams: Vec<BoundStream>,
    pub(super) handles: C::Streams,
    discovered: Discovered,
    pub(super) rounds: u32,
}

impl<C: CommandLogic> Round<C> {
    /// The discovered streams with what is new in `more`; `None` if nothing is.
    pub(super) fn enlarged_by(&self, more: Discovered) -> Option<Discovered> {
        if more.streams.is_empty() {
            return None;
        }
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

/// A snapshot may be there.
pub struct Loading<C: CommandLogic> {
    run: Box<Run<C>>,
    key: SnapshotKey,
    round: Round<C>,
}

impl<C: CommandLogic> Loading<C> {
    /// Which one.
    #[must_use]
    pub const fn key(&self) -> &SnapshotKey {
        &self.key
    }

    /// Goes on with what was loaded. Without a snapshot, or with one of no use, all events are read: never an error.
    #[must_use]
    pub fn loaded(self, result: Result<Option<Snapshot>, EventStoreError>) -> DecisionStep<C> {
        let Self { mut run, key, round } = self;
        run.looked_up = Some(key.clone());
        let snapshot = match result {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(%key, error = &error as &dyn std::error::Error, "a snapshot cannot be read");
                // What is damaged is replaced soon. Of a store that is out of reach nothing is known.
                run.stored_is_useless |= matches!(error, EventStoreError::Corrupt { .. });
                None
            }
        };
        let restored = snapshot
            .zip(run.fold.codec())
            .map(|(snapshot, codec)| snapshot::restore(codec, &key, snapshot, &round.streams));
        match restored {
            Some(Ok(known)) => run.read_on(round, known),
            Some(Err(why @ Unusable::OtherSchema)) => {
                tracing::debug!(%key, %why, "a snapshot is not used");
                run.read_all(round)
            }
            Some(Err(why)) => {
                tracing::warn!(%key, error = &why as &dyn std::error::Error, "a snapshot is not used");
                run.stored_is_useless = true;
                run.read_all(round)
            }
            None => run.read_all(round),
        }
    }
}

/// The command is done, and its state is worth keeping.
pub struct Keeping<C: CommandLogic> {
    state: Option<(CacheKey, CachedState)>,
    snapshot: Option<DueSnapshot>,
    result: Result<ExecutionOutcome, CommandError<C::Error>>,
}

impl<C: CommandLogic> Keeping<C> {
    /// The state for the cache, the first time that it is asked for.
    #[must_use]
    pub fn state(&mut self) -> Option<(CacheKey, CachedState)> {
        self.state.take()
    }

    /// The snapshot, the first time that it is asked for. It may be stored at any time from now on, or never.
    #[must_use]
    pub fn snapshot(&mut self) -> Option<DueSnapshot> {
        self.snapshot.take()
    }

    /// Goes on to the answer.
    #[must_use]
    pub fn kept(self) -> DecisionStep<C> {
        DecisionStep::Done(self.result)
    }
}

/// A read is needed.
pub struct Reading<C: CommandLogic> {
    run: Box<Run<C>>,
    request: ReadStreams,
    purpose: Purpose<C>,
}

enum Purpose<C: CommandLogic> {
    /// To decide on what is read.
    Decide(Round<C>),
    /// To see whether an append had happened whose answer was lost.
    Settle(Unsettled<C>),
}

/// An append of which nobody has told what became of it.
struct Unsettled<C: CommandLogic> {
    request: AppendRequest,
    own: Option<Range<usize>>,
    predicted: Option<Round<C>>,
    /// It was sent again and refused so, perhaps because it was stored. Without, it is sent again if it still can be stored.
    conflict: Option<VersionConflict>,
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
            (Ok(read), Purpose::Settle(unsettled)) => run.settled(unsettled, &request, &read, entropy),
            (Err(error), purpose) => {
                let transient = error.is_transient();
                let error = if matches!(purpose, Purpose::Settle(_)) { unsettled(error) } else { error };
                if !transient {
                    return DecisionStep::Done(Err(error.into()));
                }
                run.faulted(error, entropy, |run| DecisionStep::Read(Reading { run, request, purpose }))
            }
        }
    }
}

/// From where the streams that a request writes to have to be read to find its events: they can only stand right after the
/// versions that it expects.
fn written_from(request: &AppendRequest) -> impl Iterator<Item = StreamPosition> {
    request.streams().iter().filter(|stream| stream.written).map(|stream| StreamPosition {
        stream_id: stream.stream_id.clone(),
        after: match stream.expected {
            ExpectedVersion::Exact(version) => version,
            // No stream yet: no other expectation is ever made of a decision.
            _ => StreamVersion::default(),
        },
    })
}

/// Where the events of `request` stand in what was read; `None` if they are not there.
fn own_events(request: &AppendRequest, read: &StreamsRead) -> Option<Vec<AppendedEvent>> {
    let by_id: HashMap<EventId, &RecordedEvent> = read.events.iter().map(|event| (event.id(), event)).collect();
    let mut versions: HashMap<StreamId, StreamVersion> =
        written_from(request).map(|stream| (stream.stream_id, stream.after)).collect();
    let find = |item: &EventToAppend| {
        let stream_id = request.stream_of(item);
        let version = versions.get_mut(stream_id)?;
        *version = version.next().ok()?;
        let stored = by_id.get(&item.event.id)?;
        let is_there = stored.stream_id() == stream_id && stored.version() == *version;
        is_there.then(|| AppendedEvent { stream_id: stream_id.clone(), version: *version, position: stored.position() })
    };
    // Appends are atomic: all of its events are there, or none.
    request.events().iter().map(find).collect::<Option<Vec<_>>>().filter(|events| !events.is_empty())
}

/// What is a command's own of an append that others have a part in.
fn of_own(mut places: Vec<AppendedEvent>, own: Option<Range<usize>>) -> Vec<AppendedEvent> {
    if let Some(own) = own {
        places.truncate(own.end);
        places.drain(..own.start.min(places.len()));
    }
    places
}

/// Whether the store refused for good what it was sent.
fn is_answer(error: &EventStoreError) -> bool {
    !error.is_transient() && !matches!(error, EventStoreError::OutcomeUnknown { .. })
}

/// Where those queue up whose append was refused.
fn refused_on(error: EventStoreError, request: &AppendRequest) -> Option<StreamId> {
    match error {
        EventStoreError::Conflict(conflict) => Some(conflict.stream_id),
        _ => request.streams().iter().find(|stream| stream.written).map(|stream| stream.stream_id.clone()),
    }
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
    pub(super) run: Box<Run<C>>,
    pub(super) request: AppendRequest,
    /// Which of its events are the command's own, if others have a part in it.
    pub(super) own: Option<Range<usize>>,
    /// What it was decided on, as far as that is stored; `None` if another command's part was decided on it too.
    pub(super) known: Option<Known<C::State>>,
    /// Where to go on if it was decided on what may be out of date, and that was out of date.
    pub(super) predicted: Option<Round<C>>,
    /// Whether nobody else may have a part in it.
    pub(super) alone: bool,
    /// Whether the same request was sent before and its outcome is unknown.
    pub(super) sent_before: bool,
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
        let Self { mut run, request, own, known, predicted, alone, sent_before } = self;
        // A decision on what was read counts at once, and one that came to nothing because of others does not.
        let counted = u32::from(predicted.is_none());
        match result {
            Ok(appended) => {
                // Its receipt may be there already: then this was no decision.
                run.decisions += u32::from(predicted.is_some() && (sent_before || !appended.replayed));
                run.appended(known, own, &request, appended)
            }
            Err(EventStoreError::Conflict(conflict)) if sent_before => {
                run.settle(Unsettled { request, own, predicted, conflict: Some(conflict) })
            }
            Err(error) if !sent_before && is_answer(&error) && predicted.is_some() => match (predicted, known) {
                (Some(round), Some(known)) => run.read_on(round, known),
                (round, _) => run.left_out(round, refused_on(error, &request)),
            },
            Err(EventStoreError::Conflict(conflict)) => {
                run.recent = known.filter(|_| run.goes_on());
                run.conflicted(conflict, entropy)
            }
            // Perhaps only what others wanted was refused.
            Err(error) if !sent_before && is_answer(&error) && own.is_some() => {
                run.recent = known.filter(|_| run.goes_on());
                run.decisions -= counted.min(run.decisions);
                run.attempt()
            }
            Err(error @ EventStoreError::OutcomeUnknown { .. }) => run.faulted(error, entropy, |run| {
                // Whoever led sends it again; that not all others do too, they look first.
                let looks = own.is_some() && known.is_none() && !sent_before;
                let again = Self { run, request, own, known, predicted, alone, sent_before: true };
                if looks { again.look() } else { DecisionStep::Append(again) }
            }),
            // Nothing of it is stored. It must not be sent by several, of whom some have given it up.
            Err(error) if error.is_transient() && !sent_before && own.is_some() => {
                run.faulted(error, entropy, |mut run| match known {
                    Some(known) => {
                        run.recent = run.goes_on().then_some(known);
                        run.decisions -= counted.min(run.decisions);
                        run.attempt()
                    }
                    None => run.left_out(predicted, None),
                })
            }
            Err(error) if error.is_transient() => {
                let error = if sent_before { unsettled(error) } else { error };
                run.faulted(error, entropy, |run| {
                    DecisionStep::Append(Self { run, request, own, known, predicted, alone, sent_before })
                })
            }
            Err(error) if sent_before => DecisionStep::Done(Err(unsettled(error).into())),
            Err(error) => DecisionStep::Done(Err(error.into())),
        }
    }

    /// Nobody knows what became of it, and no store has failed: it is looked for, and sent again if it is not there.
    pub(super) fn look(self) -> DecisionStep<C> {
        let Self { run, request, own, predicted, .. } = self;
        run.settle(Unsettled { request, own, predicted, conflict: None })
    }
}

impl<C: CommandLogic> Run<C> {
    /// Answers where the events are; the state after them may be worth a snapshot.
    fn appended(
        &self,
        known: Option<Known<C::State>>,
        own: Option<Range<usize>>,
        request: &AppendRequest,
        mut appended: Appended,
    ) -> DecisionStep<C> {
        let known = known.filter(|known| {
            let due = self.is_due(known.unsaved.saturating_add(request.events().len() as u64));
            due || self.cache && self.goes_on()
        });
        let known = known.and_then(|known| known.after(&self.command, &self.fold, request, &appended));
        appended.events = of_own(appended.events, own);
        let outcome = ExecutionOutcome::appended(appended, self.decisions);
        match known {
            Some(known) => self.finish(known, Ok(outcome)),
            None => DecisionStep::Done(Ok(outcome)),
        }
    }

    /// Looks whether an append was stored.
    fn settle(self: Box<Self>, unsettled: Unsettled<C>) -> DecisionStep<C> {
        match ReadStreams::after(written_from(&unsettled.request)) {
            Ok(request) => DecisionStep::Read(Reading { run: self, request, purpose: Purpose::Settle(unsettled) }),
            Err(error) => DecisionStep::Done(Err(EventStoreError::outcome_unknown(error).into())),
        }
    }

    fn settled(
        mut self: Box<Self>,
        unsettled: Unsettled<C>,
        request: &ReadStreams,
        read: &StreamsRead,
        entropy: &mut dyn Entropy,
    ) -> DecisionStep<C> {
        let Unsettled { request: sent, own, predicted, conflict } = unsettled;
        if let Some(places) = own_events(&sent, read) {
            self.decisions += u32::from(predicted.is_some());
            let recorded_at =
                read.events.iter().find(|event| places.iter().any(|own| own.position == event.position()));
            let recorded_at = recorded_at.map(RecordedEvent::recorded_at);
            let outcome = ExecutionOutcome::settled(of_own(places, own), recorded_at, self.decisions);
            return DecisionStep::Done(Ok(outcome));
        }
        let moved = || {
            let mut streams = request.streams().iter().zip(&read.versions);
            let (stream, actual) = streams.find(|(stream, version)| stream.after != **version)?;
            let (stream_id, expected) = (stream.stream_id.clone(), ExpectedVersion::Exact(stream.after));
            Some(VersionConflict { stream_id, expected, actual: *actual })
        };
        match (conflict.or_else(moved), predicted) {
            // It is not stored, and never will be.
            (Some(conflict), Some(round)) => self.left_out(Some(round), Some(conflict.stream_id)),
            (Some(conflict), None) => self.conflicted(conflict, entropy),
            (None, predicted) => DecisionStep::Append(Appending {
                run: self,
                request: sent,
                own,
                known: None,
                predicted,
                alone: true,
                sent_before: true,
            }),
        }
    }
}

/// A pause is needed before the next step.
pub struct Waiting<C: CommandLogic> {
    pub(super) delay: Duration,
    pub(super) contended: Option<StreamId>,
    pub(super) then: Box<DecisionStep<C>>,
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
