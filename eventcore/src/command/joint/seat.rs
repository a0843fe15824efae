//! Where a command is while another one leads, and what it decides there.

use super::{Candidate, Lead};
use crate::command::CommandLogic;
use crate::command::cache::CachedState;
use crate::command::known::Known;
use crate::command::machine::{Appending, DecisionStep, Entropy};
use crate::command::recall::Recalling;
use crate::{AppendRequest, Appended, EventStoreError};
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Where a command is while another one leads.
pub(super) struct Seat<C: CommandLogic>(Mutex<Place<C>>);

pub(super) type Tell<C> = oneshot::Sender<Told<C>>;

pub(super) enum Place<C: CommandLogic> {
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

pub(super) enum Told<C: CommandLogic> {
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
    /// Of a command that waits; empty from the beginning if there is none.
    pub(super) fn of(recalling: Option<Recalling<C>>, tell: Tell<C>) -> Self {
        Self(Mutex::new(recalling.map_or(Place::Left, |recalling| Place::Waiting(recalling, tell))))
    }

    fn place(&self) -> MutexGuard<'_, Place<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_waiting(&self) -> bool {
        matches!(*self.place(), Place::Waiting(..))
    }

    /// Waits no longer, with whatever has become of it; `None` if it is about to be told, which the leader does for as long
    /// as others decide: he waits for nothing in between.
    pub(super) fn leave(&self) -> Option<Gone<C>> {
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

    /// Leaves it for good. Gives back what was there, to be dropped without the lock.
    pub(super) fn empty(&self) -> Place<C> {
        let mut place = self.place();
        let now = if matches!(*place, Place::Resends) { Place::Resends } else { Place::Left };
        std::mem::replace(&mut *place, now)
    }
}

/// What became of a command until its patience was lost.
pub(super) enum Gone<C: CommandLogic> {
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

/// A command that is taken along, at the moments at which its caller or the leader may give up.
#[cfg(test)]
mod tests {
    use super::super::{Company, Draft};
    use super::*;
    use crate::command::executor::SystemEntropy;
    use crate::command::machine::{DecisionOptions, decide_with};
    use crate::{
        AppendedEvent, Command, CommandContext, Event, EventType, ExecutionOutcome, ExpectedVersion, GlobalPosition,
        InvalidAppend, NewEvents, RecordedEvent, RetryPolicy, StateFold, StreamId, StreamState, StreamVersion,
        StreamsRead, Timestamp,
    };
    use serde::{Deserialize, Serialize};
    use std::sync::Arc;
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
            Self { seat: Arc::new(Seat::of(Some(recalling), tell)), told }
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

    /// As is found where the digests of two keys are the same.
    #[test]
    fn a_state_of_other_streams_is_not_decided_on() {
        let mut known = Known::nothing(&recalling().round.streams);
        known.streams[0].stream_id = StreamId::new("another").unwrap();
        let state = (AddOne::state_fold().own().unwrap().cached)(known);
        let step = recalling().recalled(Some(state.clone()), &mut SystemEntropy);
        assert!(matches!(step, DecisionStep::Read(_)), "it has to read its own");
        let mut draft = Draft::new(state, leads().request());
        let other = Member::waiting(recalling());
        assert!(!draft.add(&*other.seat, &mut SystemEntropy), "it was decided on another stream's events");
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
