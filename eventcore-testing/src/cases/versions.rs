//! Read models that are built anew beside the one that serves. These cases run on the adapter's own types.

use super::checkpoints::{checkpoint, eventually_acquired};
use super::dead_letters::{letter, letter_id};
use super::transactional::{Bench, deposit};
use crate::domain::Money;
use crate::fixtures::*;
use crate::harness::HarnessError;
use crate::transactional::TransactionalHarness;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    CheckpointError, CheckpointStore, DeadLetterStore, Epoch, EventStore, ManagerError, PageSize, Progress,
    ProjectionConfig, ProjectionManager, Projector, ProjectorCoordinator, ReadModel, ReadModelStore, ReadModelVersion,
    RebuildState, RecordedEvent, UnitOfWork, VersionChange, VersionedProjector, VersionedUnitOfWork,
    run_versioned_projection,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

const NAME: &str = "versioned";

fn numbered(version: u64) -> Checked<ReadModelVersion> {
    Ok(ReadModelVersion::try_new(version)?)
}

fn standing(in_force: Option<u64>, building: Option<u64>, retired: Option<u64>) -> Checked<ReadModel> {
    let version = |number: Option<u64>| number.map(numbered).transpose();
    let (in_force, building, retired) = (version(in_force)?, version(building)?, version(retired)?);
    Ok(ReadModel { in_force, building, retired, ..ReadModel::default() })
}

impl<H: TransactionalHarness> Bench<H> {
    /// The versions as stored.
    async fn stands(&self) -> Checked<ReadModel> {
        Ok(self.store.read_model(&name(NAME)?).await?.unwrap_or_default())
    }

    /// A change, with an effect on the number under `key` in its transaction.
    async fn change(
        &self,
        change: &VersionChange,
        epoch: Epoch,
        key: &str,
        amount: i64,
    ) -> Checked<Result<ReadModel, CheckpointError>> {
        let mut page = match UnitOfWork::<H::Context>::begin(&self.store, &name(NAME)?, epoch).await {
            Ok(page) => page,
            // A store may notice when the transaction begins or when it ends.
            Err(error) => return Ok(Err(error)),
        };
        self.harness.add(&mut page, key, amount).await?;
        Ok(self.store.commit_change(page, &name(NAME)?, change, epoch).await)
    }

    /// A page of a version that is being built.
    async fn page_of(&self, version: u64, to: u64, epoch: Epoch) -> Checked<Result<(), CheckpointError>> {
        let mut page = match UnitOfWork::<H::Context>::begin(&self.store, &name(NAME)?, epoch).await {
            Ok(page) => page,
            Err(error) => return Ok(Err(error)),
        };
        self.harness.add(&mut page, &format!("v{version}"), 1).await?;
        self.store.park(&mut page, &letter(&format!("{NAME}@{version}"), to)?, epoch).await?;
        let checkpoint = checkpoint(&self.store, &format!("{NAME}@{version}"), to)?;
        Ok(self.store.commit_version(page, &checkpoint, &name(NAME)?, epoch).await)
    }

    fn make(&self, trouble: &Arc<Trouble>) -> impl Fn(ReadModelVersion) -> Counting<H> + Send + Sync + use<H> {
        let (harness, trouble) = (Arc::clone(&self.harness), Arc::clone(trouble));
        move |version| Counting { harness: Arc::clone(&harness), version, trouble: Arc::clone(&trouble) }
    }
}

