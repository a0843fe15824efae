//! Commands that wait for each other on the same streams, decided one after the other and stored by one append.
//!
//! The first of them, the leader, decides on what is stored; each of the others on what those before him decided. All their
//! events are in one append, which expects the streams as the leader found them: either all of it is stored, and every
//! decision was made on exactly what is stored before it, or none of it. Nothing less would do: an append of its own that
//! expects the version *after* another one's events would also be taken if somebody else had written as many.

use super::CommandLogic;
use super::cache::{CacheKey, CachedState};
use super::executor::SystemEntropy;
use super::known::Known;
use super::lobby::{Entry, Line, Lobbies};
use super::machine::{Appending, DecisionStep, Entropy};
use super::recall::Recalling;
use crate::{AppendRequest, Appended, EventStoreError, InvalidAppend};
use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// The most commands that are stored by one append.
pub(super) const MAX_COMMANDS: usize = 64;
/// When the events of an append are so many bytes, no further command is added.
const ENOUGH_BYTES: usize = 1024 * 1024;
/// How long a command waits for another one, whose caller may have left it unpolled.
const PATIENCE: Duration = Duration::from_secs(10);

/// The commands that wait, of all keys.
#[derive(Clone)]
pub(super) struct Joint(Arc<Lobbies<CacheKey, Arc<dyn Candidate>>>);

impl Default for Joint {
    fn default() -> Self {
        Self(Arc::new(Lobbies::new()))
    }
}

impl fmt::Debug for Joint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joint").finish_non_exhaustive()
    }
}

/// What became of a command that may be stored together with others.
pub(super) enum Entered<C: CommandLogic> {
    /// It leads.
    Leads(Lead, Recalling<C>),
    /// Another one took care of it so far.
    GoesOn(DecisionStep<C>),
}

impl Joint {
    /// Waits until the command leads, or another one has taken it along.
    pub(super) async fn enter<C: CommandLogic>(&self, recalling: Recalling<C>) -> Entered<C> {
        let key = *recalling.key();
        let mut recalling = Some(recalling);
        let mut waits = None;
        let entry = self.0.enter(key, || {
            let (tell, told) = oneshot::channel();
            let seat = Arc::new(Seat(Mutex::new(match recalling.take() {
                Some(recalling) => Place::Waiting(recalling, tell),
                None => Place::Left,
            })));
            let candidate: Arc<dyn Candidate> = seat.clone();
            waits = Some((seat, told));
            candidate
        });
        match (entry, recalling, waits) {
            (Entry::Leads(line), Some(recalling), _) => Entered::Leads(Lead::new(self.clone(), key, line), recalling),
            (Entry::Waits(line), _, Some((seat, told))) => {
                Waiter { joint: self.clone(), key, line, seat, told }.wait().await
            }
            // The closure above is called exactly if the command does not lead.
            _ => Entered::GoesOn(DecisionStep::Done(Err(nobody_told().into()))),
        }
    }
}

fn nobody_told() -> EventStoreError {
    EventStoreError::outcome_unknown("the command that was to store this one did not say what became of it")
}

/// The command at the head of its lobby. When it goes, the next one leads.
pub(super) struct Lead {
    joint: Joint,
    key: CacheKey,
    line: Line,
    gathered: bool,
    leads: bool,
}

impl Lead {
    const fn new(joint: Joint, key: CacheKey, line: Line) -> Self {
        Self { joint, key, line, gathered: false, leads: true }
    }

    /// Takes those who wait along in its first append.
    pub(super) async fn gather<C: CommandLogic>(
        &mut self,
        mut appending: Appending<C>,
        entropy: &mut impl Entropy,
    ) -> (Appending<C>, Company) {
        let mut company = Company::default();
        if std::mem::replace(&mut self.gathered, true) || !appending.is_open() {
            return (appending, company);
        }
        if appending.left_crowd() {
            // Those who were stored with the last one may be about to come again.
            tokio::task::yield_now().await;
        }
        // A draft is costly, and mostly nobody waits.
        let Some(first) = self.take() else { return (appending, company) };
        company.aside.push(first);
        let Some(mut draft) = appending.draft() else { return (appending, company) };
        let mut next = company.aside.pop();
        while let Some(candidate) = next {
            if draft.add(&*candidate, entropy) {
                company.on_board.push(candidate);
            } else {
                company.aside.push(candidate);
            }
            next = if draft.has_room() { self.take() } else { None };
        }
        match draft.finish() {
            Ok((request, parts)) => {
                appending.share(&request, &parts);
                for (candidate, own) in company.on_board.iter().zip(parts.into_iter().skip(1)) {
                    candidate.sent_with(&request, own);
                }
            }
            // They do not fit into one append: each goes on alone.
            Err(error) => {
                let refused = Err(error.into());
                company.on_board.drain(..).for_each(|candidate| candidate.answer(Some(&refused), entropy));
            }
        }
        (appending, company)
    }

