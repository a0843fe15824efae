//! Contexts that commit a read model together with its checkpoint. These cases run on the adapter's own types.

use super::checkpoints::{checkpoint, eventually_acquired};
// The cases of one list, in files of their own.
pub(crate) use super::parking_in_pages::*;
pub(crate) use super::versions::*;
use crate::domain::Money;
use crate::fixtures::*;
use crate::harness::HarnessError;
use crate::transactional::TransactionalHarness;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    CheckpointError, CheckpointStore, EventId, EventMetadata, EventStore, ExpectedVersion, FailureContext,
    FailureStrategy, NewEvent, PageSize, ProjectionConfig, ProjectionError, Projector, ProjectorCoordinator,
    RecordedEvent, UnitOfWork, run_projection,
};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// A store of the harness, and how to look into its read model.
pub(crate) struct Bench<H: TransactionalHarness> {
    pub(crate) harness: Arc<H>,
    pub(crate) place: H::Place,
    pub(crate) store: H::Store,
}

impl<H: TransactionalHarness> Bench<H> {
    pub(super) async fn value(&self, key: &str) -> Checked<Option<i64>> {
        Ok(self.harness.value(&self.store, key).await?)
    }

    /// The last position that the checkpoint of a follower tells.
    pub(super) async fn resumes_at(&self, name_of: &str) -> Checked<Option<u64>> {
        let checkpoint = UnitOfWork::<H::Context>::resume(&self.store, &name(name_of)?).await?;
        Ok(checkpoint.and_then(|checkpoint| checkpoint.cursor).map(|cursor| cursor.position.get()))
    }

    pub(super) fn projector(&self) -> Summing<H> {
        Summing { harness: Arc::clone(&self.harness), fails_at: None, strategy: FailureStrategy::Fatal, stops_at: None }
    }

    /// Whether the read model holds every deposit once.
    pub(super) async fn holds(&self, count: i64) -> Outcome {
        ensure_eq!(self.value("count").await?, Some(count), "deposits applied to the read model");
        ensure_eq!(self.value("sum").await?, Some(count * (count + 1) / 2), "sum of deposits of 1 to {count}");
        let head = self.store.head().await?.map(eventcore::GlobalPosition::get);
        ensure_eq!(self.resumes_at("summing").await?, head, "position of the checkpoint at the end of the log");
        Ok(())
    }
}

/// Counts and sums deposits in the read model.
pub(super) struct Summing<H> {
    pub(super) harness: Arc<H>,
    /// At which amount it fails, after having written.
    pub(super) fails_at: Option<i64>,
    pub(super) strategy: FailureStrategy,
    /// At which amount it is told to stop.
    pub(super) stops_at: Option<(i64, CancellationToken)>,
}

#[derive(Debug, Error)]
pub(super) enum SummingError {
    #[error("it was told to fail")]
    OnPurpose,
    #[error("the read model failed")]
    ReadModel(#[source] HarnessError),
}

impl<H: TransactionalHarness> Projector for Summing<H> {
    type Event = Money;
    type Error = SummingError;
    type Context = H::Context;

    fn name(&self) -> &str {
        "summing"
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, context: &mut H::Context) -> Result<(), SummingError> {
        let amount = event.payload().change();
        self.harness.add(context, "count", 1).await.map_err(SummingError::ReadModel)?;
        self.harness.add(context, "sum", amount).await.map_err(SummingError::ReadModel)?;
        if self.fails_at == Some(amount) {
            return Err(SummingError::OnPurpose);
        }
        if let Some((_, token)) = self.stops_at.as_ref().filter(|(at, _)| *at == amount) {
            token.cancel();
        }
        Ok(())
    }

    fn on_error(&mut self, _: &FailureContext<'_, SummingError>) -> FailureStrategy {
        self.strategy
    }
}

/// Appends deposits of `from` to `to`, a few at a time.
pub(super) async fn deposit(store: &(impl EventStore + ?Sized), from: i64, to: i64) -> Outcome {
    let account = stream("account")?;
    let amounts: Vec<_> = (from..=to).collect();
    for amounts in amounts.chunks(3) {
        let events = amounts.iter().map(|amount| {
            let event = Money::Deposited { amount: *amount };
            Ok((&account, NewEvent::encode(EventId::generate(), &event, EventMetadata::empty())?))
        });
        store.append(request(&[], events.collect::<Checked<_>>()?)?).await?;
    }
    Ok(())
}

pub(super) fn pages_of(events: u32) -> Checked<ProjectionConfig> {
    Ok(ProjectionConfig::default().page_size(PageSize::try_new(events)?))
}

pub(crate) async fn a_page_commits_effects_and_checkpoint_together<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name("page")?).await?;
    ensure_eq!(bench.resumes_at("page").await?, None, "checkpoint before the first page");
    for round in 1..=3 {
        let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
        bench.harness.add(&mut page, "key", 10).await?;
        bench.harness.add(&mut page, "key", 1).await?;
        store.commit(page, &checkpoint(store, "page", round)?, leader.epoch()).await?;
        ensure_eq!(bench.value("key").await?, Some(11 * round as i64), "read model after page {round}");
        ensure_eq!(bench.resumes_at("page").await?, Some(round), "checkpoint after page {round}");
        let loaded = store.load_checkpoint(leader.name()).await?.and_then(|c| c.cursor);
        ensure_eq!(loaded.map(|c| c.position.get()), Some(round), "the same checkpoint, loaded");
    }
    Ok(())
}

