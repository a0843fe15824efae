//! Projections: every event, in order, and never less than the checkpoint says.

use super::checkpoints::{checkpoint, eventually_acquired};
use crate::domain::Money;
use crate::faults::{FaultyStore, LeadershipFault, ReadFault, SaveFault};
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use crate::{ContractViolation, Environment};
use eventcore::{
    BackoffMultiplier, CheckpointError, CheckpointStore, Epoch, EventFilter, EventId, EventMetadata, EventStore,
    ExpectedVersion, FailureContext, FailureStrategy, InMemory, LeadershipError, LineageId, MaxConsecutiveFailures,
    NewEvent, PageSize, ProjectionConfig, ProjectionError, Projector, ProjectorCoordinator, RecordedEvent, StreamId,
    StreamPrefix, run_projection,
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// A read model in memory: the amounts seen.
#[derive(Debug, Default)]
struct Amounts(Vec<i64>);

impl Projector for Amounts {
    type Event = Money;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "amounts"
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, _: &mut InMemory) -> Result<(), Self::Error> {
        self.0.push(event.payload().change());
        Ok(())
    }
}

/// A projector with durable effects of its own: what it was given stays, whatever becomes of the run.
#[derive(Clone)]
struct Ledger {
    seen: Arc<Mutex<Vec<i64>>>,
    filter: EventFilter,
    /// At which amounts it fails, each as often as it is listed.
    fails_at: Arc<Mutex<Vec<i64>>>,
    strategy: FailureStrategy,
    /// At which amount it is told to stop.
    stops_at: Option<(i64, CancellationToken)>,
    /// At which amount somebody else takes over.
    usurped_at: Option<(i64, OpenStore)>,
    /// Looks at the checkpoint before each event.
    looks_at: Option<OpenStore>,
    /// How far the checkpoint was, before each event.
    checkpoints: Arc<Mutex<Vec<Option<u64>>>>,
    epochs: Arc<Mutex<Vec<Epoch>>>,
}

#[derive(Debug, Error)]
#[error("it was told to fail")]
struct OnPurpose;

impl Ledger {
    fn new() -> Self {
        Self {
            seen: Arc::default(),
            filter: EventFilter::of::<Money>(),
            fails_at: Arc::default(),
            strategy: FailureStrategy::Fatal,
            stops_at: None,
            usurped_at: None,
            looks_at: None,
            checkpoints: Arc::default(),
            epochs: Arc::default(),
        }
    }

    fn failing(amounts: &[i64], strategy: FailureStrategy) -> Self {
        Self { fails_at: Arc::new(Mutex::new(amounts.to_vec())), strategy, ..Self::new() }
    }

    fn seen(&self) -> Vec<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep<T>(list: &Mutex<Vec<T>>, item: T) {
        list.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }

    /// Whether it is to fail at this amount once more.
    fn fails(&self, amount: i64) -> bool {
        let mut fails_at = self.fails_at.lock().unwrap_or_else(PoisonError::into_inner);
        let found = fails_at.iter().position(|at| *at == amount);
        found.map(|index| fails_at.swap_remove(index)).is_some()
    }
}

impl Projector for Ledger {
    type Event = Money;
    type Error = OnPurpose;
    type Context = ();

    fn name(&self) -> &str {
        "ledger"
    }

    fn filter(&self) -> EventFilter {
        self.filter.clone()
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, (): &mut ()) -> Result<(), OnPurpose> {
        let amount = event.payload().change();
        if let Some(store) = &self.looks_at {
            let checkpoint = store.load_checkpoint(&ledger().map_err(|_| OnPurpose)?).await.map_err(|_| OnPurpose)?;
            let position = checkpoint.and_then(|checkpoint| checkpoint.cursor).map(|cursor| cursor.position.get());
            Self::keep(&self.checkpoints, position);
        }
        if self.fails(amount) {
            return Err(OnPurpose);
        }
        Self::keep(&self.seen, amount);
        if let Some((_, token)) = self.stops_at.as_ref().filter(|(at, _)| *at == amount) {
            token.cancel();
        }
        if let Some((_, store)) = self.usurped_at.as_ref().filter(|(at, _)| *at == amount) {
            let usurper = eventually_acquired(store, "ledger").await.map_err(|_| OnPurpose)?;
            store.release(usurper).await.map_err(|_| OnPurpose)?;
        }
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, OnPurpose>) -> FailureStrategy {
        self.strategy
    }

    fn leading(&mut self, epoch: Epoch) {
        Self::keep(&self.epochs, epoch);
    }
}