    fn take(&self) -> Option<Arc<dyn Candidate>> {
        self.joint.0.take(&self.key, self.line)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        while self.leads
            && let Some(next) = self.joint.0.pass(&self.key, self.line)
        {
            match next.lead(Self::new(self.joint.clone(), self.key, self.line)) {
                Ok(()) => self.leads = false,
                // He has left. This one leads still, and that one never did.
                Err(mut refused) => refused.leads = false,
            }
        }
    }
}

/// Those whose commands another one has taken along. They are told what became of it, even if he gives up.
#[derive(Default)]
pub(super) struct Company {
    on_board: Vec<Arc<dyn Candidate>>,
    /// Those who decided nothing that could be answered before it was decided on a fresh read.
    aside: Vec<Arc<dyn Candidate>>,
}

impl Company {
    /// Tells all of them. Gives back what is true for the leader too; `None` if nobody knows.
    ///
    /// One who lost his patience may be sending the append again: if it was refused here, it may be stored there.
    pub(super) fn answer(
        mut self,
        result: Result<Appended, EventStoreError>,
        entropy: &mut dyn Entropy,
    ) -> Option<Result<Appended, EventStoreError>> {
        // First nobody can lose his patience any more, then all are told the same.
        let gone = self.on_board.iter().filter(|candidate| !candidate.stay()).count();
        let is_refused = matches!(&result, Err(error) if !matches!(error, EventStoreError::OutcomeUnknown { .. }));
        let result = if gone > 0 && is_refused { None } else { Some(result) };
        self.tell(result.as_ref(), entropy);
        result
    }

    fn tell(&mut self, result: Option<&Result<Appended, EventStoreError>>, entropy: &mut dyn Entropy) {
        for candidate in self.on_board.drain(..).chain(self.aside.drain(..)) {
            candidate.answer(result, entropy);
        }
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        // The leader was given up. The store has not failed, so this is no fault.
        self.tell(None, &mut SystemEntropy);
    }
}

/// An append that grows by what commands decide, each on what those before him decided.
pub(super) struct Draft {
    /// The state after all of it.
    ahead: Option<CachedState>,
    parts: Vec<AppendRequest>,
    events: usize,
    bytes: usize,
}

impl Draft {
    /// Begins with the leader's own append. `ahead` is the state after it.
    pub(super) fn new(ahead: CachedState, first: AppendRequest) -> Self {
        Self { ahead: Some(ahead), events: first.events().len(), bytes: first.size(), parts: vec![first] }
    }

    fn has_room(&self) -> bool {
        self.ahead.is_some() && self.parts.len() < MAX_COMMANDS && self.bytes < ENOUGH_BYTES
    }

    /// Whether the candidate decided something that could be added.
    fn add(&mut self, candidate: &dyn Candidate, entropy: &mut dyn Entropy) -> bool {
        let Some(ahead) = self.ahead.take() else { return false };
        let room = AppendRequest::MAX_EVENTS.saturating_sub(self.events);
        let (ahead, part) = candidate.decide(ahead, room, entropy);
        self.ahead = ahead;
        let Some(part) = part else { return false };
        self.events += part.events().len();
        self.bytes += part.size();
        self.parts.push(part);
        true
    }

