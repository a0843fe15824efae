//! The projection as a pure machine: given results, it says what to do next.
//!
//! It knows positions and counts, not events; it does no I/O and reads no clock: elapsed times are passed in.

use super::parts::PageDone;
use super::protocol::{
    Applied, Fault, PageShape, ProjectionEffect as Effect, ProjectionInput as Input, ProjectionRules,
    ProjectionStop as Stop, Signals,
};
use crate::{Activity, Checkpoint, EventType, FilterIdentity, GlobalPosition, LogCursor};
use std::collections::VecDeque;
use std::time::Duration;

/// The machine of one run.
#[derive(Debug)]
pub struct ProjectionMachine<X> {
    rules: ProjectionRules,
    identity: FilterIdentity,
    phase: Phase,
    activity: Activity,
    leading: bool,
    /// How far the log was examined.
    cursor: Option<LogCursor>,
    /// The checkpoint as saved.
    saved: Option<LogCursor>,
    page: PageShape,
    /// The first event of the page that is not committed.
    first: usize,
    /// The next event of the page to apply.
    next: usize,
    open: bool,
    /// How many of the uncommitted events were left out after a failure.
    left_out: u64,
    /// How many of them became dead letters.
    to_park: u64,
    /// The places of those that the workers gave up on, until their letters are parked.
    letters: VecDeque<usize>,
    /// Whether the page ends at or behind the target of a batch.
    last_page: bool,
    /// Whether the page is to be committed before it goes on.
    commit_now: bool,
    /// The event that failed, and what is to be done when all before it is committed.
    failed: Option<(usize, Verdict<X>)>,
    /// The event that was tried last, and how often.
    tried: (usize, u32),
    /// How many faults there were in a row.
    failures: u32,
    /// Whether one of them kept a page from being committed. Then only a commit ends the row: resuming and reading well
    /// again, up to where it failed, is no way out.
    uncommitted: bool,
    /// The store failed in the middle of a page: before the next one is read, the log has to be still the same.
    doubtful: bool,
    target: Option<GlobalPosition>,
    /// Since when a batch has been waiting for the feed.
    waiting_since: Option<Duration>,
    /// When the open page was begun.
    begun: Duration,
    /// When the checkpoint was saved last, and how many pages were applied since then.
    saved_at: Duration,
    pages: u32,
    /// The checkpoint is saved, then the run ends so.
    ending: Option<Result<(), X>>,
    /// The checkpoint is saved in between, then the next page is read.
    saving: bool,
    now: Duration,
    applied: u64,
    skipped: u64,
    parked: u64,
}

/// The most events that are applied before the machine is asked again, which is also when the clock is looked at.
const MAX_STRETCH: usize = 64;

#[derive(Debug)]
enum Phase {
    Idle,
    Acquiring,
    Resuming,
    Probing(Option<LogCursor>),
    Verifying(LogCursor),
    /// The store failed while the log was read: whoever answers now may be another server.
    Reverifying,
    Heading,
    Reading,
    Beginning,
    /// A stretch from its first event to the first one behind it.
    Applying(usize, usize),
    Parking(usize),
    ApplyingParts,
    ParkingParts,
    Committing(LogCursor),
    RollingBack,
    SteppingDown,
    Waiting,
    Pausing(After),
}

/// Where to go on after a pause.
#[derive(Debug, Clone, Copy)]
enum After {
    /// Another instance leads.
    Standby,
    Acquire,
    Resume,
    Head,
    Read,
    Page,
    Park,
    ParkParts,
}

#[derive(Debug)]
enum Verdict<X> {
    Skip,
    Park,
    Retry(Duration),
    Fatal(X),
}