pub(crate) async fn a_version_comes_into_force_with_its_checkpoint_and_effects<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name(NAME)?).await?;
    let epoch = leader.epoch();
    ensure_eq!(store.read_model(leader.name()).await?, None, "versions of what was never built");
    bench.change(&VersionChange::Begin, epoch, "prepared", 1).await??;
    ensure_eq!(bench.stands().await?, standing(None, Some(1), None)?, "versions while the first is built");
    bench.page_of(1, 1, epoch).await??;
    bench.page_of(1, 2, epoch).await??;
    ensure_eq!(bench.resumes_at(&format!("{NAME}@1")).await?, Some(2), "checkpoint of the version");
    ensure_eq!(bench.resumes_at(NAME).await?, None, "checkpoint of the projection before the swap");
    bench.change(&VersionChange::Swap, epoch, "active", 1).await??;
    ensure_eq!(bench.stands().await?, standing(Some(1), None, None)?, "versions after the first swap");
    ensure_eq!(bench.resumes_at(NAME).await?, Some(2), "checkpoint of the projection after the swap");
    ensure_eq!(bench.resumes_at(&format!("{NAME}@1")).await?, None, "checkpoint of the version after the swap");

    // The version in force goes on while the next one is built.
    bench.change(&VersionChange::Begin, epoch, "prepared", 1).await??;
    let mut page: H::Context = store.begin(leader.name(), epoch).await?;
    bench.harness.add(&mut page, "v1", 1).await?;
    store.commit(page, &checkpoint(store, NAME, 5)?, epoch).await?;
    bench.page_of(2, 7, epoch).await??;
    // A swap that is not committed is none.
    let mut page: H::Context = store.begin(leader.name(), epoch).await?;
    bench.harness.add(&mut page, "active", 1).await?;
    store.rollback(page).await?;
    ensure_eq!(bench.value("active").await?, Some(1), "the version that readers find before the swap");
    ensure_eq!(bench.resumes_at(NAME).await?, Some(5), "checkpoint of the version in force");
    bench.change(&VersionChange::Swap, epoch, "active", 1).await??;
    ensure_eq!(bench.value("active").await?, Some(2), "the version that readers find after the swap");
    ensure_eq!(bench.stands().await?, standing(Some(2), None, Some(1))?, "versions after the second swap");
    ensure_eq!(bench.resumes_at(NAME).await?, Some(7), "checkpoint after the second swap");
    let letters = store.dead_letters(None, None, PageSize::default()).await?;
    let letters: Vec<_> = letters.iter().map(|letter| letter.id.to_string()).collect();
    ensure_eq!(letters, [letter_id(NAME, 7)?.to_string()], "dead letters after the second swap");
    bench.change(&VersionChange::Forget, epoch, "retired", 1).await??;
    ensure_eq!(bench.stands().await?, standing(Some(2), None, None)?, "versions after the old one was removed");
    ensure_eq!(bench.value("v1").await?, Some(3), "pages of the first version");
    Ok(())
}

pub(crate) async fn a_rebuild_given_up_leaves_the_version_in_force<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name(NAME)?).await?;
    let epoch = leader.epoch();
    for change in [VersionChange::Begin, VersionChange::Swap, VersionChange::Begin] {
        bench.change(&change, epoch, "changes", 1).await??;
    }
    bench.page_of(2, 9, epoch).await??;
    bench.change(&VersionChange::Abandon("no use".to_owned()), epoch, "changes", 1).await??;
    let given_up = ReadModel { failure: Some("no use".to_owned()), ..standing(Some(1), None, Some(2))? };
    ensure_eq!(bench.stands().await?, given_up, "versions after a rebuild was given up");
    bench.change(&VersionChange::Forget, epoch, "changes", 1).await??;
    ensure_eq!(bench.resumes_at(&format!("{NAME}@2")).await?, None, "checkpoint of a version that was removed");
    bench.change(&VersionChange::Begin, epoch, "changes", 1).await??;
    ensure_eq!(bench.stands().await?, standing(Some(1), Some(2), None)?, "versions when the next rebuild begins");
    Ok(())
}

pub(crate) async fn a_replaced_leader_changes_no_version<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let first = store.acquire(&name(NAME)?).await?;
    let old = first.epoch();
    bench.change(&VersionChange::Begin, old, "changes", 1).await??;
    store.release(first).await?;
    let second = eventually_acquired(store, NAME).await?;
    let answer = bench.page_of(1, 3, old).await?;
    ensure_matches!(answer, Err(CheckpointError::Fenced { .. }), "a page of a version by a replaced leader");
    let answer = bench.change(&VersionChange::Swap, old, "changes", 1).await?;
    ensure_matches!(answer, Err(CheckpointError::Fenced { .. }), "a swap by a replaced leader");
    ensure_eq!(bench.value("v1").await?.unwrap_or_default(), 0, "read model after the page of a replaced leader");
    ensure_eq!(bench.value("changes").await?, Some(1), "changes by the leader in force");
    ensure_eq!(bench.stands().await?, standing(None, Some(1), None)?, "versions after a fenced swap");
    bench.page_of(1, 4, second.epoch()).await??;
    bench.change(&VersionChange::Swap, second.epoch(), "changes", 1).await??;
    ensure_eq!(bench.resumes_at(NAME).await?, Some(4), "checkpoint after a swap of the leader in force");
    Ok(())
}

