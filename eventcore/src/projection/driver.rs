//! The driver of the projection machine: performs its effects.

use super::attempt::{Failed, apply, judge};
use super::decoded::Decoded;
use super::flag::CancelFlag;
use super::machine::ProjectionMachine;
use super::page::{PageEvents, PageReader, ReadPage};
use super::parts::PageDone;
use super::protocol::{
    Applied, Fault, PageShape, ProjectionEffect, ProjectionInput, ProjectionRules, ProjectionStop, Signals,
};
use super::report::{Meter, OnProgress, ProgressReport, lag};
use super::workers::{Crew, Stretch};
use super::{ProjectionConfig, ProjectionError, Projector};
use crate::{
    Activity, Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, Epoch, ErrorKind, EventFilter,
    EventReader, EventStore, EventStoreError, EventType, FilterIdentity, GlobalPosition, Leadership, LeadershipError,
    LogCursor, LogWatch, PageSize, Progress, ProjectionContext, ProjectionName, ProjectorCoordinator, RecordedEvent,
    Timestamp, UnitOfWork,
};
use std::error::Error as StdError;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// What a run did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProjectionOutcome<P> {
    /// The projector, with its read model if that lives in it.
    pub projector: P,
    /// How far the log was examined; `None` if it is empty.
    pub position: Option<GlobalPosition>,
    /// How many events were applied.
    pub applied: u64,
    /// How many events were left out because they failed and the projector chose to skip them.
    pub skipped: u64,
    /// How many events failed and became dead letters.
    pub parked: u64,
}

/// Runs a projection: to the end of the log (batch, the default), or until told to stop (continuous).
///
/// It reads page after page, applies events in global order, and saves one checkpoint per page. Run again, it goes on
/// from there, except for a read model in memory, which starts at the beginning. Many projections at once, started again
/// when they fail, are run by a [`ProjectionManager`](crate::ProjectionManager).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{
/// #     AppendRequest, Event, EventId, EventMetadata, EventStore, InMemory, NewEvent, Progress, ProjectionConfig, Projector,
/// #     RecordedEvent, StreamId, run_projection,
/// # };
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(namespace = "bank")]
/// # enum BankEvent { Deposited { cents: u64 } }
/// # #[derive(Default)]
/// # struct Total(u64);
/// # impl Projector for Total {
/// #     type Event = BankEvent;
/// #     type Error = std::convert::Infallible;
/// #     type Context = InMemory;
/// #     fn name(&self) -> &str { "total" }
/// #     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> {
/// #         let BankEvent::Deposited { cents } = event.payload();
/// #         self.0 += cents;
/// #         Ok(())
/// #     }
/// # }
/// use tokio_util::sync::CancellationToken;
///
/// # let store = eventcore_memory::MemoryEventStore::new();
/// # let deposit = NewEvent::encode(EventId::generate(), &BankEvent::Deposited { cents: 5 }, EventMetadata::empty())?;
/// # store.append(AppendRequest::builder().event(StreamId::new("account-1")?, deposit).build()?).await?;
/// // A batch: to the end of the log, once.
/// let outcome = run_projection(Total::default(), &store, ProjectionConfig::default()).await?;
/// assert_eq!((outcome.projector.0, outcome.applied), (5, 1));
///
/// // Continuous: until it is told to stop. Who wants to read what was written waits for its position.
/// let (stop, progress) = (CancellationToken::new(), Progress::default());
/// let config = ProjectionConfig::default().continuous().shutdown(stop.clone()).progress(progress.clone());
/// let running = tokio::spawn({
///     let store = store.clone();
///     async move { run_projection(Total::default(), &store, config).await }
/// });
/// if let Some(head) = store.head().await? {
///     progress.wait_for(head).await?;
/// }
/// stop.cancel();
/// assert_eq!(running.await??.projector.0, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`ProjectionError`], whose [`kind`](ProjectionError::kind) tells what a caller can do.
pub async fn run_projection<P, B>(
    projector: P,
    backend: &B,
    config: ProjectionConfig,
) -> Result<ProjectionOutcome<P>, ProjectionError<P::Error>>
where
    P: Projector,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + ?Sized,
{
    let (outcome, _) = Run::new(projector, backend, &config, None)?.drive_in_span(&config).await?;
    Ok(outcome)
}