pub(crate) async fn an_open_page_is_not_seen<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name("page")?).await?;
    let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
    bench.harness.add(&mut page, "key", 1).await?;
    ensure_eq!(bench.value("key").await?.unwrap_or_default(), 0, "read model while the page is open");
    ensure_eq!(bench.resumes_at("page").await?, None, "checkpoint while the page is open");
    store.commit(page, &checkpoint(store, "page", 1)?, leader.epoch()).await?;
    ensure_eq!(bench.value("key").await?, Some(1), "read model after the commit");
    Ok(())
}

pub(crate) async fn a_page_rolled_back_leaves_nothing<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name("page")?).await?;
    for _ in 0..2 {
        let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
        bench.harness.add(&mut page, "key", 1).await?;
        store.rollback(page).await?;
        ensure_eq!(bench.value("key").await?.unwrap_or_default(), 0, "read model after a rollback");
    }
    let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
    bench.harness.add(&mut page, "key", 1).await?;
    store.commit(page, &checkpoint(store, "page", 1)?, leader.epoch()).await?;
    ensure_eq!(bench.value("key").await?, Some(1), "read model after the page was applied again");
    Ok(())
}

pub(crate) async fn a_dropped_page_leaves_nothing<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name("page")?).await?;
    let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
    bench.harness.add(&mut page, "key", 5).await?;
    drop(page);
    let mut page: H::Context = store.begin(leader.name(), leader.epoch()).await?;
    bench.harness.add(&mut page, "key", 1).await?;
    store.commit(page, &checkpoint(store, "page", 1)?, leader.epoch()).await?;
    ensure_eq!(bench.value("key").await?, Some(1), "read model after a page that was dropped and one that was not");
    append(store, &stream("after")?, ExpectedVersion::NoStream, 1).await?;
    Ok(())
}

pub(crate) async fn a_page_of_a_replaced_leader_does_nothing<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let first = store.acquire(&name("page")?).await?;
    let old = first.epoch();
    store.release(first).await?;
    let second = eventually_acquired(store, "page").await?;
    let begun: Result<H::Context, _> = store.begin(second.name(), old).await;
    // A store may notice when the page begins or when it ends.
    let answer = match begun {
        Ok(mut page) => {
            bench.harness.add(&mut page, "key", 1).await?;
            store.commit(page, &checkpoint(store, "page", 1)?, old).await
        }
        Err(error) => Err(error),
    };
    let current = second.epoch();
    ensure_matches!(
        answer,
        Err(CheckpointError::Fenced { epoch, current: c, .. }) if *epoch == old && *c == current,
        "a page with epoch {old}, {current} in force"
    );
    ensure_eq!(bench.value("key").await?.unwrap_or_default(), 0, "read model after the page of a replaced leader");
    ensure_eq!(bench.resumes_at("page").await?, None, "checkpoint after the page of a replaced leader");
    let mut page: H::Context = store.begin(second.name(), second.epoch()).await?;
    bench.harness.add(&mut page, "key", 1).await?;
    store.commit(page, &checkpoint(store, "page", 2)?, second.epoch()).await?;
    ensure_eq!(bench.value("key").await?, Some(1), "read model after a page of the leader");
    Ok(())
}

pub(crate) async fn a_leader_replaced_within_a_page_commits_all_or_nothing<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    let store = &bench.store;
    for round in 1..=5_u64 {
        let named = format!("page-{round}");
        let first = store.acquire(&name(&named)?).await?;
        let old = first.epoch();
        let mut page: H::Context = store.begin(first.name(), old).await?;
        bench.harness.add(&mut page, &named, 1).await?;
        // Another one takes over; a store may let it wait until the page has ended.
        drop(first);
        let successor = {
            let (store, named) = (store.clone(), named.clone());
            tokio::spawn(async move { eventually_acquired(&store, &named).await })
        };
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        let committed = store.commit(page, &checkpoint(store, &named, round)?, old).await;
        let successor = successor.await??;
        let (value, resumes_at) = (bench.value(&named).await?, bench.resumes_at(&named).await?);
        match committed {
            Ok(()) => ensure_eq!((value, resumes_at), (Some(1), Some(round)), "read model and checkpoint of a page"),
            Err(CheckpointError::Fenced { .. }) => {
                ensure_eq!((value.unwrap_or_default(), resumes_at), (0, None), "read model and checkpoint, fenced");
            }
            Err(error) => return Err(error.into()),
        }
        ensure!(successor.epoch() > old, "epoch {} after {old}", successor.epoch());
        let late = match UnitOfWork::<H::Context>::begin(store, successor.name(), old).await {
            Ok(page) => store.commit(page, &checkpoint(store, &named, round + 10)?, old).await,
            Err(error) => Err(error),
        };
        ensure_matches!(late, Err(CheckpointError::Fenced { .. }), "a further page of the replaced leader");
    }
    Ok(())
}