impl<X> ProjectionMachine<X> {
    /// The machine of a run with these rules.
    #[must_use]
    pub fn new(rules: ProjectionRules) -> Self {
        Self {
            identity: rules.filter.identity(),
            rules,
            phase: Phase::Idle,
            activity: Activity::Idle,
            leading: false,
            cursor: None,
            saved: None,
            page: PageShape::default(),
            first: 0,
            next: 0,
            open: false,
            left_out: 0,
            to_park: 0,
            letters: VecDeque::new(),
            last_page: false,
            commit_now: false,
            failed: None,
            tried: (0, 0),
            failures: 0,
            uncommitted: false,
            doubtful: false,
            target: None,
            waiting_since: None,
            begun: Duration::ZERO,
            saved_at: Duration::ZERO,
            pages: 0,
            ending: None,
            saving: false,
            now: Duration::ZERO,
            applied: 0,
            skipped: 0,
            parked: 0,
        }
    }

    /// How far the log was examined, with the effects of all before it committed.
    #[must_use]
    pub const fn cursor(&self) -> Option<LogCursor> {
        self.cursor
    }

    /// How many events were applied and committed, and how many were skipped after a failure.
    #[must_use]
    pub const fn counts(&self) -> (u64, u64) {
        (self.applied, self.skipped)
    }

    /// How many events became dead letters.
    #[must_use]
    pub const fn parked(&self) -> u64 {
        self.parked
    }

    /// How many events of the page in hand were applied and are not committed yet.
    #[must_use]
    pub const fn uncommitted(&self) -> u64 {
        ((self.next - self.first) as u64).saturating_sub(self.left_out)
    }

    /// What the run is doing, in the eyes of who watches it.
    #[must_use]
    pub const fn activity(&self) -> Activity {
        self.activity
    }

    /// Goes on with the result of the last effect. `jitter` from 0.0 to 1.0 is the random part of a delay.
    pub fn step(&mut self, input: Input<X>, signals: Signals, jitter: f64) -> Effect<X> {
        self.now = signals.now;
        let effect = self.advance(input, signals.stop, jitter);
        if signals.lost && self.leading && !matches!(effect, Effect::Finish(_) | Effect::StepDown) {
            return self.step_down(Stop::LeadershipLost);
        }
        effect
    }

