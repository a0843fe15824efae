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
use super::lobby::Lobbies;
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
        let mut waiter = None;
        let leads = self.0.enter(key, || {
            let (tell, told) = oneshot::channel();
            let seat = Arc::new(Seat(Mutex::new(match recalling.take() {
                Some(recalling) => Place::Waiting(recalling, tell),
                None => Place::Left,
            })));
            let candidate: Arc<dyn Candidate> = seat.clone();
            waiter = Some(Waiter { joint: self.clone(), key, seat, told });
            candidate
        });
        match (recalling, waiter) {
            (Some(recalling), _) if leads => Entered::Leads(Lead::new(self.clone(), key), recalling),
            (_, Some(waiter)) => waiter.wait().await,
            // The closure above is called exactly if the command does not lead.
            (_, None) => Entered::GoesOn(DecisionStep::Done(Err(nobody_told().into()))),
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
    gathered: bool,
    leads: bool,
}

impl Lead {
    const fn new(joint: Joint, key: CacheKey) -> Self {
        Self { joint, key, gathered: false, leads: true }
    }

    /// Takes those who wait along in its first append.
    pub(super) async fn gather<C: CommandLogic>(
        &mut self,
        mut appending: Appending<C>,
        entropy: &mut impl Entropy,
    ) -> (Appending<C>, Company) {
        let mut company = Company::default();
        if std::mem::replace(&mut self.gathered, true) {
            return (appending, company);
        }
        let Some(mut draft) = appending.draft() else { return (appending, company) };
        if draft.crowded {
            // Those who were stored with the last one may be about to come again.
            tokio::task::yield_now().await;
        }
        while draft.has_room()
            && let Some(candidate) = self.joint.0.take(&self.key)
        {
            if draft.add(&*candidate, entropy) {
                company.on_board.push(candidate);
            } else {
                company.aside.push(candidate);
            }
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
                company.on_board.drain(..).for_each(|candidate| candidate.answer(&refused, entropy));
            }
        }
        (appending, company)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        while self.leads
            && let Some(next) = self.joint.0.pass(&self.key)
        {
            match next.lead(Self::new(self.joint.clone(), self.key)) {
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
    /// Tells all of them. Gives back what is true for the leader too.
    ///
    /// One who lost his patience may be sending the append again: if it was refused here, it may be stored there.
    pub(super) fn answer(
        mut self,
        result: Result<Appended, EventStoreError>,
        entropy: &mut dyn Entropy,
    ) -> Result<Appended, EventStoreError> {
        // First nobody can lose his patience any more, then all are told the same.
        let gone = self.on_board.iter().filter(|candidate| !candidate.stay()).count();
        let result = match result {
            Err(error) if gone > 0 => Err(EventStoreError::outcome_unknown(error)),
            result => result,
        };
        self.tell(&result, entropy);
        result
    }

    fn tell(&mut self, result: &Result<Appended, EventStoreError>, entropy: &mut dyn Entropy) {
        for candidate in self.on_board.drain(..).chain(self.aside.drain(..)) {
            candidate.answer(result, entropy);
        }
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        if !self.on_board.is_empty() || !self.aside.is_empty() {
            let lost = EventStoreError::outcome_unknown("the command that was to store this one was given up");
            self.tell(&Err(lost), &mut SystemEntropy);
        }
    }
}

/// An append that grows by what commands decide, each on what those before him decided.
pub(super) struct Draft {
    /// The state after all of it.
    ahead: Option<CachedState>,
    parts: Vec<AppendRequest>,
    events: usize,
    bytes: usize,
    crowded: bool,
}

impl Draft {
    /// Begins with the leader's own append. `ahead` is the state after it.
    pub(super) fn new(ahead: CachedState, first: AppendRequest, crowded: bool) -> Self {
        Self { ahead: Some(ahead), events: first.events().len(), bytes: first.size(), parts: vec![first], crowded }
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
    /// What others may be added to; `None` if this append is for nobody else.
    fn draft(&self) -> Option<Draft> {
        let (known, fold) = (self.known.as_ref()?, self.run.fold.own()?);
        if self.alone || self.sent_before || !fold.timeless || !self.run.cache || self.run.claim.is_some() {
            return None;
        }
        let crowded = known.crowded;
        let ahead = (fold.copy)(known).if_stored(&self.run.command, &self.run.fold, &self.request)?;
        Some(Draft::new((fold.cached)(ahead), self.request.clone(), crowded))
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
    /// What became of that.
    fn answer(&self, result: &Result<Appended, EventStoreError>, entropy: &mut dyn Entropy);
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

impl<C: CommandLogic> Seat<C> {
    fn place(&self) -> MutexGuard<'_, Place<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it goes on alone, with whatever has become of it; `None` if it is about to be told, which the leader does for
    /// as long as others decide: he waits for nothing in between.
    fn leave(&self) -> Option<DecisionStep<C>> {
        let mut place = self.place();
        match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(recalling, _) => {
                tracing::debug!("a command on the same streams takes long; going on without it");
                Some(recalling.alone())
            }
            Place::Decided(appending, _) => {
                *place = Place::Resends;
                Some(appending.appended(Err(nobody_told()), &mut SystemEntropy))
            }
            other => {
                *place = other;
                None
            }
        }
    }
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

    fn answer(&self, result: &Result<Appended, EventStoreError>, entropy: &mut dyn Entropy) {
        let mut place = self.place();
        let (step, tell) = match std::mem::replace(&mut *place, Place::Left) {
            Place::Waiting(recalling, tell) => (recalling.alone(), tell),
            Place::Drafted(appending, tell) => (appending.alone(), tell),
            Place::Decided(appending, tell) | Place::Staying(appending, tell) => {
                (appending.appended(result.clone(), entropy), tell)
            }
            Place::Resends | Place::Left => return,
        };
        // Under the lock: who leaves now has been told already.
        drop(tell.send(Told::GoOn(step)));
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
    seat: Arc<Seat<C>>,
    told: oneshot::Receiver<Told<C>>,
}

impl<C: CommandLogic> Waiter<C> {
    async fn wait(mut self) -> Entered<C> {
        let told = match timeout(PATIENCE, &mut self.told).await {
            Ok(told) => told.ok(),
            Err(_) => match self.leave() {
                Some(told) => Some(told),
                // It is being told.
                None => (&mut self.told).await.ok(),
            },
        };
        match told {
            Some(Told::Lead(lead, recalling)) => Entered::Leads(lead, recalling),
            Some(Told::GoOn(step)) => Entered::GoesOn(step),
            Some(Told::Panicked(panic)) => resume_unwind(panic),
            None => Entered::GoesOn(DecisionStep::Done(Err(nobody_told().into()))),
        }
    }

    /// Goes on alone, with whatever has become of it; `None` if it is about to be told.
    fn leave(&mut self) -> Option<Told<C>> {
        self.joint.0.leave(&self.key, |other| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&self.seat)));
        self.seat.leave().map(Told::GoOn)
    }
}

impl<C: CommandLogic> Drop for Waiter<C> {
    fn drop(&mut self) {
        // A lead that he was told of but never took goes with the channel, and is passed on so.
        self.joint.0.leave(&self.key, |other| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(&self.seat)));
        let mut place = self.seat.place();
        if !matches!(*place, Place::Resends) {
            *place = Place::Left;
        }
    }
}

/// A command that is taken along, at the moments at which its caller or the leader may give up.
#[cfg(test)]
mod tests {
    use super::super::machine::{DecisionOptions, decide_with};
    use super::*;
    use crate::{
        AppendedEvent, Command, CommandContext, Event, GlobalPosition, NewEvents, RecordedEvent, RetryPolicy,
        StateFold, StreamId, StreamState, StreamVersion, Timestamp,
    };
    use serde::{Deserialize, Serialize};

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
    }

    fn counter() -> StreamId {
        StreamId::new("counter").unwrap()
    }

    fn recalling() -> Recalling<AddOne> {
        // What is tested here is no fault of the store.
        let options = DecisionOptions { retry: RetryPolicy::none(), cache: true, snapshots: None };
        match decide_with(AddOne { to: counter() }, CommandContext::new(), options) {
            DecisionStep::Recall(recalling) => recalling,
            _ => panic!("it has to look into the cache"),
        }
    }

    /// A leader's append of one event to an empty stream.
    fn leads() -> Appending<AddOne> {
        let known = Known::nothing(&recalling().round.streams);
        let state = (AddOne::state_fold().own().unwrap().cached)(known);
        match recalling().recalled(Some(state), &mut SystemEntropy) {
            DecisionStep::Append(appending) => appending,
            _ => panic!("it has to append"),
        }
    }

    struct Member {
        seat: Seat<AddOne>,
        told: oneshot::Receiver<Told<AddOne>>,
    }

    impl Member {
        /// One who has decided on the leader's event, and the whole append.
        fn drafted() -> (Self, AppendRequest, Range<usize>) {
            let (tell, told) = oneshot::channel();
            let member = Self { seat: Seat(Mutex::new(Place::Waiting(recalling(), tell))), told };
            let mut draft = leads().draft().unwrap();
            assert!(draft.add(&member.seat, &mut SystemEntropy), "it decided nothing");
            let (whole, parts) = draft.finish().unwrap();
            (member, whole, parts[1].clone())
        }

        fn step(&mut self) -> DecisionStep<AddOne> {
            match self.told.try_recv() {
                Ok(Told::GoOn(step)) => step,
                _ => panic!("it was not told"),
            }
        }
    }

    #[test]
    fn nobody_sends_what_he_decided_without_what_it_was_decided_on() {
        let (mut member, whole, own) = Member::drafted();
        assert!(member.seat.leave().is_none(), "its part alone is nothing to go on with");
        member.seat.sent_with(&whole, own.clone());
        let version = |number| StreamVersion::try_new(number).unwrap();
        let place = |number| AppendedEvent {
            stream_id: counter(),
            version: version(number),
            position: GlobalPosition::try_new(number).unwrap(),
        };
        let recorded_at = Timestamp::from_micros(0).unwrap();
        let appended = Appended { events: vec![place(1), place(2)], recorded_at, replayed: false };
        assert!(member.seat.stay());
        member.seat.answer(&Ok(appended), &mut SystemEntropy);
        match member.step() {
            DecisionStep::Done(Ok(outcome)) => assert_eq!(outcome.version_of(&counter()), Some(version(2))),
            _ => panic!("it was stored"),
        }
    }

    #[test]
    fn whoever_is_left_before_the_append_is_made_decides_again() {
        let (mut member, ..) = Member::drafted();
        let Member { seat, told } = member;
        let seat = Arc::new(seat);
        drop(Company { on_board: vec![seat.clone()], aside: Vec::new() });
        member = Member { seat: Arc::into_inner(seat).unwrap(), told };
        assert!(matches!(member.step(), DecisionStep::Recall(_)), "it has to look again");
    }
}