fn ledger() -> Checked<eventcore::ProjectionName> {
    name("ledger")
}

/// Appends deposits of `from` to `to` to a stream, a few at a time.
async fn deposit(store: &OpenStore, account: &StreamId, from: i64, to: i64) -> Outcome {
    let amounts: Vec<_> = (from..=to).collect();
    for amounts in amounts.chunks(4) {
        let events = amounts.iter().map(|amount| {
            let event = Money::Deposited { amount: *amount };
            Ok((account, NewEvent::encode(EventId::generate(), &event, EventMetadata::empty())?))
        });
        store.append(request(&[], events.collect::<Checked<_>>()?)?).await?;
    }
    Ok(())
}

fn pages_of(events: u32) -> Checked<ProjectionConfig> {
    let config = ProjectionConfig::default().page_size(PageSize::try_new(events)?);
    let config = config.read_failures(MaxConsecutiveFailures::default(), Duration::from_millis(1));
    Ok(config.retry_delay(Duration::from_millis(1), BackoffMultiplier::default(), Duration::from_millis(5)))
}

async fn position_of_checkpoint(store: &OpenStore) -> Checked<Option<u64>> {
    let checkpoint = store.load_checkpoint(&ledger()?).await?;
    Ok(checkpoint.and_then(|checkpoint| checkpoint.cursor).map(|cursor| cursor.position.get()))
}

/// Whether `seen` is 1 to `last`, where a stretch may come again, but none is left out.
fn at_least_once(seen: &[i64], last: i64) -> Outcome {
    let mut highest = 0;
    for amount in seen {
        ensure!(*amount <= highest + 1, "deposit {amount} came after {highest}: those in between were left out");
        highest = highest.max(*amount);
    }
    ensure_eq!(highest, last, "last deposit seen");
    Ok(())
}

pub(crate) async fn a_batch_applies_every_event_in_order(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let accounts = streams(&["account-1", "account-2"])?;
    for round in 0..10 {
        deposit(&store, &accounts[round % 2], round as i64 * 10 + 1, round as i64 * 10 + 10).await?;
        append(&store, &stream("noise")?, ExpectedVersion::Any, 2).await?;
    }
    for size in [1, 7, 1_000] {
        let outcome = run_projection(Amounts::default(), &store, pages_of(size)?).await?;
        ensure_eq!(outcome.projector.0, (1..=100).collect::<Vec<_>>(), "deposits in pages of {size}");
        ensure_eq!((outcome.applied, outcome.skipped), (100, 0), "events applied and left out");
        ensure_eq!(outcome.position, store.head().await?, "position at the end of a batch");
    }
    Ok(())
}

pub(crate) async fn a_batch_on_an_empty_log_ends(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let outcome = run_projection(Amounts::default(), &store, ProjectionConfig::default()).await?;
    ensure_eq!((outcome.position, outcome.applied), (None, 0), "position and events applied");
    let outcome = run_projection(Ledger::new(), &store, ProjectionConfig::default()).await?;
    ensure_eq!((outcome.position, outcome.applied), (None, 0), "position and events applied");
    Ok(())
}

pub(crate) async fn a_read_model_in_memory_begins_at_the_beginning(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 5).await?;
    for _ in 0..2 {
        let outcome = run_projection(Amounts::default(), &store, pages_of(2)?).await?;
        ensure_eq!(outcome.projector.0, [1, 2, 3, 4, 5], "deposits");
    }
    ensure_eq!(store.list_checkpoints().await?.len(), 0, "checkpoints of a read model in memory");
    Ok(())
}

pub(crate) async fn a_projection_run_again_applies_only_what_is_new(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    let projector = Ledger::new();
    for round in 0..4 {
        deposit(&store, &account, round * 10 + 1, round * 10 + 10).await?;
        let outcome = run_projection(projector.clone(), &store, pages_of(3)?).await?;
        ensure_eq!(outcome.applied, 10, "events applied in run {round}");
        let again = run_projection(projector.clone(), &store, pages_of(3)?).await?;
        ensure_eq!((again.applied, again.position), (0, outcome.position), "events and position of an idle run");
    }
    ensure_eq!(projector.seen(), (1..=40).collect::<Vec<_>>(), "deposits over all runs");
    let epochs = projector.epochs.lock().unwrap_or_else(PoisonError::into_inner).clone();
    ensure!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "epochs of the runs do not rise: {epochs:?}");
    Ok(())
}