    fn advance(&mut self, input: Input<X>, stop: bool, jitter: f64) -> Effect<X> {
        match (std::mem::replace(&mut self.phase, Phase::Idle), input) {
            (Phase::Idle, Input::Start) if self.rules.durable => self.acquire(stop),
            (Phase::Idle, Input::Start) => self.resume(stop),
            (Phase::Acquiring, Input::Acquired(Ok(()))) => {
                self.leading = true;
                self.resume(stop)
            }
            (Phase::Acquiring, Input::Acquired(Err(fault))) => self.fault(fault, After::Acquire),
            (Phase::Resuming, Input::Resumed(Ok(checkpoint))) => self.resumed(checkpoint, stop),
            (Phase::Resuming, Input::Resumed(Err(fault))) => self.fault(fault, After::Resume),
            (Phase::Probing(cursor), Input::Probed(Ok(found))) => self.probed(cursor, found, stop),
            (Phase::Probing(_), Input::Probed(Err(fault))) => self.fault(fault, After::Resume),
            (Phase::Verifying(cursor), Input::Done(Ok(()))) => self.start_from(Some(cursor), stop),
            (Phase::Verifying(_), Input::Done(Err(fault))) => self.fault(fault, After::Resume),
            (Phase::Reverifying, Input::Done(Ok(()))) => {
                self.activity = Activity::CatchingUp;
                self.read(stop)
            }
            (Phase::Reverifying, Input::Done(Err(fault))) => self.fault(fault, After::Read),
            (Phase::Heading, Input::Head(Ok(head))) => {
                self.target = head;
                if head.is_none() || self.has_reached_target() { self.finish() } else { self.read(stop) }
            }
            (Phase::Heading, Input::Head(Err(fault))) => self.fault(fault, After::Head),
            (Phase::Reading, Input::Read(Ok(page))) => {
                self.recovered();
                if self.activity != Activity::Live {
                    self.activity = Activity::CatchingUp;
                }
                self.take(page);
                self.go_on(stop)
            }
            (Phase::Reading, Input::Read(Err(fault))) => self.fault(fault, After::Read),
            (Phase::Beginning, Input::Done(Ok(()))) => {
                self.open = true;
                self.begun = self.now;
                match self.cursor.filter(|_| self.ending.is_some() || self.saving) {
                    Some(cursor) => self.enter(Phase::Committing(cursor), Effect::Commit(cursor)),
                    None => self.go_on(stop),
                }
            }
            (Phase::Beginning | Phase::Committing(_) | Phase::RollingBack, Input::Done(Err(fault))) => {
                self.open = false;
                self.uncommitted = true;
                self.fault(fault, After::Resume)
            }
            (Phase::Applying(from, until), Input::Applied(index, applied)) if (from..until).contains(&index) => {
                self.next = index;
                self.applied(index, applied, stop, jitter)
            }
            (Phase::Parking(index), Input::Done(Ok(()))) => {
                self.failed = None;
                self.to_park += 1;
                self.leave_out(index, stop)
            }
            (Phase::Parking(_), Input::Done(Err(fault))) => self.not_parked(fault),
            (Phase::ApplyingParts, Input::AppliedParts(page)) => self.applied_parts(page, stop),
            (Phase::ParkingParts, Input::Done(Ok(()))) => {
                self.letters.pop_front();
                self.park_parts(stop)
            }
            (Phase::ParkingParts, Input::Done(Err(fault))) => {
                self.uncommitted = true;
                self.doubtful = true;
                self.fault(fault, After::ParkParts)
            }
            (Phase::Committing(cursor), Input::Done(Ok(()))) => self.committed(cursor, stop),
            (Phase::RollingBack, Input::Done(Ok(()))) => {
                self.open = false;
                self.next = self.first;
                self.go_on(stop)
            }
            (Phase::SteppingDown, Input::Done(_)) => self.acquire(stop),
            (Phase::Waiting, Input::Waited) if self.is_due() && !stop => {
                self.saving = true;
                self.enter(Phase::Beginning, Effect::Begin)
            }
            (Phase::Waiting, Input::Waited) => self.read(stop),
            (Phase::Pausing(After::Standby | After::Acquire), Input::Waited) => self.acquire(stop),
            (Phase::Pausing(After::Resume), Input::Waited) => self.resume(stop),
            (Phase::Pausing(After::Head), Input::Waited) => self.head(stop),
            (Phase::Pausing(After::Read), Input::Waited) => self.reverify(stop),
            (Phase::Pausing(After::Page), Input::Waited) => self.go_on(stop),
            // What could not be parked is not passed by the checkpoint: it comes again.
            (Phase::Pausing(After::Park | After::ParkParts), Input::Waited) if stop => self.finish(),
            (Phase::Pausing(After::ParkParts), Input::Waited) => self.park_parts(stop),
            (Phase::Pausing(After::Park), Input::Waited) => self.go_on(stop),
            _ => Effect::Finish(Err(Stop::OutOfStep)),
        }
    }

    fn acquire(&mut self, stop: bool) -> Effect<X> {
        if stop {
            return Effect::Finish(Ok(()));
        }
        self.enter(Phase::Acquiring, Effect::Acquire)
    }

    /// Begins at the checkpoint, whatever was under way.
    fn resume(&mut self, stop: bool) -> Effect<X> {
        if stop {
            return Effect::Finish(Ok(()));
        }
        self.page = PageShape::default();
        (self.first, self.next, self.left_out, self.to_park) = (0, 0, 0, 0);
        (self.open, self.commit_now, self.last_page, self.saving) = (false, false, false, false);
        self.failed = None;
        self.letters.clear();
        (self.ending, self.doubtful) = (None, false);
        self.enter(Phase::Resuming, Effect::Resume)
    }