pub(crate) async fn a_change_that_does_not_fit_does_nothing<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    let store = &bench.store;
    let leader = store.acquire(&name(NAME)?).await?;
    for (change, what) in [(VersionChange::Swap, "a swap"), (VersionChange::Forget, "a removal")] {
        let answer = bench.change(&change, leader.epoch(), "changes", 1).await?;
        ensure_matches!(answer, Err(CheckpointError::VersionChange { .. }), "{what} where there is no version");
    }
    ensure_eq!(bench.value("changes").await?.unwrap_or_default(), 0, "effects of changes that do not fit");
    ensure_eq!(bench.stands().await?, ReadModel::default(), "versions after changes that do not fit");
    Ok(())
}

pub(crate) async fn a_rebuild_asked_for_is_remembered_until_it_begins<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    let store = &bench.store;
    let projection = name(NAME)?;
    // Whoever asks need not lead.
    ensure!(store.request_rebuild(&projection).await?.requested, "the answer to a request knows nothing of it");
    ensure!(bench.stands().await?.requested, "a request was forgotten");
    let leader = store.acquire(&projection).await?;
    let begun = bench.change(&VersionChange::Begin, leader.epoch(), "changes", 1).await??;
    ensure_eq!(begun, standing(None, Some(1), None)?, "versions when a rebuild begins that was asked for");
    let asked = store.request_rebuild(&projection).await?;
    ensure_eq!(asked, standing(None, Some(1), None)?, "versions when a rebuild is asked for that is under way");
    bench.change(&VersionChange::Swap, leader.epoch(), "changes", 1).await??;
    ensure!(store.request_rebuild(&projection).await?.requested, "a second request was forgotten");
    let swapped = ReadModel { requested: true, ..standing(Some(1), None, None)? };
    ensure_eq!(bench.stands().await?, swapped, "versions with a rebuild asked for");
    Ok(())
}

/// Counts and sums deposits under keys of its version; the number under `in force` is the version that readers find.
struct Counting<H> {
    harness: Arc<H>,
    version: ReadModelVersion,
    trouble: Arc<Trouble>,
}

/// What happens to a projector on the way.
#[derive(Default)]
struct Trouble {
    /// The version and the amount at which it fails.
    fails_at: Option<(u64, i64)>,
    /// The version and the amount at which it is told to stop.
    stops_at: Option<(u64, i64, CancellationToken)>,
    /// The version that cannot be activated.
    inactive: Option<u64>,
}

#[derive(Debug, Error)]
enum CountingError {
    #[error("it was told to fail")]
    OnPurpose,
    #[error("the read model failed")]
    ReadModel(#[source] HarnessError),
}

impl<H: TransactionalHarness> Counting<H> {
    async fn add(&self, context: &mut H::Context, key: &str, amount: i64) -> Result<(), CountingError> {
        self.harness.add(context, key, amount).await.map_err(CountingError::ReadModel)
    }
}

impl<H: TransactionalHarness> Projector for Counting<H> {
    type Event = Money;
    type Error = CountingError;
    type Context = H::Context;

    fn name(&self) -> &str {
        NAME
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, context: &mut H::Context) -> Result<(), CountingError> {
        let (version, amount) = (self.version.into_inner(), event.payload().change());
        self.add(context, &format!("v{version}:count"), 1).await?;
        self.add(context, &format!("v{version}:sum"), amount).await?;
        if self.trouble.fails_at == Some((version, amount)) {
            return Err(CountingError::OnPurpose);
        }
        if let Some((_, _, token)) = self.trouble.stops_at.as_ref().filter(|(v, at, _)| (*v, *at) == (version, amount))
        {
            token.cancel();
        }
        Ok(())
    }
}

impl<H: TransactionalHarness> VersionedProjector for Counting<H> {
    async fn prepare(&mut self, context: &mut H::Context) -> Result<(), CountingError> {
        self.add(context, &format!("v{}:prepared", self.version), 1).await
    }

    async fn activate(&mut self, context: &mut H::Context) -> Result<(), CountingError> {
        if self.trouble.inactive == Some(self.version.into_inner()) {
            return Err(CountingError::OnPurpose);
        }
        // Each version adds what it is above the one before.
        self.add(context, "in force", 1).await
    }