    /// The whole append, which expects what the first part expects, and where the events of each part are in it.
    fn finish(self) -> Result<(AppendRequest, Vec<Range<usize>>), InvalidAppend> {
        let Some(first) = self.parts.first().filter(|_| self.parts.len() > 1) else {
            return Ok((self.parts.into_iter().next().ok_or(InvalidAppend::Empty)?, Vec::new()));
        };
        let mut builder = AppendRequest::builder();
        for stream in first.streams() {
            builder = builder.expect(stream.stream_id.clone(), stream.expected);
        }
        let mut places = Vec::with_capacity(self.parts.len());
        let mut end = 0;
        for part in &self.parts {
            let start = end;
            for item in part.events() {
                builder = builder.event(part.stream_of(item).clone(), item.event.clone());
                end += 1;
            }
            places.push(start..end);
        }
        Ok((builder.build()?, places))
    }
}

impl<C: CommandLogic> Appending<C> {
    /// Whether others may have a part in it.
    fn is_open(&self) -> bool {
        let may_be = !self.alone && !self.sent_before && self.run.cache && self.run.claim.is_none();
        may_be && self.known.is_some() && self.run.fold.is_timeless() && self.request.size() < ENOUGH_BYTES
    }

    /// Whether others had a part in the last one, going by what is known. From now on, they had none.
    fn left_crowd(&mut self) -> bool {
        self.known.as_mut().is_some_and(|known| std::mem::take(&mut known.crowded))
    }

    /// What others are added to; `None` if nobody can say what is after it.
    fn draft(&self) -> Option<Draft> {
        let (known, fold) = (self.known.as_ref()?, self.run.fold.own()?);
        let ahead = (fold.copy)(known).if_stored(&self.run.command, &self.run.fold, &self.request)?;
        Some(Draft::new((fold.cached)(ahead), self.request.clone()))
    }

    /// What it is a part of was never sent: the command is decided by itself, on what is read.
    fn alone(self) -> DecisionStep<C> {
        self.run.left_out(self.predicted, None)
    }

    /// Makes it the append of several; `parts` is empty if nobody was added.
    fn share(&mut self, request: &AppendRequest, parts: &[Range<usize>]) {
        if let Some(known) = &mut self.known {
            known.crowded = !parts.is_empty();
        }
        if let Some(own) = parts.first() {
            self.own = Some(own.clone());
            self.request = request.clone();
        }
    }
}

/// A command that waits, whatever its type.
pub(super) trait Candidate: Send + Sync {
    /// Decides on the state `ahead`. Gives back the state after that, and what to append: nothing if what it decided is no
    /// answer yet, or is more than `room` events. Without a state nobody can decide after it.
    fn decide(
        &self,
        ahead: CachedState,
        room: usize,
        entropy: &mut dyn Entropy,
    ) -> (Option<CachedState>, Option<AppendRequest>);
    /// What it decided is about to be sent as a part of `request`.
    fn sent_with(&self, request: &AppendRequest, own: Range<usize>);
    /// Waits from now on until it is told. Not if it sends the append by itself.
    fn stay(&self) -> bool;
    /// What became of that; `None` if nobody knows.
    fn answer(&self, result: Option<&Result<Appended, EventStoreError>>, entropy: &mut dyn Entropy);
    /// Leads from now on. Gives it back if it waits no longer.
    fn lead(&self, lead: Lead) -> Result<(), Lead>;
}

/// Where a command is while another one leads.
struct Seat<C: CommandLogic>(Mutex<Place<C>>);

type Tell<C> = oneshot::Sender<Told<C>>;

enum Place<C: CommandLogic> {
    Waiting(Recalling<C>, Tell<C>),
    /// It has decided, and others still do. Its part is never sent by itself: what it was decided on is not stored.
    Drafted(Appending<C>, Tell<C>),
    /// What it decided is in this append, together with all that it was decided on.
    Decided(Appending<C>, Tell<C>),
    /// It is being told what became of that.
    Staying(Appending<C>, Tell<C>),
    /// It sends the append by itself.
    Resends,
    /// It was told, or has left.
    Left,
}

enum Told<C: CommandLogic> {
    Lead(Lead, Recalling<C>),
    GoOn(DecisionStep<C>),
    /// Its own code panicked.
    Panicked(Box<dyn Any + Send>),
}

/// What a command's own code does must not keep the others from being told.
fn told<C: CommandLogic>(step: impl FnOnce() -> DecisionStep<C>) -> Told<C> {
    catch_unwind(AssertUnwindSafe(step)).map_or_else(Told::Panicked, Told::GoOn)
}