    fn resumed(&mut self, checkpoint: Option<Checkpoint>, stop: bool) -> Effect<X> {
        let Some(checkpoint) = checkpoint else { return self.start_from(None, stop) };
        if checkpoint.lineage != self.rules.lineage {
            return Effect::Finish(Err(Stop::OtherLog(checkpoint.lineage)));
        }
        if !self.rules.accept_filter_change {
            if checkpoint.filter.selection != self.identity.selection {
                return Effect::Finish(Err(Stop::OtherFilter));
            }
            let new: Vec<_> =
                self.identity.default_types.difference(&checkpoint.filter.default_types).cloned().collect();
            if !new.is_empty() && checkpoint.cursor.is_some() {
                let probe = self.rules.filter.clone().types(new);
                return self.enter(Phase::Probing(checkpoint.cursor), Effect::Probe(probe));
            }
        }
        self.verify(checkpoint.cursor, stop)
    }

    fn probed(
        &mut self,
        cursor: Option<LogCursor>,
        found: Option<(EventType, GlobalPosition)>,
        stop: bool,
    ) -> Effect<X> {
        match (cursor, found) {
            (Some(cursor), Some((event_type, position))) if position <= cursor.position => {
                Effect::Finish(Err(Stop::NewTypesInHistory(event_type, position)))
            }
            _ => self.verify(cursor, stop),
        }
    }

    fn verify(&mut self, cursor: Option<LogCursor>, stop: bool) -> Effect<X> {
        match cursor {
            Some(cursor) => self.enter(Phase::Verifying(cursor), Effect::Verify(cursor)),
            None => self.start_from(None, stop),
        }
    }

    fn start_from(&mut self, cursor: Option<LogCursor>, stop: bool) -> Effect<X> {
        self.recovered();
        if self.rules.durable {
            // The store has answered; without a stored checkpoint it was not asked.
            self.activity = Activity::CatchingUp;
        }
        self.cursor = cursor;
        self.saved = cursor;
        (self.saved_at, self.pages) = (self.now, 0);
        if self.rules.continuous || self.target.is_some() { self.read(stop) } else { self.head(stop) }
    }

    fn head(&mut self, stop: bool) -> Effect<X> {
        if stop {
            return self.finish();
        }
        self.enter(Phase::Heading, Effect::Head)
    }

    fn read(&mut self, stop: bool) -> Effect<X> {
        if stop {
            return self.finish();
        }
        if std::mem::take(&mut self.doubtful) {
            return self.reverify(stop);
        }
        let after = self.cursor.map(|cursor| cursor.position);
        self.enter(Phase::Reading, Effect::Read { after })
    }

    /// Reads on after the store failed, if the log is still the same.
    fn reverify(&mut self, stop: bool) -> Effect<X> {
        match self.cursor {
            Some(cursor) if !stop => self.enter(Phase::Reverifying, Effect::Verify(cursor)),
            _ => self.read(stop),
        }
    }

    /// Takes a page; a batch leaves out what lies behind its target.
    fn take(&mut self, mut page: PageShape) {
        let target = self.target.filter(|_| !self.rules.continuous);
        self.last_page = page.end.is_some_and(|end| target.is_some_and(|target| end.position >= target));
        if let Some(target) = target.filter(|_| self.last_page) {
            page.events.retain(|cursor| cursor.position <= target);
            page.end = page.end.filter(|end| end.position <= target).or(page.events.last().copied());
        }
        self.page = page;
        (self.first, self.next, self.left_out, self.tried) = (0, 0, 0, (0, 0));
    }