    async fn retire(&mut self, context: &mut H::Context) -> Result<(), CountingError> {
        self.add(context, &format!("v{}:retired", self.version), 1).await
    }
}

fn config(events: u32) -> Checked<ProjectionConfig> {
    let no_delay = std::time::Duration::ZERO;
    let config = ProjectionConfig::default().page_size(PageSize::try_new(events)?);
    Ok(config.retry_delay(no_delay, eventcore::BackoffMultiplier::default(), no_delay))
}

impl<H: TransactionalHarness> Bench<H> {
    async fn counted(&self, version: u64) -> Checked<(i64, i64)> {
        let count = self.value(&format!("v{version}:count")).await?.unwrap_or_default();
        Ok((count, self.value(&format!("v{version}:sum")).await?.unwrap_or_default()))
    }

    async fn run(&self, trouble: &Arc<Trouble>, config: ProjectionConfig) -> Checked<ReadModel> {
        Ok(run_versioned_projection(self.make(trouble), &self.store, config).await?)
    }

    async fn until_in_force(&self, version: u64) -> Outcome {
        let version = Some(numbered(version)?);
        eventually(|| async {
            let stands = self.stands().await?;
            Ok((stands.in_force == version && stands.retired.is_none()).then_some(()))
        })
        .await
    }
}

pub(crate) async fn a_rebuild_is_never_seen_before_it_has_caught_up<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    deposit(&bench.store, 1, 30).await?;
    let (token, progress) = (CancellationToken::new(), Progress::default());
    let following = {
        let config = config(4)?.continuous().shutdown(token.clone()).progress(progress.clone());
        let (make, store) = (bench.make(&Arc::default()), bench.store.clone());
        tokio::spawn(async move { run_versioned_projection(make, &store, config).await })
    };
    bench.until_in_force(1).await?;
    let done = AtomicBool::new(false);
    // Readers find the version in force, and never less in it than they have seen before.
    let reading = async {
        let mut seen = 0;
        while !done.load(Ordering::SeqCst) {
            let in_force = bench.value("in force").await?;
            let (count, _) = bench.counted(in_force.unwrap_or_default().unsigned_abs()).await?;
            ensure!(count >= seen, "{count} deposits in version {in_force:?} after {seen} were seen");
            ensure!(count >= 30, "{count} deposits in version {in_force:?}, of 30 that were there before");
            seen = count;
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let rebuilding = async {
        bench.store.request_rebuild(&name(NAME)?).await?;
        deposit(&bench.store, 31, 60).await?;
        bench.until_in_force(2).await?;
        deposit(&bench.store, 61, 70).await?;
        if let Some(head) = bench.store.head().await? {
            progress.wait_for(head).await?;
        }
        done.store(true, Ordering::SeqCst);
        checked(())
    };
    let (read, rebuilt): (Outcome, Outcome) = tokio::join!(reading, rebuilding);
    token.cancel();
    rebuilt?;
    read?;
    following.await??;
    ensure_eq!(bench.counted(2).await?, (70, 70 * 71 / 2), "deposits in the version that was rebuilt");
    ensure_eq!(bench.value("in force").await?, Some(2), "version that readers find");
    ensure_eq!(bench.value("v1:retired").await?, Some(1), "how often the old version was removed");
    let head = bench.store.head().await?.map(eventcore::GlobalPosition::get);
    ensure_eq!(bench.resumes_at(NAME).await?, head, "checkpoint at the end of the log");
    let left: Vec<_> = bench.store.list_checkpoints().await?.into_iter().map(|c| c.name.to_string()).collect();
    ensure_eq!(left, [NAME], "checkpoints after a rebuild");
    Ok(())
}

pub(crate) async fn the_next_leader_goes_on_with_a_rebuild<H: TransactionalHarness>(bench: &Bench<H>) -> Outcome {
    deposit(&bench.store, 1, 40).await?;
    bench.run(&Arc::default(), config(5)?).await?;
    bench.store.request_rebuild(&name(NAME)?).await?;
    for stops_at in [6, 17, 38] {
        let token = CancellationToken::new();
        let trouble = Arc::new(Trouble { stops_at: Some((2, stops_at, token.clone())), ..Trouble::default() });
        let stands = bench.run(&trouble, config(5)?.continuous().shutdown(token)).await?;
        ensure_eq!(stands, standing(Some(1), Some(2), None)?, "versions after a rebuild was stopped at {stops_at}");
        let (count, sum) = bench.counted(2).await?;
        ensure!(count >= stops_at, "{count} deposits in the version that is built, stopped after {stops_at}");
        ensure_eq!(sum, count * (count + 1) / 2, "sum of the first {count} deposits");
        ensure_eq!(bench.value("in force").await?, Some(1), "version that readers find");
    }
    let stands = bench.run(&Arc::default(), config(5)?).await?;
    ensure_eq!(stands, standing(Some(2), None, None)?, "versions after the rebuild was finished");
    ensure_eq!(bench.counted(2).await?, (40, 40 * 41 / 2), "deposits in the version that was rebuilt");
    ensure_eq!(bench.value("v2:prepared").await?, Some(1), "how often the version was begun");
    Ok(())
}

pub(crate) async fn a_rebuild_that_fails_leaves_the_old_one_serving<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    deposit(&bench.store, 1, 20).await?;
    bench.run(&Arc::default(), config(6)?).await?;
    let troubles = [
        Trouble { fails_at: Some((2, 14)), ..Trouble::default() },
        Trouble { inactive: Some(2), ..Trouble::default() },
    ];
    for (round, trouble) in troubles.into_iter().enumerate() {
        bench.store.request_rebuild(&name(NAME)?).await?;
        let from = 21 + 10 * round as i64;
        deposit(&bench.store, from, from + 9).await?;
        let stands = bench.run(&Arc::new(trouble), config(6)?).await?;
        ensure_eq!(
            (stands.in_force, stands.building, stands.retired),
            (Some(numbered(1)?), None, None),
            "versions after a rebuild failed"
        );
        let why = stands.failure.unwrap_or_default();
        ensure!(why.contains("it was told to fail"), "the reason for giving up is {why:?}");
        ensure_eq!(bench.value("in force").await?, Some(1), "version that readers find");
        let all = from + 9;
        ensure_eq!(bench.counted(1).await?, (all, all * (all + 1) / 2), "deposits in the version in force");
    }
    ensure_eq!(bench.value("v2:retired").await?, Some(2), "how often what was built was removed");
    Ok(())
}

pub(crate) async fn the_first_version_is_not_seen_before_it_is_whole<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    deposit(&bench.store, 1, 20).await?;
    let token = CancellationToken::new();
    let trouble = Arc::new(Trouble { stops_at: Some((1, 11, token.clone())), ..Trouble::default() });
    let stands = bench.run(&trouble, config(5)?.shutdown(token)).await?;
    ensure_eq!(stands, standing(None, Some(1), None)?, "versions after the first build was stopped");
    ensure_eq!(bench.value("in force").await?.unwrap_or_default(), 0, "version that readers find");
    ensure_eq!(bench.resumes_at(NAME).await?, None, "checkpoint of the projection");
    let stands = bench.run(&Arc::default(), config(5)?).await?;
    ensure_eq!(stands, standing(Some(1), None, None)?, "versions after the first build");
    ensure_eq!(bench.counted(1).await?, (20, 20 * 21 / 2), "deposits in the first version");
    Ok(())
}

