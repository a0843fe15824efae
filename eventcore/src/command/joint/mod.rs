//! Commands that wait for each other on the same streams, decided one after the other and stored by one append.
//!
//! The first of them, the leader, decides on what is stored; each of the others on what those before him decided. All their
//! events are in one append, which expects the streams as the leader found them: either all of it is stored, and every
//! decision was made on exactly what is stored before it, or none of it. Nothing less would do: an append of its own that
//! expects the version *after* another one's events would also be taken if somebody else had written as many.

mod seat;

use super::CommandLogic;
use super::cache::{CacheKey, CachedState};
use super::executor::SystemEntropy;
use super::lobby::{Entry, Line, Lobbies};
use super::machine::{Appending, DecisionStep, Entropy};
use super::recall::Recalling;
use crate::{AppendRequest, Appended, EventStoreError, InvalidAppend};
use seat::{Gone, Place, Seat, Told};
use std::fmt;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
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
    /// Gives back the waiter if another command leads.
    pub(super) fn enter<C: CommandLogic>(&self, recalling: Recalling<C>) -> Result<Entered<C>, Waiter<C>> {
        let key = *recalling.key();
        let mut recalling = Some(recalling);
        let mut waits = None;
        let entry = self.0.enter(key, || {
            let (tell, told) = oneshot::channel();
            let seat = Arc::new(Seat::of(recalling.take(), tell));
            let candidate: Arc<dyn Candidate> = seat.clone();
            waits = Some((seat, told));
            candidate
        });
        match (entry, recalling, waits) {
            (Entry::Leads(line), Some(recalling), _) => {
                Ok(Entered::Leads(Lead::new(self.clone(), key, line), recalling))
            }
            (Entry::Waits(line), _, Some((seat, told))) => Err(Waiter { joint: self.clone(), key, line, seat, told }),
            // The closure above is called exactly if the command does not lead.
            _ => Ok(Entered::GoesOn(DecisionStep::Done(Err(nobody_told().into())))),
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

    /// Whether those who were stored with the last append may be about to come again, and are to be let come first.
    pub(super) fn follows_crowd<C: CommandLogic>(&self, appending: &mut Appending<C>) -> bool {
        !self.gathered && appending.is_open() && appending.left_crowd()
    }

    /// Takes those who wait along in its first append.
    pub(super) fn gather<C: CommandLogic>(
        &mut self,
        appending: &mut Appending<C>,
        entropy: &mut impl Entropy,
    ) -> Company {
        let mut company = Company::default();
        if std::mem::replace(&mut self.gathered, true) || !appending.is_open() {
            return company;
        }
        // A draft is costly, and mostly nobody waits.
        let Some(first) = self.take() else { return company };
        company.aside.push(first);
        let Some(mut draft) = appending.draft() else { return company };
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
        company
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

/// A command that waits. Whoever drops it leaves the lobby.
pub(super) struct Waiter<C: CommandLogic> {
    joint: Joint,
    key: CacheKey,
    /// Behind whom it waits.
    line: Line,
    seat: Arc<Seat<C>>,
    told: oneshot::Receiver<Told<C>>,
}

impl<C: CommandLogic> Waiter<C> {
    /// Waits until the command leads, or another one has taken it along.
    pub(super) async fn wait(mut self) -> Entered<C> {
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
        let place = self.seat.empty();
        if matches!(place, Place::Waiting(..)) {
            self.leave_lobby();
        }
    }
}