    /// Goes on with the page: applies, commits, or leaves it.
    fn go_on(&mut self, stop: bool) -> Effect<X> {
        let uncommitted = self.first < self.next;
        if let Some((index, _)) = &self.failed {
            if self.next == *index && !uncommitted {
                return self.settle_failure(stop);
            }
            self.commit_now = self.next == *index;
        } else if stop {
            if !uncommitted {
                return self.finish();
            }
            self.commit_now = true;
        }
        let at_end = self.next >= self.page.events.len();
        if at_end && !uncommitted {
            self.cursor = self.page.end.or(self.cursor);
            return self.after_page(stop);
        }
        if !self.open {
            return self.enter(Phase::Beginning, Effect::Begin);
        }
        if uncommitted && at_end && !self.commit_now && !self.page_is_due() {
            return self.leave_page(stop);
        }
        if uncommitted && (at_end || self.commit_now) {
            let reached = self.next.checked_sub(1).and_then(|last| self.page.events.get(last)).copied();
            return match if at_end { self.page.end.or(reached) } else { reached } {
                Some(cursor) => self.enter(Phase::Committing(cursor), Effect::Commit(cursor)),
                None => Effect::Finish(Err(Stop::OutOfStep)),
            };
        }
        if self.rules.partitioned {
            let (from, until) = (self.next, self.page.events.len());
            return self.enter(Phase::ApplyingParts, Effect::ApplyParts { from, until });
        }
        let (index, until) = (self.next, self.end_of_stretch());
        self.enter(Phase::Applying(index, until), Effect::Apply { index, until, attempt: self.attempt(index) })
    }

    /// How far the driver may go on by itself: as far as nothing but a failure or a signal can change what comes next.
    fn end_of_stretch(&self) -> usize {
        // The time that a transaction is open is looked at after every event.
        let longest = if self.rules.transactional { 1 } else { MAX_STRETCH };
        self.page.events.len().min(self.next + longest)
    }

    /// The how-manieth attempt the next one of an event is, from 1.
    const fn attempt(&self, index: usize) -> u32 {
        if self.tried.0 == index { self.tried.1 + 1 } else { 1 }
    }

    fn applied(&mut self, index: usize, applied: Applied<X>, stop: bool, jitter: f64) -> Effect<X> {
        let attempt = self.attempt(index);
        let verdict = match applied {
            Applied::Ok => {
                self.next = index + 1;
                let held = self.now.saturating_sub(self.begun);
                self.commit_now = self.rules.transactional && held >= self.rules.hold_time;
                return self.go_on(stop);
            }
            Applied::Skip => Verdict::Skip,
            Applied::Retry(_) | Applied::RetryThenDeadLetter if attempt <= self.rules.retries => {
                Verdict::Retry(self.rules.retry.delay(attempt, 0.5 + jitter / 2.0))
            }
            Applied::RetryThenDeadLetter | Applied::DeadLetter => Verdict::Park,
            Applied::Retry(error) | Applied::Fatal(error) => Verdict::Fatal(error),
            Applied::Fault(fault) => {
                self.open = false;
                self.uncommitted = true;
                return self.fault(fault, After::Resume);
            }
        };
        self.tried = (index, attempt);
        self.failed = Some((index, verdict));
        if self.rules.transactional {
            // What the event did before it failed must not stay: all before it is applied again without it.
            return self.enter(Phase::RollingBack, Effect::Rollback);
        }
        self.go_on(stop)
    }

    /// The workers are done with what they were given, or were halted. Some of them may be ahead of what is done without a
    /// gap; as none of them may see an event twice in this run, it ends, or begins at its checkpoint.
    fn applied_parts(&mut self, page: PageDone<X>, stop: bool) -> Effect<X> {
        let all = self.page.events.len();
        self.next = page.done.clamp(self.next, all);
        self.to_park += page.parked.len() as u64;
        self.left_out += page.left_out + page.parked.len() as u64;
        self.letters = page.parked.into();
        match page.failed {
            Some(error) => self.failed = Some((self.next, Verdict::Fatal(error))),
            // The leadership was lost, so this is not what happens next.
            None if self.next < all && !stop && self.rules.durable => return self.resume(stop),
            None if self.next < all && !stop => return Effect::Finish(Err(Stop::OutOfStep)),
            None => {}
        }
        self.park_parts(stop)
    }