pub(crate) async fn a_projection_that_fails_applies_every_event_once<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    deposit(&bench.store, 1, 40).await?;
    for fails_at in [1, 9, 10, 25, 40] {
        let projector = Summing { fails_at: Some(fails_at), ..bench.projector() };
        let failed = run_projection(projector, &bench.store, pages_of(10)?).await.map(drop);
        ensure_matches!(failed, Err(ProjectionError::Apply { .. }), "a projection that fails at deposit {fails_at}");
        // Whatever is in the read model is what the checkpoint says.
        let count = bench.value("count").await?.unwrap_or_default();
        let sum = bench.value("sum").await?.unwrap_or_default();
        ensure_eq!(sum, count * (count + 1) / 2, "sum of the first {count} deposits");
        ensure!(count < fails_at, "the deposit that failed is in the read model");
    }
    let outcome = run_projection(bench.projector(), &bench.store, pages_of(10)?).await?;
    ensure_eq!(outcome.position, bench.store.head().await?, "position of the projection");
    bench.holds(40).await
}

pub(crate) async fn a_projection_that_is_stopped_applies_every_event_once<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    deposit(&bench.store, 1, 30).await?;
    for stops_at in [4, 7, 21] {
        let token = CancellationToken::new();
        let projector = Summing { stops_at: Some((stops_at, token.clone())), ..bench.projector() };
        let config = pages_of(7)?.continuous().shutdown(token);
        let applied = run_projection(projector, &bench.store, config).await?;
        let count = bench.value("count").await?;
        ensure!(count >= Some(stops_at), "{count:?} deposits in the read model, stopped after {stops_at}");
        ensure_eq!(bench.resumes_at("summing").await?, applied.position.map(|p| p.get()), "position of the checkpoint");
    }
    run_projection(bench.projector(), &bench.store, pages_of(7)?).await?;
    bench.holds(30).await
}

pub(crate) async fn a_page_cut_short_applies_every_event_once<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    deposit(&bench.store, 1, 30).await?;
    let config = pages_of(20)?.hold_time(Duration::ZERO);
    let outcome = run_projection(bench.projector(), &bench.store, config).await?;
    ensure_eq!(outcome.applied, 30, "deposits applied");
    bench.holds(30).await
}

pub(crate) async fn an_event_left_out_leaves_no_other_out<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    deposit(&bench.store, 1, 30).await?;
    let projector = Summing { fails_at: Some(8), strategy: FailureStrategy::Skip, ..bench.projector() };
    let outcome = run_projection(projector, &bench.store, pages_of(10)?).await?;
    ensure_eq!((outcome.applied, outcome.skipped), (29, 1), "deposits applied and left out");
    ensure_eq!(bench.value("count").await?, Some(29), "deposits in the read model");
    ensure_eq!(bench.value("sum").await?, Some(30 * 31 / 2 - 8), "sum of all deposits but that of 8");
    Ok(())
}

pub(crate) async fn writers_and_a_projection_go_on_side_by_side<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let token = CancellationToken::new();
    let projection = {
        let projector = Summing { stops_at: Some((60, token.clone())), ..bench.projector() };
        let (store, config) = (bench.store.clone(), pages_of(7)?.continuous().shutdown(token));
        tokio::spawn(async move { run_projection(projector, &store, config).await.map(|outcome| outcome.applied) })
    };
    deposit(&bench.store, 1, 60).await?;
    ensure_eq!(projection.await??, 60, "deposits applied while they were written");
    bench.holds(60).await
}

pub(crate) async fn the_read_model_outlives_the_store<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    if !H::DURABLE {
        return Ok(());
    }
    deposit(&bench.store, 1, 10).await?;
    run_projection(bench.projector(), &bench.store, ProjectionConfig::default()).await?;
    bench.store.close().await?;
    let store = bench.harness.open(&bench.place).await?;
    ensure_eq!(bench.harness.value(&store, "count").await?, Some(10), "deposits in the read model");
    deposit(&store, 11, 20).await?;
    let outcome = run_projection(bench.projector(), &store, ProjectionConfig::default()).await?;
    ensure_eq!(outcome.applied, 10, "deposits applied after the store was opened again");
    ensure_eq!(bench.harness.value(&store, "count").await?, Some(20), "deposits in the read model");
    Ok(())
}
