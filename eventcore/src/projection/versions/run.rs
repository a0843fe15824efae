//! Runs a projection with all versions of its read model.

use super::super::driver::run_projection;
use super::super::{ProjectionConfig, ProjectionError, Projector};
use super::VersionedProjector;
use super::child::Child;
use super::led::Led;
use super::named::Named;
use crate::{
    Activity, DeadLetter, ErrorKind, EventReader, EventStore, EventStoreError, Leadership, LeadershipError, Progress,
    ProjectionName, ProjectorCoordinator, ReadModel, ReadModelVersion, VersionChange, VersionStep, VersionedUnitOfWork,
};
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::time::Duration;
use tracing::Instrument;

/// How often the leader looks whether a rebuild was asked for.
const LOOK_FOR_REQUESTS: Duration = Duration::from_millis(250);

/// Runs a projection whose read model can be [rebuilt](crate::ReadModelStore::request_rebuild) side by side: as
/// [`run_projection`] does, and beside it the version that is being built, until they swap. `make` makes the projector of a
/// version.
///
/// - The version in force serves until the new one has caught up. Then the old one stops, the new one passes it, and in one
///   transaction the new one is put into force with its checkpoint.
/// - Whoever takes over the leadership goes on with a rebuild that is under way, from its checkpoint.
/// - A rebuild that fails for good is given up, with the reason in [`ReadModel::failure`]; the version in force goes on. A
///   version in force that fails for good waits for a rebuild that is under way or asked for; without one, the run ends.
/// - The very first version is built in the same way, so that readers find nothing rather than half of it.
///
/// A batch ends when the version in force is at the end of the log, after a rebuild that is under way or asked for. Returns
/// the versions that stand when it ends.
///
/// # Errors
/// [`ProjectionError`], whose [`kind`](ProjectionError::kind) tells what a caller can do.
pub async fn run_versioned_projection<P, B, F>(
    make: F,
    backend: &B,
    config: ProjectionConfig,
) -> Result<ReadModel, ProjectionError<P::Error>>
where
    P: VersionedProjector + 'static,
    B: EventStore + EventReader + ProjectorCoordinator + VersionedUnitOfWork<P::Context> + Clone + 'static,
    F: Fn(ReadModelVersion) -> P + Send + Sync,
{
    let first = ReadModelVersion::try_new(1).map_err(ProjectionError::Name)?;
    let name = ProjectionName::new(make(first).name()).map_err(ProjectionError::Name)?;
    let span = tracing::debug_span!("projection", name = name.as_str());
    let progress = config.progress.clone();
    progress.restart();
    let _ended = progress.end_on_drop();
    Versions { make, backend, name, config, projector: PhantomData }.run().instrument(span).await
}

type Failure<P> = ProjectionError<<P as Projector>::Error>;

struct Versions<'b, P, B, F> {
    make: F,
    backend: &'b B,
    name: ProjectionName,
    config: ProjectionConfig,
    projector: PhantomData<fn() -> P>,
}

/// The run of the version in force, and what became of it.
struct InForce<P: Projector> {
    run: Option<Child<P>>,
    /// A batch that goes on to follow, as long as there is a rebuild beside it.
    prolonged: bool,
    /// It failed for good, and a rebuild is the way out.
    failed: Option<Failure<P>>,
    /// The version before it could not be removed.
    keeps_retired: bool,
}

/// What a projector does in the transaction of a change.
#[derive(Clone, Copy)]
enum Act {
    Prepare,
    Activate,
    Retire,
}

/// What became of the version that was being built.
enum Built {
    /// It has caught up.
    CaughtUp,
    /// The projection is to stop.
    Stopped,
    /// Its run has ended well, as it was told to stop too.
    Ended,
}