    /// Before the checkpoint passes the events that the workers gave up on, their letters are parked.
    fn park_parts(&mut self, stop: bool) -> Effect<X> {
        match self.letters.front() {
            Some(&index) => self.enter(Phase::ParkingParts, Effect::Park { index }),
            None => self.go_on(stop),
        }
    }

    /// All before the failed event is committed.
    fn settle_failure(&mut self, stop: bool) -> Effect<X> {
        match self.failed.take() {
            Some((_, Verdict::Fatal(error))) => self.end(Err(error)),
            Some((index, Verdict::Skip)) => self.leave_out(index, stop),
            Some((index, Verdict::Park)) => {
                // Until the letter is parked the event is a failed one, which may have to wait for the store.
                self.failed = Some((index, Verdict::Park));
                if !self.open {
                    return self.enter(Phase::Beginning, Effect::Begin);
                }
                self.enter(Phase::Parking(index), Effect::Park { index })
            }
            Some((_, Verdict::Retry(delay))) if !stop => self.enter(Phase::Pausing(After::Page), Effect::Pause(delay)),
            _ => self.go_on(stop),
        }
    }

    /// The run goes on without this event.
    fn leave_out(&mut self, index: usize, stop: bool) -> Effect<X> {
        self.next = index + 1;
        self.left_out += 1;
        // Committed at once, so that a later failure in this page does not bring it back.
        self.commit_now = true;
        self.go_on(stop)
    }

    /// The letter could not be parked. Without a transaction nothing was lost, so only that is tried again.
    fn not_parked(&mut self, fault: Fault<X>) -> Effect<X> {
        self.uncommitted = true;
        if self.rules.transactional {
            self.open = false;
            return self.fault(fault, After::Resume);
        }
        self.doubtful = true;
        self.fault(fault, After::Park)
    }

    fn committed(&mut self, cursor: LogCursor, stop: bool) -> Effect<X> {
        self.uncommitted = false;
        self.recovered();
        self.open = false;
        self.commit_now = false;
        self.count_uncommitted();
        self.cursor = Some(cursor);
        self.saved = Some(cursor);
        (self.saved_at, self.pages) = (self.now, 0);
        if let Some(result) = self.ending.take() {
            return Effect::Finish(result.map_err(Stop::Failed));
        }
        if std::mem::take(&mut self.saving) { self.read(stop) } else { self.go_on(stop) }
    }

    /// The events since the last commit are done with.
    fn count_uncommitted(&mut self) {
        self.applied += self.uncommitted();
        self.skipped += self.left_out - self.to_park;
        self.parked += self.to_park;
        (self.left_out, self.to_park) = (0, 0);
        self.first = self.next;
    }

    /// Whether the checkpoint is to be saved at the end of this page.
    fn page_is_due(&self) -> bool {
        self.rules.transactional || self.pages + 1 >= self.rules.checkpoint_pages || self.interval_is_over()
    }

    /// Whether there is something to save, and it is time.
    fn is_due(&self) -> bool {
        self.rules.durable && self.pages > 0 && self.interval_is_over()
    }

    fn interval_is_over(&self) -> bool {
        self.now.saturating_sub(self.saved_at) >= self.rules.checkpoint_interval
    }

    /// Leaves a page whose checkpoint is saved later, with a later one's.
    fn leave_page(&mut self, stop: bool) -> Effect<X> {
        self.count_uncommitted();
        self.open = false;
        self.pages += 1;
        self.cursor = self.page.end.or(self.page.events.last().copied()).or(self.cursor);
        self.after_page(stop)
    }

    fn after_page(&mut self, stop: bool) -> Effect<X> {
        if stop || self.has_reached_target() {
            return self.finish();
        }
        if self.page.more {
            return self.read(stop);
        }
        if let Some(target) = self.target.filter(|_| !self.rules.continuous) {
            let since = *self.waiting_since.get_or_insert(self.now);
            if self.now.saturating_sub(since) >= self.rules.batch_patience {
                let reached = self.cursor.map(|cursor| cursor.position);
                return Effect::Finish(Err(Stop::NotCaughtUp(target, reached)));
            }
        }
        self.enter(Phase::Waiting, Effect::Wait(self.idle_time()))
    }