impl<C: CommandLogic> Seat<C> {
    fn place(&self) -> MutexGuard<'_, Place<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_waiting(&self) -> bool {
        matches!(*self.place(), Place::Waiting(..))
    }

    /// Waits no longer, with whatever has become of it; `None` if it is about to be told, which the leader does for as long
    /// as others decide: he waits for nothing in between.
    fn leave(&self) -> Option<Gone<C>> {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(recalling, _) => Some(Gone::Undecided(recalling)),
            Place::Decided(appending, _) => {
                *place = Place::Resends;
                Some(Gone::Decided(appending))
            }
            other => {
                *place = other;
                None
            }
        }
    }
}

/// What became of a command until its patience was lost.
enum Gone<C: CommandLogic> {
    Undecided(Recalling<C>),
    /// Its append may have been sent, by a leader from whom nothing is heard.
    Decided(Appending<C>),
}

impl<C: CommandLogic> Candidate for Seat<C> {
    fn decide(
        &self,
        ahead: CachedState,
        room: usize,
        entropy: &mut dyn Entropy,
    ) -> (Option<CachedState>, Option<AppendRequest>) {
        let mut place = self.place();
        let (recalling, tell) = match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(recalling, tell) if !tell.is_closed() => (recalling, tell),
            other => {
                *place = other;
                return (Some(ahead), None);
            }
        };
        // What a command's own code does must not harm whoever happened to lead.
        match catch_unwind(AssertUnwindSafe(|| recalling.decide_ahead(ahead, room, entropy))) {
            Ok(Guess::Part(ahead, appending)) => {
                let part = appending.request();
                *place = Place::Drafted(appending, tell);
                (ahead, Some(part))
            }
            Ok(Guess::Nothing(ahead, recalling)) => {
                *place = Place::Waiting(recalling, tell);
                (ahead, None)
            }
            Err(panic) => {
                drop(tell.send(Told::Panicked(panic)));
                (None, None)
            }
        }
    }

    fn sent_with(&self, request: &AppendRequest, own: Range<usize>) {
        let mut place = self.place();
        *place = match std::mem::replace(&mut *place, Place::Left) {
            Place::Drafted(appending, tell) => {
                Place::Decided(Appending { request: request.clone(), own: Some(own), ..appending }, tell)
            }
            other => other,
        };
    }

    fn stay(&self) -> bool {
        let mut place = self.place();
        *place = match std::mem::replace(&mut *place, Place::Left) {
            Place::Decided(appending, tell) => Place::Staying(appending, tell),
            other => other,
        };
        !matches!(*place, Place::Resends)
    }

    fn answer(&self, result: Option<&Result<Appended, EventStoreError>>, entropy: &mut dyn Entropy) {
        let mut place = self.place();
        let (told, tell) = match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(recalling, tell) => (told(|| recalling.alone()), tell),
            Place::Drafted(appending, tell) => (told(|| appending.alone()), tell),
            Place::Decided(appending, tell) | Place::Staying(appending, tell) => match result {
                Some(result) => (told(|| appending.appended(result.clone(), entropy)), tell),
                None => (told(|| appending.look()), tell),
            },
            Place::Resends | Place::Left => return,
        };
        // Under the lock: who leaves now has been told already. If he is gone, what he brought may panic when it goes.
        drop(catch_unwind(AssertUnwindSafe(|| drop(tell.send(told)))));
    }

    fn lead(&self, lead: Lead) -> Result<(), Lead> {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(recalling, tell) => match tell.send(Told::Lead(lead, recalling)) {
                Err(Told::Lead(lead, _)) => Err(lead),
                _ => Ok(()),
            },
            other => {
                *place = other;
                Err(lead)
            }
        }
    }
}

/// What a command decided on a state that is not stored yet.
enum Guess<C: CommandLogic> {
    /// This, and the state after it.
    Part(Option<CachedState>, Appending<C>),
    /// Nothing that could be added. The state is as it was.
    Nothing(Option<CachedState>, Recalling<C>),
}