/// Forgets the checkpoint of a projection, so that it starts at the beginning of the log. No instance may be running it.
///
/// What it has done so far stays: empty its tables yourself before it is run again, or it counts every event twice. A read
/// model with versions is not reset but [rebuilt](crate::ReadModelStore::request_rebuild), which empties nothing that serves.
///
/// # Errors
/// [`LeadershipError::Busy`] if an instance leads it, else what the store says.
pub async fn reset_projection<B>(backend: &B, name: &ProjectionName) -> Result<(), ResetError>
where
    B: CheckpointStore + ProjectorCoordinator + ?Sized,
{
    let leadership = backend.acquire(name).await?;
    let reset = backend.reset_checkpoint(name, leadership.epoch()).await;
    backend.release(leadership).await?;
    Ok(reset?)
}

/// An error of [`reset_projection`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// The leadership could not be taken.
    #[error(transparent)]
    Leadership(#[from] LeadershipError),
    /// The checkpoint could not be reset.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

type Failure<P> = ProjectionError<<P as Projector>::Error>;
type Input<P> = ProjectionInput<Failure<P>>;

pub(super) struct Run<'b, P: Projector, B: ?Sized> {
    projector: P,
    /// Who shares the work.
    crew: Option<Box<dyn Crew<P>>>,
    backend: &'b B,
    name: ProjectionName,
    filter: EventFilter,
    identity: FilterIdentity,
    shutdown: CancelFlag,
    log: LogWatch,
    /// Who reads pages, if not the store itself.
    reader: Option<Arc<dyn EventReader>>,
    leadership: Option<Leadership>,
    /// Whether that leadership is no longer sure.
    lost: Option<CancelFlag>,
    context: Option<P::Context>,
    events: PageEvents,
    /// Those of them that were decoded while the checkpoint before was saved.
    decoded: Decoded<P::Event>,
    progress: Progress,
    told: Option<OnProgress>,
    meter: Meter,
    /// The head of the log, as far as it was asked for.
    head: Option<GlobalPosition>,
    /// Whether this is a look beside another run, which the dead letters are about.
    aside: bool,
    /// What will be parked if the machine says so: about events of the page that failed.
    letters: Vec<DeadLetter>,
}

/// How many events are applied at most between two looks at what is read ahead.
const NUDGE_EVERY: usize = 64;

/// How long a report waits for the head of the log.
const HEAD_PATIENCE: Duration = Duration::from_millis(100);

/// What a run did, and the projectors beside the first one.
type Ended<P> = (ProjectionOutcome<P>, Vec<P>);