    /// How long to wait for the log to grow: no longer than until the checkpoint is due, or a batch loses its patience.
    fn idle_time(&self) -> Duration {
        let until = |since: Duration, time: Duration| since.saturating_add(time).saturating_sub(self.now);
        let unsaved = self.rules.durable && self.pages > 0;
        let due = unsaved.then(|| until(self.saved_at, self.rules.checkpoint_interval));
        let patience = self.waiting_since.map(|since| until(since, self.rules.batch_patience));
        due.into_iter().chain(patience).fold(self.rules.poll_interval, Duration::min)
    }

    fn has_reached_target(&self) -> bool {
        let reached = self.cursor.map(|cursor| cursor.position);
        let target_reached = self.target.is_none_or(|target| reached >= Some(target));
        !self.rules.continuous && (self.last_page || target_reached)
    }

    /// Ends the run well, after saving how far the log was examined.
    fn finish(&mut self) -> Effect<X> {
        self.end(Ok(()))
    }

    /// Ends the run, after saving how far the log was examined.
    fn end(&mut self, result: Result<(), X>) -> Effect<X> {
        match self.cursor {
            Some(cursor) if self.rules.durable && self.leading && self.saved != self.cursor => {
                self.ending = Some(result);
                if self.open {
                    return self.enter(Phase::Committing(cursor), Effect::Commit(cursor));
                }
                self.enter(Phase::Beginning, Effect::Begin)
            }
            _ => Effect::Finish(result.map_err(Stop::Failed)),
        }
    }

    fn fault(&mut self, fault: Fault<X>, after: After) -> Effect<X> {
        match fault {
            Fault::Busy(_) if self.rules.wait_for_leadership => {
                self.enter(Phase::Pausing(After::Standby), Effect::Pause(self.rules.standby_interval))
            }
            Fault::Fenced(error) => self.step_down(Stop::Failed(error)),
            Fault::Transient(error) => {
                self.failures += 1;
                if self.failures > self.rules.max_failures {
                    return Effect::Finish(Err(Stop::Failed(error)));
                }
                self.enter(Phase::Pausing(after), Effect::Pause(self.rules.failure_delay))
            }
            Fault::Busy(error) | Fault::Fatal(error) => Effect::Finish(Err(Stop::Failed(error))),
        }
    }

    /// The store answers again: the next fault is the first of a row.
    fn recovered(&mut self) {
        if !self.uncommitted {
            self.failures = 0;
        }
    }

    /// The leadership is gone: waits for it again, or ends.
    fn step_down(&mut self, stop: Stop<X>) -> Effect<X> {
        self.leading = false;
        if !self.rules.wait_for_leadership {
            return Effect::Finish(Err(stop));
        }
        self.open = false;
        self.enter(Phase::SteppingDown, Effect::StepDown)
    }

    fn enter(&mut self, phase: Phase, effect: Effect<X>) -> Effect<X> {
        self.activity = match (&phase, self.activity) {
            (Phase::Pausing(After::Standby), _) => Activity::Standby,
            (Phase::Pausing(After::Acquire | After::Resume | After::Head | After::Read | After::Park | After::ParkParts), _)
            // A leadership that is no longer sure: whether another instance leads turns out when it is asked for again.
            | (Phase::SteppingDown, _) => Activity::Reconnecting,
            (Phase::Waiting, _) => Activity::Live,
            (Phase::Applying(..) | Phase::ApplyingParts, Activity::Live) if !self.page.more => Activity::Live,
            (Phase::Applying(..) | Phase::ApplyingParts, _) => Activity::CatchingUp,
            (_, unchanged) => unchanged,
        };
        self.phase = phase;
        effect
    }
}