impl<C: CommandLogic> Recalling<C> {
    fn decide_ahead(self, ahead: CachedState, room: usize, entropy: &mut dyn Entropy) -> Guess<C> {
        let Some(fold) = self.run.fold.own() else { return Guess::Nothing(Some(ahead), self) };
        let (open, cached) = (fold.open, fold.cached);
        let Some(known) = open(ahead) else { return Guess::Nothing(None, self) };
        let decided = match known.is_of(&self.round.streams) {
            true => self.run.guess(&self.round, &known, entropy).filter(|request| request.events().len() <= room),
            false => None,
        };
        let Some(request) = decided else { return Guess::Nothing(Some(cached(known)), self) };
        let after: Option<Known<C::State>> = known.if_stored(&self.run.command, &self.run.fold, &request);
        let appending = Appending {
            run: self.run,
            request,
            own: None,
            known: None,
            predicted: Some(self.round),
            alone: true,
            sent_before: false,
        };
        Guess::Part(after.map(cached), appending)
    }
}

/// A command that waits. Whoever drops it leaves the lobby.
struct Waiter<C: CommandLogic> {
    joint: Joint,
    key: CacheKey,
    /// Behind whom it waits.
    line: Line,
    seat: Arc<Seat<C>>,
    told: oneshot::Receiver<Told<C>>,
}

impl<C: CommandLogic> Waiter<C> {
    async fn wait(mut self) -> Entered<C> {
        for is_last in [false, true] {
            if let Ok(told) = timeout(PATIENCE, &mut self.told).await {
                return entered(told.ok());
            }
            let lead = self.take_over();
            if lead.is_none() && !is_last && self.seat.is_waiting() {
                // Somebody else has taken the lead over, and is about to take this one along.
                continue;
            }
            // A lead that is taken over for nothing is passed on as it is dropped.
            match (self.seat.leave(), lead) {
                (Some(Gone::Undecided(recalling)), lead) => {
                    self.leave_lobby();
                    tracing::debug!("a command on the same streams takes long; going on without it");
                    return match lead {
                        Some(lead) => Entered::Leads(lead, recalling),
                        None => Entered::GoesOn(recalling.alone()),
                    };
                }
                (Some(Gone::Decided(appending)), _) => return Entered::GoesOn(appending.look()),
                (None, _) => break,
            }
        }
        // It is being told.
        entered((&mut self.told).await.ok())
    }

    /// The lead, if nobody else has taken it over in the meantime.
    fn take_over(&mut self) -> Option<Lead> {
        let is_his = self.joint.0.take_over(&self.key, &mut self.line);
        is_his.then(|| Lead::new(self.joint.clone(), self.key, self.line))
    }

    /// All who wait are looked through, under the lock of all lobbies: not for those who were told.
    fn leave_lobby(&self) {
        self.joint.0.leave(&self.key, |other| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&self.seat)));
    }
}

fn entered<C: CommandLogic>(told: Option<Told<C>>) -> Entered<C> {
    match told {
        Some(Told::Lead(lead, recalling)) => Entered::Leads(lead, recalling),
        Some(Told::GoOn(step)) => Entered::GoesOn(step),
        Some(Told::Panicked(panic)) => resume_unwind(panic),
        None => Entered::GoesOn(DecisionStep::Done(Err(nobody_told().into()))),
    }
}

impl<C: CommandLogic> Drop for Waiter<C> {
    fn drop(&mut self) {
        // A lead that he was told of but never took goes with the channel, and is passed on so.
        let place = {
            let mut place = self.seat.place();
            let now = if matches!(*place, Place::Resends) { Place::Resends } else { Place::Left };
            std::mem::replace(&mut *place, now)
        };
        if matches!(place, Place::Waiting(..)) {
            self.leave_lobby();
        }
    }
}

/// A command that is taken along, at the moments at which its caller or the leader may give up.
#[cfg(test)]
mod tests {
    use super::super::machine::{DecisionOptions, decide_with};
    use super::*;
    use crate::{
        AppendedEvent, Command, CommandContext, Event, EventType, ExecutionOutcome, ExpectedVersion, GlobalPosition,
        NewEvents, RecordedEvent, RetryPolicy, StateFold, StreamId, StreamState, StreamVersion, StreamsRead, Timestamp,
    };
    use serde::{Deserialize, Serialize};
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    #[derive(Serialize, Deserialize, Event)]
    #[event(namespace = "test")]
    enum Counted {
        One,
    }

    #[derive(Default, Clone)]
    struct Count(u64);

    impl StreamState for Count {
        type Event = Counted;

        fn apply(&mut self, _: &RecordedEvent<Counted>) {
            self.0 += 1;
        }
    }