pub(crate) async fn a_manager_rebuilds_versions_and_tells_how_far_it_is<H: TransactionalHarness>(
    bench: &Bench<H>,
) -> Outcome {
    deposit(&bench.store, 1, 30).await?;
    let builder = || ProjectionManager::builder(bench.store.clone());
    let manager = builder().register_versioned(bench.make(&Arc::default()))?.build();
    let live = manager.start_live()?;
    live.wait_until_caught_up().await?;
    ensure_eq!(bench.counted(1).await?.0, 30, "deposits in the first version");
    let mut rebuild = manager.rebuild(NAME).await?;
    deposit(&bench.store, 31, 40).await?;
    rebuild.done().await?;
    let progress = rebuild.progress().await?;
    ensure_eq!(progress.state, RebuildState::Done, "state of a rebuild that is done");
    if let Some(head) = bench.store.head().await? {
        live.wait_for(head).await?;
    }
    ensure_eq!(bench.counted(2).await?, (40, 40 * 41 / 2), "deposits in the version that was rebuilt");
    live.shutdown().await?;

    let failing = Arc::new(Trouble { fails_at: Some((3, 14)), ..Trouble::default() });
    let manager = builder().register_versioned(bench.make(&failing))?.build();
    let live = manager.start_live()?;
    let mut rebuild = manager.rebuild(NAME).await?;
    let answer = rebuild.done().await;
    ensure_matches!(answer, Err(ManagerError::RebuildGivenUp { .. }), "a rebuild that fails");
    deposit(&bench.store, 41, 50).await?;
    if let Some(head) = bench.store.head().await? {
        live.wait_for(head).await?;
    }
    ensure_eq!(bench.counted(2).await?, (50, 50 * 51 / 2), "deposits in the version that goes on");
    Ok(live.shutdown().await?)
}