impl<'b, P, B> Run<'b, P, B>
where
    P: Projector,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + ?Sized,
{
    pub(super) fn new(
        projector: P,
        backend: &'b B,
        config: &ProjectionConfig,
        crew: Option<Box<dyn Crew<P>>>,
    ) -> Result<Self, Failure<P>> {
        let name = ProjectionName::new(projector.name()).map_err(ProjectionError::Name)?;
        let filter = projector.filter();
        let reader = config.reader.as_ref().map(|source| (source.open)());
        Ok(Self {
            identity: filter.identity(),
            filter,
            backend,
            shutdown: CancelFlag::new(config.shutdown.clone()),
            log: reader.as_ref().map_or_else(|| backend.watch_log(), |reader| reader.watch_log()),
            reader,
            name,
            projector,
            crew,
            leadership: None,
            lost: None,
            context: None,
            events: PageEvents::default(),
            decoded: Decoded::default(),
            progress: config.progress.clone(),
            told: config.on_progress.clone(),
            meter: Meter::new(config.progress_interval),
            head: None,
            aside: config.aside,
            letters: Vec::new(),
        })
    }

    pub(super) async fn drive_in_span(self, config: &ProjectionConfig) -> Result<Ended<P>, Failure<P>> {
        let span = tracing::debug_span!("projection", name = self.name.as_str());
        self.drive(config).instrument(span).await
    }

    async fn drive(mut self, config: &ProjectionConfig) -> Result<Ended<P>, Failure<P>> {
        let rules = rules::<P>(config, self.filter.clone(), self.crew.is_some(), self.backend, &self.log);
        let mut machine = ProjectionMachine::new(rules);
        let store = self.backend;
        let reader = self.reader.take();
        let reader: &dyn EventReader = reader.as_deref().unwrap_or(&store);
        let mut pages = PageReader::new(reader, self.filter.clone(), config.page_size, self.crew.is_none());
        let mut input = ProjectionInput::Start;
        let started = Instant::now();
        let mut now = Duration::ZERO;
        config.progress.restart();
        let _ended = config.progress.end_on_drop();
        let finished = loop {
            let stop = match input {
                // Workers may have heard of it, and ended, before the flag is set.
                ProjectionInput::AppliedParts(_) => self.shutdown.token().is_cancelled(),
                _ => self.shutdown.is_set(),
            };
            let signals = Signals { now, stop, lost: self.is_lost() };
            // Only the delay before another attempt has a random part.
            let retry = matches!(input, ProjectionInput::Applied(_, Applied::Retry(_) | Applied::RetryThenDeadLetter));
            let jitter = if retry { fastrand::f64() } else { 0.0 };
            let effect = machine.step(input, signals, jitter);
            if self.meter.is_due(now) {
                let activity = machine.activity();
                pages.beside(self.tell(&machine, now, activity)).await;
            }
            input = match effect {
                ProjectionEffect::Finish(finished) => break finished,
                ProjectionEffect::Apply { mut index, until, mut attempt } => {
                    if index.next_multiple_of(NUDGE_EVERY) < until {
                        pages.nudge();
                    }
                    let applied = loop {
                        let applied = pages.beside(self.apply(index, attempt)).await;
                        let goes_on = matches!(applied, Applied::Ok) && index + 1 < until;
                        if !goes_on || pages.has_waited() || self.is_signalled() {
                            break applied;
                        }
                        (index, attempt) = (index + 1, 1);
                    };
                    ProjectionInput::Applied(index, applied)
                }
                effect => {
                    self.report(&machine);
                    match effect {
                        ProjectionEffect::Read { after } => {
                            // Gone before the page after the next one is read ahead.
                            self.events = PageEvents::default();
                            let page = pages.read(after).await;
                            self.decoded = page.as_ref().map(|page| pages.decoded(&page.events)).unwrap_or_default();
                            self.take(page)
                        }
                        effect @ (ProjectionEffect::Resume | ProjectionEffect::Verify(_)) => {
                            // What was read ahead before a fault may be of another history than what is there after it.
                            pages.forget();
                            self.perform(effect).await
                        }
                        // The log may stay as it is for longer than those who are told of it want to wait.
                        ProjectionEffect::Wait(time) if self.told.is_some() => {
                            let time = time.min(self.meter.until_due(now));
                            pages.beside(self.wait(time, true)).await
                        }
                        effect @ ProjectionEffect::Commit(_) => pages.beside_the_end(self.perform(effect)).await,
                        effect => pages.beside(self.perform(effect)).await,
                    }
                }
            };
            now = started.elapsed();
        };
        self.report(&machine);
        drop(pages);
        self.step_down().await;
        self.tell(&machine, started.elapsed(), Activity::Idle).await;
        finished.map_err(|stop| self.error(stop))?;
        let (applied, skipped) = machine.counts();
        let position = machine.cursor().map(|cursor| cursor.position);
        let parked = machine.parked();
        let others = self.crew.map(Crew::disband).unwrap_or_default();
        Ok((ProjectionOutcome { projector: self.projector, position, applied, skipped, parked }, others))
    }

    /// Whether there is a signal that the machine has to know of before the next event.
    fn is_signalled(&self) -> bool {
        self.shutdown.is_set() || self.is_lost()
    }

    /// Whether the leadership is no longer sure.
    fn is_lost(&self) -> bool {
        self.lost.as_ref().is_some_and(CancelFlag::is_set)
    }

    /// Shows those who watch how far the run has come.
    fn report(&self, machine: &ProjectionMachine<Failure<P>>) {
        let recorded = |index: usize| self.events.get(index).map(RecordedEvent::recorded_at);
        let done = machine.cursor().map_or(0, |cursor| {
            self.progress.advance(cursor.position);
            self.events.partition_point(|event| event.position() <= cursor.position)
        });
        match done.checked_sub(1) {
            Some(last) => self.progress.note(recorded(last), None),
            None if self.progress.as_of().is_none() => self.progress.note(recorded(0), None),
            None => {}
        }
        let (applied, skipped) = machine.counts();
        self.progress.count(applied, skipped, machine.parked());
        self.progress.enter(machine.activity());
    }

    /// Measures how fast events were applied, and tells who asked for it how the run gets on.
    async fn tell(&mut self, machine: &ProjectionMachine<Failure<P>>, now: Duration, activity: Activity) {
        let (applied, skipped) = machine.counts();
        let rate = self.meter.rate(now, applied + machine.uncommitted());
        self.progress.note(None, Some(rate));
        let Some(told) = &self.told else { return };
        // A store that does not answer is told by the activity.
        if let Ok(Ok(head)) = tokio::time::timeout(HEAD_PATIENCE, self.backend.head()).await {
            self.head = head;
        }
        let position = machine.cursor().map(|cursor| cursor.position);
        let (lag, lag_time) = lag(position, self.head, self.progress.as_of(), Timestamp::now());
        let head = self.head;
        let parked = machine.parked();
        let report = ProgressReport { position, head, lag, lag_time, applied, skipped, parked, rate, activity };
        if !told.tell(&report) {
            self.told = None;
        }
    }

    async fn perform(&mut self, effect: ProjectionEffect<Failure<P>>) -> Input<P> {
        match effect {
            ProjectionEffect::Acquire => ProjectionInput::Acquired(self.acquire().await.map_err(fault)),
            ProjectionEffect::StepDown => {
                self.step_down().await;
                ProjectionInput::Done(Ok(()))
            }
            ProjectionEffect::Resume => {
                ProjectionInput::Resumed(self.resume().await.map_err(|error| fault(error.into())))
            }
            ProjectionEffect::Probe(filter) => ProjectionInput::Probed(self.probe(&filter).await.map_err(fault)),
            ProjectionEffect::Verify(cursor) => {
                let verified = self.backend.verify_cursor(&cursor).await;
                ProjectionInput::Done(verified.map_err(|error| fault(error.into())))
            }
            ProjectionEffect::Head => {
                ProjectionInput::Head(self.backend.head().await.map_err(|error| fault(error.into())))
            }
            ProjectionEffect::Begin => ProjectionInput::Done(self.begin().await.map_err(fault)),
            ProjectionEffect::Park { index } => ProjectionInput::Done(self.park(index).await.map_err(fault)),
            ProjectionEffect::ApplyParts { from, until } => {
                ProjectionInput::AppliedParts(self.apply_parts(from, until).await)
            }
            ProjectionEffect::Commit(cursor) => ProjectionInput::Done(self.commit(cursor).await.map_err(fault)),
            ProjectionEffect::Rollback => ProjectionInput::Done(self.rollback().await.map_err(fault)),
            ProjectionEffect::Wait(time) => self.wait(time, true).await,
            ProjectionEffect::Pause(time) => self.wait(time, false).await,
            // The caller does these by itself.
            ProjectionEffect::Read { .. } | ProjectionEffect::Apply { .. } | ProjectionEffect::Finish(_) => {
                ProjectionInput::Done(Ok(()))
            }
        }
    }

    async fn acquire(&mut self) -> Result<(), Failure<P>> {
        let leadership = self.backend.acquire(&self.name).await?;
        tracing::debug!(epoch = leadership.epoch().get(), "leading");
        self.projector.leading(leadership.epoch());
        if let Some(crew) = &mut self.crew {
            crew.leading(leadership.epoch());
        }
        self.lost = Some(CancelFlag::new(leadership.lost().clone()));
        self.leadership = Some(leadership);
        Ok(())
    }

    /// The checkpoint. What comes after it comes again, so letters about that are of no use any more.
    async fn resume(&mut self) -> Result<Option<Checkpoint>, CheckpointError> {
        let checkpoint = self.backend.resume(&self.name).await?;
        if self.aside {
            return Ok(checkpoint);
        }
        let after = checkpoint.as_ref().and_then(|checkpoint| checkpoint.cursor).map(|cursor| cursor.position);
        let id = after.map(|position| DeadLetterId { handler: self.name.clone(), position });
        let one = PageSize::try_new(1).unwrap_or_default();
        if !self.backend.dead_letters(Some(&self.name), id.as_ref(), one).await?.is_empty() {
            let epoch = P::Context::DURABLE.then(|| self.epoch());
            self.backend.discard_dead_letters_after(&self.name, after, epoch).await?;
        }
        Ok(checkpoint)
    }

    async fn probe(&mut self, filter: &EventFilter) -> Result<Option<(EventType, GlobalPosition)>, Failure<P>> {
        let page = self.backend.read_page(filter, None, PageSize::try_new(1).unwrap_or_default()).await?;
        Ok(page.events.first().map(|event| (event.event_type().clone(), event.position())))
    }

    fn take(&mut self, page: Result<ReadPage, EventStoreError>) -> Input<P> {
        ProjectionInput::Read(page.map_err(|error| fault(error.into())).map(|page| {
            let cursor = |event: &RecordedEvent| LogCursor { position: event.position(), event_id: event.id() };
            let events = page.events.iter().map(cursor).collect();
            self.letters.clear();
            self.events = page.events;
            PageShape { events, end: page.end, more: page.more }
        }))
    }

    async fn begin(&mut self) -> Result<(), Failure<P>> {
        self.context = Some(self.backend.begin(&self.name, self.epoch()).await?);
        Ok(())
    }

    async fn apply(&mut self, index: usize, times: u32) -> Applied<Failure<P>> {
        let (Some(event), Some(context)) = (self.events.get(index), &mut self.context) else {
            return Applied::Fatal(out_of_step().into());
        };
        let applying = apply(&mut self.projector, event, self.decoded.at(event.position()), context);
        let applied = match &self.lost {
            // What it does will be rolled back, and it may wait for a server that does not answer any more.
            Some(lost) if P::Context::TRANSACTIONAL => unless_lost(applying, lost.token()).await,
            _ => Some(applying.await),
        };
        let failed = match applied {
            Some(Ok(())) => return Applied::Ok,
            Some(Err(failed)) => failed,
            None => {
                self.roll_back_or_warn().await;
                return Applied::Fault(Fault::Transient(ProjectionError::LeadershipLost { name: self.name.clone() }));
            }
        };
        if let Failed::Apply(error) = &failed
            && let Err(error) = self.backend.is_sound(context, error).await
        {
            tracing::warn!(error = &error as &dyn StdError, "the store failed while an event was applied");
            self.roll_back_or_warn().await;
            return Applied::Fault(fault(error.into()));
        }
        judge(&mut self.projector, event, failed, times, &self.name, &mut self.letters)
    }

    async fn apply_parts(&mut self, from: usize, until: usize) -> PageDone<Failure<P>> {
        let (Some(crew), Some(context)) = (&mut self.crew, &self.context) else {
            return PageDone { done: from, left_out: 0, parked: Vec::new(), failed: Some(out_of_step().into()) };
        };
        let events = self.events.clone();
        let halt = self.shutdown.token().child_token();
        let lost = self.lost.as_ref().map(|lost| lost.token().clone()).unwrap_or_default();
        let page = Stretch { name: self.name.clone(), events, from, until, halt, lost };
        let (done, letters) = crew.apply(&mut self.projector, context, page).await;
        self.letters = letters;
        done
    }

    async fn park(&mut self, index: usize) -> Result<(), Failure<P>> {
        let epoch = self.epoch();
        let position = self.events.get(index).map(RecordedEvent::position);
        let letter = self.letters.iter().find(|letter| Some(letter.id.position) == position);
        let (Some(letter), Some(context)) = (letter, &mut self.context) else { return Err(out_of_step().into()) };
        if let Err(error) = self.backend.park(context, letter, epoch).await {
            if P::Context::TRANSACTIONAL {
                self.roll_back_or_warn().await;
            }
            return Err(error.into());
        }
        tracing::warn!(
            position = letter.id.position.get(),
            event_type = letter.event_type.as_str(),
            attempts = letter.attempts,
            "an event became a dead letter"
        );
        Ok(())
    }

    async fn commit(&mut self, cursor: LogCursor) -> Result<(), Failure<P>> {
        let context = self.context.take().ok_or_else(out_of_step)?;
        let checkpoint = Checkpoint {
            name: self.name.clone(),
            cursor: Some(cursor),
            filter: self.identity.clone(),
            lineage: self.backend.lineage(),
            updated_at: Timestamp::now(),
        };
        Ok(self.backend.commit(context, &checkpoint, self.epoch()).await?)
    }

    async fn rollback(&mut self) -> Result<(), Failure<P>> {
        match self.context.take() {
            Some(context) => Ok(self.backend.rollback(context).await?),
            None => Ok(()),
        }
    }

    async fn roll_back_or_warn(&mut self) {
        if let Err(error) = self.rollback().await {
            tracing::warn!(error = &error as &dyn StdError, "a page could not be rolled back");
        }
    }

    /// Leaves to another instance what this one does, with whatever page is open.
    async fn step_down(&mut self) {
        self.roll_back_or_warn().await;
        self.lost = None;
        let Some(leadership) = self.leadership.take() else { return };
        if let Err(error) = self.backend.release(leadership).await {
            tracing::warn!(error = &error as &dyn StdError, "the leadership could not be released");
        }
    }

    /// Waits for so long, until told to stop, until the leadership is lost, or until the log grows if that is wanted.
    async fn wait(&mut self, time: Duration, wake: bool) -> Input<P> {
        let lost = self.lost.as_ref().map(|lost| lost.token().clone()).unwrap_or_default();
        let log = &mut self.log;
        let woken = async {
            if wake && log.changed().await.is_ok() {
                return;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(time) => {}
            () = self.shutdown.token().cancelled() => {}
            () = lost.cancelled() => {}
        }
        ProjectionInput::Waited
    }

    fn epoch(&self) -> Epoch {
        self.leadership.as_ref().map_or(Epoch::NONE, Leadership::epoch)
    }

    fn error(&self, stop: ProjectionStop<Failure<P>>) -> Failure<P> {
        let name = self.name.clone();
        match stop {
            ProjectionStop::Failed(error) => error,
            ProjectionStop::LeadershipLost => ProjectionError::LeadershipLost { name },
            ProjectionStop::OtherLog(checkpoint) => {
                ProjectionError::OtherLog { name, checkpoint, log: self.backend.lineage() }
            }
            ProjectionStop::OtherFilter => ProjectionError::OtherFilter { name },
            ProjectionStop::NewTypesInHistory(event_type, position) => {
                ProjectionError::NewTypesInHistory { name, event_type, position }
            }
            ProjectionStop::NotCaughtUp(target, reached) => ProjectionError::NotCaughtUp { target, reached },
            ProjectionStop::OutOfStep => out_of_step().into(),
        }
    }
}

fn rules<P: Projector>(
    config: &ProjectionConfig,
    filter: EventFilter,
    partitioned: bool,
    reader: &(impl EventReader + ?Sized),
    log: &LogWatch,
) -> ProjectionRules {
    ProjectionRules {
        durable: P::Context::DURABLE,
        transactional: P::Context::TRANSACTIONAL,
        partitioned,
        continuous: config.continuous,
        wait_for_leadership: config.wait_for_leadership,
        accept_filter_change: config.accept_filter_change,
        poll_interval: config.look_every(log),
        standby_interval: config.standby_interval(),
        failure_delay: config.failure_delay,
        hold_time: config.hold_time,
        checkpoint_pages: config.checkpoint_pages.into_inner(),
        checkpoint_interval: config.checkpoint_interval,
        batch_patience: config.batch_patience,
        retry: config.retry,
        retries: config.retries.into_inner(),
        max_failures: config.max_failures.into_inner(),
        filter,
        lineage: reader.lineage(),
    }
}

/// Does something until the leadership is lost.
async fn unless_lost<T>(doing: impl Future<Output = T>, lost: &CancellationToken) -> Option<T> {
    let mut doing = pin!(doing);
    // Most events are applied without waiting, and then nobody has to be told of the leadership.
    if let Poll::Ready(done) = poll_fn(|context| Poll::Ready(doing.as_mut().poll(context))).await {
        return Some(done);
    }
    tokio::select! {
        biased;
        done = doing => Some(done),
        () = lost.cancelled() => None,
    }
}

/// Sorts an error by what the machine can do about it.
fn fault<E: StdError + 'static>(error: ProjectionError<E>) -> Fault<ProjectionError<E>> {
    if matches!(error, ProjectionError::Leadership(LeadershipError::Busy { .. })) {
        Fault::Busy(error)
    } else if matches!(error, ProjectionError::Checkpoint(CheckpointError::Fenced { .. })) {
        Fault::Fenced(error)
    } else if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) {
        Fault::Transient(error)
    } else {
        Fault::Fatal(error)
    }
}

/// The machine asked for something that cannot be: a bug, told rather than panicked about.
pub(super) fn out_of_step() -> EventStoreError {
    EventStoreError::storage("the projection's machine and its driver are out of step")
}