    #[derive(Command)]
    struct AddOne {
        #[stream]
        to: StreamId,
        panics: Arc<AtomicBool>,
    }

    impl CommandLogic for AddOne {
        type Event = Counted;
        type State = Count;
        type Error = std::convert::Infallible;

        fn apply(&self, _: &mut Count, _: &RecordedEvent<Counted>) {}

        fn state_fold() -> StateFold<Self> {
            StateFold::by_state().timeless()
        }

        fn handle(&self, _: &Count, streams: &AddOneStreams) -> Result<NewEvents<Self>, Self::Error> {
            Ok(NewEvents::new().append(&streams.to, Counted::One))
        }

        fn ignored_event_types(&self) -> Vec<EventType> {
            assert!(!self.panics.load(SeqCst), "a command panics");
            Vec::new()
        }
    }

    fn counter() -> StreamId {
        StreamId::new("counter").unwrap()
    }

    fn begin(retry: RetryPolicy, panics: &Arc<AtomicBool>) -> Recalling<AddOne> {
        let options = DecisionOptions { retry, cache: true, snapshots: None };
        match decide_with(AddOne { to: counter(), panics: Arc::clone(panics) }, CommandContext::new(), options) {
            DecisionStep::Recall(recalling) => recalling,
            _ => panic!("it has to look into the cache"),
        }
    }

    /// What is tested here is mostly no fault of the store, so it may not fail once.
    fn recalling() -> Recalling<AddOne> {
        begin(RetryPolicy::none(), &Arc::default())
    }

    fn append(step: DecisionStep<AddOne>) -> Appending<AddOne> {
        match step {
            DecisionStep::Append(appending) => appending,
            _ => panic!("it has to append"),
        }
    }

    fn read_nothing(step: DecisionStep<AddOne>) -> DecisionStep<AddOne> {
        let nothing = StreamsRead { events: Vec::new(), versions: vec![StreamVersion::default()], receipt: None };
        match step {
            DecisionStep::Read(reading) => reading.read(Ok(nothing), &mut SystemEntropy),
            _ => panic!("it has to read"),
        }
    }

    fn done(step: DecisionStep<AddOne>) -> ExecutionOutcome {
        match step {
            DecisionStep::Keep(keeping) => done(keeping.kept()),
            DecisionStep::Done(Ok(outcome)) => outcome,
            _ => panic!("it was stored"),
        }
    }

    /// A leader's append of one event to an empty stream.
    fn leads() -> Appending<AddOne> {
        let known = Known::nothing(&recalling().round.streams);
        let state = (AddOne::state_fold().own().unwrap().cached)(known);
        append(recalling().recalled(Some(state), &mut SystemEntropy))
    }

    fn version(number: u64) -> StreamVersion {
        StreamVersion::try_new(number).unwrap()
    }

    /// So many events were stored in an empty stream.
    fn stored(events: u64) -> Result<Appended, EventStoreError> {
        let place = |number| AppendedEvent {
            stream_id: counter(),
            version: version(number),
            position: GlobalPosition::try_new(number).unwrap(),
        };
        let recorded_at = Timestamp::from_micros(0).unwrap();
        Ok(Appended { events: (1..=events).map(place).collect(), recorded_at, replayed: false })
    }

    struct Member {
        seat: Arc<Seat<AddOne>>,
        told: oneshot::Receiver<Told<AddOne>>,
    }

    impl Member {
        fn waiting(recalling: Recalling<AddOne>) -> Self {
            let (tell, told) = oneshot::channel();
            Self { seat: Arc::new(Seat(Mutex::new(Place::Waiting(recalling, tell)))), told }
        }

        /// One who has decided on the leader's event, and the whole append.
        fn drafted() -> (Self, AppendRequest, Range<usize>) {
            let member = Self::waiting(recalling());
            let mut draft = leads().draft().unwrap();
            assert!(draft.add(&*member.seat, &mut SystemEntropy), "it decided nothing");
            let (whole, parts) = draft.finish().unwrap();
            (member, whole, parts[1].clone())
        }

        /// One whose part is in the whole append.
        fn decided() -> Self {
            let (member, whole, own) = Self::drafted();
            member.seat.sent_with(&whole, own);
            member
        }