pub(crate) async fn one_checkpoint_is_saved_per_page_after_its_effects(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 30).await?;
    let log = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    let projector = Ledger { looks_at: Some(Arc::clone(&store)), ..Ledger::new() };
    run_projection(projector.clone(), &store, pages_of(10)?).await?;
    let seen = projector.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let end_of = |page: usize| page.checked_sub(1).and_then(|page| Some(log.get(page * 10 + 9)?.position().get()));
    let expected: Vec<_> = (0..30).map(|event| end_of(event / 10)).collect();
    ensure_eq!(seen, expected, "positions of the checkpoint before each event");
    ensure_eq!(position_of_checkpoint(&store).await?, end_of(3), "position of the last checkpoint");
    Ok(())
}

pub(crate) async fn a_continuous_projection_follows_until_told_to_stop(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let token = CancellationToken::new();
    let projector = Ledger { stops_at: Some((60, token.clone())), ..Ledger::new() };
    let running = {
        let (projector, store) = (projector.clone(), Arc::clone(&store));
        let config = pages_of(7)?.continuous().shutdown(token);
        tokio::spawn(async move { run_projection(projector, &store, config).await.map(|outcome| outcome.applied) })
    };
    let account = stream("account")?;
    for amount in 1..=60 {
        deposit(&store, &account, amount, amount).await?;
        tokio::task::yield_now().await;
    }
    ensure_eq!(running.await??, 60, "events applied");
    ensure_eq!(projector.seen(), (1..=60).collect::<Vec<_>>(), "deposits");
    let head = store.head().await?.map(|position| position.get());
    ensure_eq!(position_of_checkpoint(&store).await?, head, "position of the checkpoint after a clean end");
    store.acquire(&ledger()?).await?;
    Ok(())
}

pub(crate) async fn a_projection_sees_what_its_filter_wants(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for round in 0..10 {
        deposit(&store, &stream("wanted_1")?, round + 1, round + 1).await?;
        deposit(&store, &stream("wantedX1")?, 1_000, 1_001).await?;
        append(&store, &stream("wanted_1")?, ExpectedVersion::Any, 3).await?;
    }
    let filter = EventFilter::of::<Money>().stream_prefix(StreamPrefix::new("wanted_")?);
    let projector = Ledger { filter, ..Ledger::new() };
    let outcome = run_projection(projector.clone(), &store, pages_of(3)?).await?;
    ensure_eq!(projector.seen(), (1..=10).collect::<Vec<_>>(), "deposits in the streams wanted");
    ensure_eq!(outcome.position, store.head().await?, "position, unwanted events included");

    let nothing = Ledger { filter: EventFilter::of::<Money>().streams([]), ..Ledger::new() };
    let other = run_projection(nothing, &store, pages_of(3)?).await.map(drop);
    ensure_matches!(other, Err(ProjectionError::OtherFilter { .. }), "another filter under the same name");
    Ok(())
}

pub(crate) async fn a_projection_that_fails_resumes_at_its_checkpoint(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 40).await?;
    let projector = Ledger::failing(&[1, 9, 10, 25, 40], FailureStrategy::Fatal);
    for failing in [1, 9, 10, 25, 40] {
        let failed = run_projection(projector.clone(), &store, pages_of(10)?).await.map(drop);
        ensure_matches!(failed, Err(ProjectionError::Apply { attempts: 1, .. }), "a run that fails at {failing}");
    }
    let outcome = run_projection(projector.clone(), &store, pages_of(10)?).await?;
    ensure_eq!(outcome.position, store.head().await?, "position at the end");
    at_least_once(&projector.seen(), 40)
}

pub(crate) async fn a_failed_event_is_left_out_or_tried_again_as_chosen(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 20).await?;
    let skipping = Ledger::failing(&[5, 6, 20], FailureStrategy::Skip);
    let outcome = run_projection(skipping.clone(), &store, pages_of(6)?).await?;
    ensure_eq!((outcome.applied, outcome.skipped), (17, 3), "events applied and left out");
    let expected: Vec<_> = (1..=20).filter(|amount| ![5, 6, 20].contains(amount)).collect();
    ensure_eq!(skipping.seen(), expected, "deposits but those left out");

    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 20).await?;
    let retrying = Ledger::failing(&[5, 5, 5, 20], FailureStrategy::Retry);
    let outcome = run_projection(retrying.clone(), &store, pages_of(6)?).await?;
    ensure_eq!((outcome.applied, outcome.skipped), (20, 0), "events applied and left out");
    at_least_once(&retrying.seen(), 20)
}