impl<P, B, F> Versions<'_, P, B, F>
where
    P: VersionedProjector + 'static,
    B: EventStore + EventReader + ProjectorCoordinator + VersionedUnitOfWork<P::Context> + Clone + 'static,
    F: Fn(ReadModelVersion) -> P + Send + Sync,
{
    async fn run(&self) -> Result<ReadModel, Failure<P>> {
        loop {
            let Some(leadership) = self.lead().await? else { return self.stands().await };
            let led = Led {
                backend: self.backend.clone(),
                leader: self.name.clone(),
                epoch: leadership.epoch(),
                lost: leadership.lost().clone(),
            };
            let served = self.serve(&led).await;
            if let Err(error) = self.backend.release(leadership).await {
                tracing::warn!(error = &error as &dyn StdError, "the leadership could not be released");
            }
            match served {
                // Another instance took over.
                Err(error) if self.config.wait_for_leadership && error.kind() == ErrorKind::Conflict => {
                    tracing::debug!(error = &error as &dyn StdError, "waiting to lead again");
                    self.pause(self.config.standby_interval()).await;
                }
                served => return served,
            }
        }
    }

    /// Takes the leadership of all versions; `None` if the projection is to stop before that.
    async fn lead(&self) -> Result<Option<Leadership>, Failure<P>> {
        let mut failures = 0;
        while !self.is_stopped() {
            let delay = match self.backend.acquire(&self.name).await {
                Ok(leadership) => return Ok(Some(leadership)),
                Err(LeadershipError::Busy { .. }) if self.config.wait_for_leadership => {
                    self.config.progress.enter(Activity::Standby);
                    failures = 0;
                    self.config.standby_interval()
                }
                Err(error) => {
                    let error = error.into();
                    self.endure(&mut failures, &error).then_some(()).ok_or(error)?;
                    self.config.failure_delay
                }
            };
            self.pause(delay).await;
        }
        Ok(None)
    }

    /// Leads until told to stop, or until it cannot.
    async fn serve(&self, led: &Led<B>) -> Result<ReadModel, Failure<P>> {
        self.config.progress.enter(Activity::CatchingUp);
        let mut in_force = InForce { run: None, prolonged: false, failed: None, keeps_retired: false };
        let mut failures = 0;
        loop {
            match self.step(led, &mut in_force).await {
                Ok(Some(model)) => return Ok(model),
                Ok(None) => failures = 0,
                Err(error) if self.endure(&mut failures, &error) => self.pause(self.config.failure_delay).await,
                Err(error) => {
                    if let Some(run) = in_force.run.take() {
                        // What it says matters less than what it ends for.
                        let _ = run.stop().await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// One step; brings what stands when there is none left to do.
    async fn step(&self, led: &Led<B>, in_force: &mut InForce<P>) -> Result<Option<ReadModel>, Failure<P>> {
        let model = self.stands().await?;
        let wanted = model.building.is_some() || model.requested || model.in_force.is_none();
        if self.is_stopped() {
            if let Some(run) = in_force.run.take() {
                run.stop().await?;
            }
            return Ok(Some(model));
        }
        if let Some(error) = in_force.failed.take_if(|_| !wanted) {
            return Err(error);
        }
        if in_force.prolonged
            && !wanted
            && let Some(run) = in_force.run.take()
        {
            in_force.end(run.stop().await.map(drop))?;
            return Ok(None);
        }
        if let (Some(version), None, None) = (model.in_force, &in_force.run, &in_force.failed) {
            in_force.prolonged = wanted && !self.config.continuous;
            let continuous = wanted || self.config.continuous;
            let run = self.follow(led, self.name.clone(), version, continuous);
            in_force.run = Some(run.shown_as(&self.config.progress));
        }
        match model.next_step() {
            VersionStep::Begin(version) => {
                let begun = self.change(led, version, &VersionChange::Begin, Some(Act::Prepare)).await;
                self.unless_rebuild_fails(led, &model, version, begun).await?;
            }
            VersionStep::Build(version) => self.build(led, version, &model, in_force).await?,
            VersionStep::Retire(version) if wanted || !in_force.keeps_retired => {
                let retired = self.change(led, version, &VersionChange::Forget, Some(Act::Retire)).await;
                match retired {
                    Err(error @ ProjectionError::Version { .. }) if !wanted => {
                        tracing::warn!(%version, error = &error as &dyn StdError, "an old version was not removed");
                        in_force.keeps_retired = true;
                    }
                    retired => self.unless_rebuild_fails(led, &model, version, retired).await?,
                }
            }
            VersionStep::Retire(_) | VersionStep::Follow(_) => return self.wait(model, in_force).await,
            VersionStep::Exhausted => return Err(EventStoreError::storage("no version is left for a rebuild").into()),
        }
        Ok(None)
    }

    /// The version in force follows the log; now and then it is looked whether a rebuild was asked for.
    async fn wait(&self, model: ReadModel, in_force: &mut InForce<P>) -> Result<Option<ReadModel>, Failure<P>> {
        let Some(run) = &mut in_force.run else { return Ok(Some(model)) };
        tokio::select! {
            ended = run.ended() => {
                in_force.end(ended.map(drop))?;
                Ok(in_force.failed.is_none().then_some(model))
            }
            () = tokio::time::sleep(LOOK_FOR_REQUESTS) => Ok(None),
        }
    }

    /// Builds a version beside the one in force until they can swap, and swaps them.
    async fn build(
        &self,
        led: &Led<B>,
        version: ReadModelVersion,
        model: &ReadModel,
        in_force: &mut InForce<P>,
    ) -> Result<(), Failure<P>> {
        let name = version.checkpoint_name(&self.name).map_err(ProjectionError::Name)?;
        let mut candidate = self.follow(led, name, version, true);
        match self.catch_up(&mut candidate, in_force).await {
            Ok(Built::CaughtUp) => {}
            Ok(Built::Stopped) => return candidate.stop().await.map(drop),
            Ok(Built::Ended) => return Ok(()),
            Err(error) => return self.unless_rebuild_fails(led, model, version, Err(error)).await,
        }
        // The old one stops where it is, and the new one passes it: what was read stays true.
        if let Some(run) = in_force.run.take() {
            in_force.end(run.stop().await.map(drop))?;
        }
        let reached = self.backend.resume(&self.name).await?.and_then(|checkpoint| checkpoint.cursor);
        let passed = async move {
            if let Some(cursor) = reached {
                // If it ends before that, stopping it says why.
                let _ = candidate.progress.wait_for(cursor.position).await;
            }
            let outcome = candidate.stop().await?;
            if outcome.position < reached.map(|cursor| cursor.position) {
                return Err(EventStoreError::unavailable("the version that is built was stopped too early").into());
            }
            Ok(())
        };
        let passed = passed.await;
        if self.is_stopped() {
            return Ok(());
        }
        let swapped = match passed {
            Ok(()) => self.change(led, version, &VersionChange::Swap, Some(Act::Activate)).await,
            Err(error) => Err(error),
        };
        if swapped.is_ok() {
            tracing::info!(%version, "a new version of the read model is in force");
            in_force.failed = None;
            in_force.keeps_retired = false;
        }
        self.unless_rebuild_fails(led, model, version, swapped).await
    }

    /// Waits until a version that is being built has caught up once, while the one in force goes on.
    async fn catch_up(&self, candidate: &mut Child<P>, in_force: &mut InForce<P>) -> Result<Built, Failure<P>> {
        let progress = candidate.progress.clone();
        loop {
            tokio::select! {
                biased;
                () = self.config.shutdown.cancelled() => return Ok(Built::Stopped),
                ended = candidate.ended() => {
                    ended?;
                    return Ok(Built::Ended);
                }
                ended = in_force.ended() => in_force.end(ended)?,
                live = progress.wait_until(Activity::Live) => if live.is_ok() {
                    return Ok(Built::CaughtUp);
                },
            }
        }
    }

    /// A rebuild that failed for good is given up; the version in force goes on, if there is one.
    async fn unless_rebuild_fails(
        &self,
        led: &Led<B>,
        model: &ReadModel,
        version: ReadModelVersion,
        result: Result<(), Failure<P>>,
    ) -> Result<(), Failure<P>> {
        let Err(error) = result else { return Ok(()) };
        if passes(&error) {
            return Err(error);
        }
        if self.is_stopped() {
            // There was no time to try again. It is met once more when the projection goes on.
            return Ok(());
        }
        tracing::warn!(%version, error = &error as &dyn StdError, "a rebuild is given up");
        self.change(led, version, &VersionChange::Abandon(DeadLetter::chain(&error).join(": ")), None).await?;
        if model.in_force.is_some() { Ok(()) } else { Err(error) }
    }

    /// Changes the versions, with what the projector does for it; tries again what the projector refuses.
    async fn change(
        &self,
        led: &Led<B>,
        version: ReadModelVersion,
        change: &VersionChange,
        act: Option<Act>,
    ) -> Result<(), Failure<P>> {
        let mut attempt = 1;
        loop {
            match self.try_change(led, version, change, act).await {
                Err(error @ ProjectionError::Version { .. })
                    if attempt <= self.config.retries.into_inner() && !self.is_stopped() =>
                {
                    tracing::debug!(%version, attempt, error = &error as &dyn StdError, "trying again");
                    self.pause(self.config.retry.delay(attempt, 0.5 + fastrand::f64() / 2.0)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_change(
        &self,
        led: &Led<B>,
        version: ReadModelVersion,
        change: &VersionChange,
        act: Option<Act>,
    ) -> Result<(), Failure<P>> {
        let mut context = self.backend.begin(&self.name, led.epoch).await?;
        let mut projector = (self.make)(version);
        let (step, done) = match act {
            Some(Act::Prepare) => ("prepared", projector.prepare(&mut context).await),
            Some(Act::Activate) => ("activated", projector.activate(&mut context).await),
            Some(Act::Retire) => ("retired", projector.retire(&mut context).await),
            None => ("given up", Ok(())),
        };
        if let Err(source) = done {
            self.backend.rollback(context).await?;
            return Err(ProjectionError::Version { name: self.name.clone(), version, step, source });
        }
        self.backend.commit_change(context, &self.name, change, led.epoch).await?;
        Ok(())
    }

    /// Spawns the run of one version.
    fn follow(&self, led: &Led<B>, name: ProjectionName, version: ReadModelVersion, continuous: bool) -> Child<P> {
        let (progress, stop) = (Progress::default(), self.config.shutdown.child_token());
        let mut config = self.config.clone().shutdown(stop.clone()).progress(progress.clone());
        (config.continuous, config.wait_for_leadership) = (continuous, false);
        if name != self.name {
            // Who is told how the projection gets on does not mean the one beside it.
            config.on_progress = None;
        }
        let projector = Named { name: name.clone(), projector: (self.make)(version) };
        let led = led.clone();
        Child::spawn(name, progress, stop, async move { run_projection(projector, &led, config).await })
    }

    async fn stands(&self) -> Result<ReadModel, Failure<P>> {
        Ok(self.backend.read_model(&self.name).await?.unwrap_or_default())
    }

    /// Whether to try again after an error: the store may come back.
    fn endure(&self, failures: &mut u32, error: &Failure<P>) -> bool {
        *failures += 1;
        let passes = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown);
        passes && *failures <= self.config.max_failures.into_inner() && !self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.config.shutdown.is_cancelled()
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.config.shutdown.cancelled() => {}
        }
    }
}

impl<P: Projector + 'static> InForce<P> {
    /// Waits until the version in force ends; for ever if none runs.
    async fn ended(&mut self) -> Result<(), Failure<P>> {
        match &mut self.run {
            Some(run) => run.ended().await.map(drop),
            None => std::future::pending().await,
        }
    }

    /// The version in force has ended. If it failed for good, a rebuild may still help.
    fn end(&mut self, ended: Result<(), Failure<P>>) -> Result<(), Failure<P>> {
        self.run = None;
        match ended {
            Err(error) if !passes(&error) => {
                tracing::warn!(error = &error as &dyn StdError, "the version in force failed");
                self.failed = Some(error);
                Ok(())
            }
            ended => ended,
        }
    }
}

/// Whether it says nothing against the version: another instance led, or the store did not answer.
fn passes<E: StdError + 'static>(error: &ProjectionError<E>) -> bool {
    matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
}