        fn company(&self) -> Company {
            Company { on_board: vec![self.seat.clone()], aside: Vec::new() }
        }

        fn step(&mut self) -> DecisionStep<AddOne> {
            match self.told.try_recv() {
                Ok(Told::GoOn(step)) => step,
                _ => panic!("it was not told"),
            }
        }
    }

    /// It looks first. If nothing is there, what is sent expects the stream as the leader found it.
    fn check_sends_the_whole(step: DecisionStep<AddOne>) {
        let appending = append(read_nothing(step));
        let request = appending.request();
        assert_eq!(request.events().len(), 2);
        assert_eq!(request.streams()[0].expected, ExpectedVersion::NoStream);
        let outcome = done(appending.appended(stored(2), &mut SystemEntropy));
        assert_eq!((outcome.version_of(&counter()), outcome.attempts()), (Some(version(2)), 1));
    }

    #[test]
    fn nobody_sends_what_he_decided_without_what_it_was_decided_on() {
        let (mut member, whole, own) = Member::drafted();
        assert!(member.seat.leave().is_none(), "its part alone is nothing to go on with");
        member.seat.sent_with(&whole, own);
        assert!(member.company().answer(stored(2), &mut SystemEntropy).is_some());
        assert_eq!(done(member.step()).version_of(&counter()), Some(version(2)));
    }

    #[test]
    fn whoever_is_left_before_the_append_is_made_decides_again() {
        let (mut member, ..) = Member::drafted();
        drop(member.company());
        assert!(matches!(member.step(), DecisionStep::Recall(_)), "it has to look again");
    }

    #[test]
    fn whoever_is_left_with_an_append_sends_the_whole_and_counts_no_fault() {
        let mut member = Member::decided();
        drop(member.company());
        check_sends_the_whole(member.step());

        // He gave the leader up, who is refused then: nobody knows whether that was his doing.
        let member = Member::decided();
        let Some(Gone::Decided(appending)) = member.seat.leave() else { panic!("it has decided") };
        let refused = Err(EventStoreError::unavailable("no connection"));
        assert!(member.company().answer(refused, &mut SystemEntropy).is_none(), "the leader takes it for sure");
        check_sends_the_whole(appending.look());
    }

    #[test]
    fn whoever_looks_and_finds_that_others_were_faster_decides_again() {
        let mut member = Member::decided();
        drop(member.company());
        let DecisionStep::Read(reading) = member.step() else { panic!("it has to look") };
        let moved = StreamsRead { events: Vec::new(), versions: vec![version(1)], receipt: None };
        match reading.read(Ok(moved), &mut SystemEntropy) {
            DecisionStep::Wait(waiting) => {
                assert_eq!(waiting.contended(), Some(&counter()));
                assert!(matches!(waiting.waited(), DecisionStep::Recall(_)), "it has to look again");
            }
            _ => panic!("it has to queue up"),
        }
    }

    #[test]
    fn a_panic_while_one_is_told_keeps_nobody_waiting() {
        let panics = Arc::default();
        let mut first = Member::waiting(begin(RetryPolicy::none(), &panics));
        let mut second = Member::waiting(recalling());
        panics.store(true, SeqCst);
        drop(Company { on_board: Vec::new(), aside: vec![first.seat.clone(), second.seat.clone()] });
        assert!(matches!(first.told.try_recv(), Ok(Told::Panicked(_))), "it was not told of its panic");
        assert!(matches!(second.step(), DecisionStep::Recall(_)), "it has to look again");
    }

    #[test]
    fn a_shared_decision_that_came_to_nothing_is_not_counted() {
        let failures =
            [EventStoreError::unavailable("no connection"), InvalidAppend::TooManyEvents { count: 2, limit: 1 }.into()];
        for failure in failures {
            let step = begin(RetryPolicy::default(), &Arc::default()).recalled(None, &mut SystemEntropy);
            let mut appending = append(read_nothing(step));
            appending.own = Some(0..1);
            let again = match appending.appended(Err(failure), &mut SystemEntropy) {
                DecisionStep::Wait(waiting) => waiting.waited(),
                again => again,
            };
            let appending = append(read_nothing(again));
            assert_eq!(done(appending.appended(stored(1), &mut SystemEntropy)).attempts(), 1);
        }
    }
}