pub(crate) async fn of_two_runs_one_leads(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, 1, 5).await?;
    let token = CancellationToken::new();
    let leading = Ledger::new();
    let first = {
        let (projector, store) = (leading.clone(), Arc::clone(&store));
        let config = pages_of(2)?.continuous().shutdown(token.clone());
        tokio::spawn(async move { run_projection(projector, &store, config).await.map(drop) })
    };
    eventually(|| async { Ok((leading.seen().len() == 5).then_some(())) }).await?;
    let refused = run_projection(leading.clone(), &store, pages_of(2)?).await.map(drop);
    ensure_matches!(refused, Err(ProjectionError::Leadership(LeadershipError::Busy { .. })), "a second run");

    // One that waits takes over, and goes on where the first one ended.
    let waiting = {
        let stop = CancellationToken::new();
        let projector = Ledger { stops_at: Some((9, stop.clone())), seen: Arc::clone(&leading.seen), ..Ledger::new() };
        let config = pages_of(2)?.continuous().shutdown(stop).wait_for_leadership();
        let store = Arc::clone(&store);
        tokio::spawn(async move { run_projection(projector, &store, config).await.map(drop) })
    };
    token.cancel();
    first.await??;
    deposit(&store, &account, 6, 9).await?;
    waiting.await??;
    ensure_eq!(leading.seen(), (1..=9).collect::<Vec<_>>(), "deposits that both runs applied");
    Ok(())
}

pub(crate) async fn a_replaced_leader_is_stopped_at_its_next_checkpoint(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 20).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    faulty.faults().of_acquisitions([LeadershipFault::Lapsed]);
    let projector = Ledger { usurped_at: Some((8, Arc::clone(&store))), ..Ledger::new() };
    let stopped = run_projection(projector.clone(), &faulty, pages_of(5)?).await.map(drop);
    ensure_matches!(stopped, Err(ProjectionError::Checkpoint(CheckpointError::Fenced { .. })), "a replaced leader");
    ensure_eq!(projector.seen().last().copied(), Some(10), "last deposit before the checkpoint that was refused");
    let log = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    let saved = position_of_checkpoint(&store).await?;
    ensure_eq!(saved, log.get(4).map(|e| e.position().get()), "checkpoint of the page before");
    Ok(())
}

pub(crate) async fn faults_of_the_store_neither_stop_nor_skip(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 40).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    let [fine, down, lost] = [SaveFault::None, SaveFault::Unavailable, SaveFault::AnswerLost];
    faulty.faults().of_saves([down, fine, lost, fine, down, lost, fine]);
    faulty.faults().of_acquisitions([LeadershipFault::Unavailable]);
    faulty.faults().of_reads([ReadFault::Unavailable, ReadFault::Unavailable, ReadFault::None, ReadFault::Unavailable]);
    let projector = Ledger::new();
    let outcome = run_projection(projector.clone(), &faulty, pages_of(5)?).await?;
    ensure!(faulty.faults().are_used_up(), "a planned fault did not happen");
    ensure_eq!(outcome.position, store.head().await?, "position at the end");
    at_least_once(&projector.seen(), 40)
}

pub(crate) async fn a_checkpoint_that_does_not_fit_is_refused(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    deposit(&store, &stream("account")?, 1, 5).await?;
    let mut foreign = checkpoint(&store, "ledger", 3)?;
    foreign.filter = EventFilter::of::<Money>().identity();
    foreign.lineage = LineageId::generate();
    store.save_checkpoint(&foreign, Epoch::NONE).await?;
    let other_log = run_projection(Ledger::new(), &store, pages_of(5)?).await.map(drop);
    ensure_matches!(other_log, Err(ProjectionError::OtherLog { .. }), "a checkpoint of another log");

    // The right log, but another event stands at its position.
    let leader = store.acquire(&ledger()?).await?;
    foreign.lineage = eventcore::EventReader::lineage(&store);
    store.save_checkpoint(&foreign, leader.epoch()).await?;
    store.release(leader).await?;
    let diverged = run_projection(Ledger::new(), &store, pages_of(5)?).await.map(drop);
    ensure_matches!(
        diverged,
        Err(ProjectionError::Store(eventcore::EventStoreError::LogDiverged { .. })),
        "a checkpoint of another history"
    );
    eventcore::reset_projection(&store, &ledger()?)
        .await
        .map_err(|error| ContractViolation::broken(error.to_string()))?;
    let outcome = run_projection(Ledger::new(), &store, pages_of(5)?).await?;
    ensure_eq!(outcome.applied, 5, "events applied after a reset");
    Ok(())
}
