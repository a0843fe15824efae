//! The manager: which projections there are, and how to look at them.

use super::follower::{Follower, Runner, lock};
use super::live::{LiveHandle, Running};
use super::models::Parts;
use super::partitioned::{PartMaker, PartitionedRunner};
use super::rebuild::Rebuild;
use super::runner::RunnerOf;
use super::tail::Tail;
use super::versions::VersionedRunner;
use super::{LiveConfig, ManagerError, ProjectionState, ProjectionStatus};
use crate::projection::lag;
use crate::{
    Activity, Backend, EventFilter, EventStoreError, GlobalPosition, InMemory, PartitionContext, Partitions,
    ProjectionConfig, ProjectionError, ProjectionName, Projector, ReadModelVersion, SharedError, Timestamp, UnitOfWork,
    VersionedProjector, VersionedUnitOfWork, run_partitioned, run_projection,
};
use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Runs any number of projections over one store, supervised. One that panicked, or failed in a way that
/// [passes](crate::ProjectionError::retry_helps), is started again; one whose projector chose
/// [`Fatal`](crate::FailureStrategy::Fatal), or whose checkpoint does not fit, has failed for good. Neither stops the others.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{Event, EventStore, InMemory, ProjectionManager, Projector, RecordedEvent};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(namespace = "bank")]
/// # enum BankEvent { Deposited { cents: u64 } }
/// # #[derive(Clone, Default)]
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
/// let store = eventcore_memory::MemoryEventStore::new();
/// let manager = ProjectionManager::builder(store.clone()).register(Total::default)?.build();
/// let live = manager.start_live()?;
/// // .. commands are executed ..
/// if let Some(head) = store.head().await? {
///     live.wait_for(head).await?;
/// }
/// assert_eq!(manager.live::<Total>().await?.0, 0);
/// live.shutdown().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct ProjectionManager<B> {
    pub(super) inner: Arc<Inner<B>>,
}

pub(super) struct Inner<B> {
    pub(super) backend: B,
    config: LiveConfig,
    followers: Vec<Arc<Follower>>,
    by_type: HashMap<TypeId, Arc<Follower>>,
    tail: Arc<Tail>,
    running: Mutex<Option<Arc<Running>>>,
    /// The head of the log, as far as it was asked for.
    head: Mutex<Option<GlobalPosition>>,
    /// Projectors that were pulled while nothing was live.
    makers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

/// Builds a [`ProjectionManager`].
pub struct ProjectionManagerBuilder<B> {
    backend: B,
    config: LiveConfig,
    followers: Vec<Arc<Follower>>,
    /// What each of them wants.
    filters: Vec<EventFilter>,
    by_type: HashMap<TypeId, Arc<Follower>>,
    makers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

type Maker<P> = Arc<dyn Fn() -> P + Send + Sync>;

impl<B> ProjectionManagerBuilder<B>
where
    B: Backend + Clone + 'static,
{
    /// Adds a projection. `make` makes the projector, each time it is started: a read model in memory begins empty.
    ///
    /// # Errors
    /// [`ManagerError::Name`] or [`ManagerError::Duplicate`] if its name cannot be used, [`ManagerError::Duplicate`] also
    /// if a projector of the same type is registered.
    pub fn register<P>(mut self, make: impl Fn() -> P + Send + Sync + 'static) -> Result<Self, ManagerError>
    where
        P: Projector + Sync + 'static,
        B: UnitOfWork<P::Context>,
    {
        let make: Maker<P> = Arc::new(make);
        let runner = RunnerOf::new(self.backend.clone(), {
            let make = Arc::clone(&make);
            move || make()
        });
        self.add(&make(), Arc::new(runner))?;
        self.makers.insert(TypeId::of::<P>(), Box::new(make));
        Ok(self)
    }

    /// Adds a projection that several workers share by stream, as by [`run_partitioned`]. `make` makes the projector of a
    /// partition, counted from 0. A read model in memory is the sum of its [`parts`](ProjectionManager::parts).
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_partitioned<P>(
        mut self,
        partitions: Partitions,
        make: impl Fn(usize) -> P + Send + Sync + 'static,
    ) -> Result<Self, ManagerError>
    where
        P: Projector + Sync + 'static,
        P::Context: PartitionContext,
        B: UnitOfWork<P::Context>,
    {
        let maker = PartMaker { make: Arc::new(make), partitions };
        let runner = PartitionedRunner::new(self.backend.clone(), maker.clone());
        self.add(&(maker.make)(0), Arc::new(runner))?;
        self.makers.insert(TypeId::of::<P>(), Box::new(maker));
        Ok(self)
    }

    /// Adds a projection whose read model, in the store's transaction, can be rebuilt side by side. `make` makes the
    /// projector of a version; the name does not depend on the version. Readers find the read model in the store, under the
    /// name that [`VersionedProjector::activate`] gives it.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_versioned<P>(
        mut self,
        make: impl Fn(ReadModelVersion) -> P + Send + Sync + 'static,
    ) -> Result<Self, ManagerError>
    where
        P: VersionedProjector + Sync + 'static,
        B: VersionedUnitOfWork<P::Context>,
    {
        let first = ReadModelVersion::try_new(1).map_err(ManagerError::Name)?;
        let first = make(first);
        let runner = VersionedRunner::new(self.backend.clone(), make);
        self.add(&first, Arc::new(runner))?;
        Ok(self)
    }

    fn add<P: Projector + 'static>(&mut self, projector: &P, runner: Arc<dyn Runner>) -> Result<(), ManagerError> {
        let name = ProjectionName::new(projector.name()).map_err(ManagerError::Name)?;
        let type_id = TypeId::of::<P>();
        if self.followers.iter().any(|follower| follower.name == name) || self.by_type.contains_key(&type_id) {
            return Err(ManagerError::Duplicate { name });
        }
        let follower = Arc::new(Follower::new(name, runner));
        self.followers.push(Arc::clone(&follower));
        self.filters.push(projector.filter());
        self.by_type.insert(type_id, follower);
        Ok(())
    }

    /// How the projections are run.
    #[must_use]
    pub const fn live_config(mut self, config: LiveConfig) -> Self {
        self.config = config;
        self
    }

    /// Finishes the manager. Nothing runs yet.
    #[must_use]
    pub fn build(self) -> ProjectionManager<B> {
        let Self { backend, config, followers, filters, by_type, makers } = self;
        let (limits, page_size) = config.window();
        let tail = Arc::new(Tail::new(&filters, limits, page_size));
        let (running, head) = (Mutex::new(None), Mutex::new(None));
        let inner = Inner { backend, config, followers, by_type, tail, running, head, makers };
        ProjectionManager { inner: Arc::new(inner) }
    }
}

impl<B> ProjectionManager<B>
where
    B: Backend + Clone + 'static,
{
    /// Begins a manager over a store: an adapter, or an `Arc` of one.
    #[must_use]
    pub fn builder(backend: B) -> ProjectionManagerBuilder<B> {
        ProjectionManagerBuilder {
            backend,
            config: LiveConfig::default(),
            followers: Vec::new(),
            filters: Vec::new(),
            by_type: HashMap::new(),
            makers: HashMap::new(),
        }
    }

    /// Starts all projections, on tasks of the current tokio runtime.
    ///
    /// # Errors
    /// [`ManagerError::AlreadyLive`] until those that run have been shut down.
    pub fn start_live(&self) -> Result<LiveHandle, ManagerError> {
        let mut running = lock(&self.inner.running);
        if running.as_ref().is_some_and(|running| !running.has_ended()) {
            return Err(ManagerError::AlreadyLive);
        }
        let Inner { followers, config, tail, backend, .. } = &*self.inner;
        let started = Running::start(followers, *config, tail, backend.clone());
        *running = Some(Arc::clone(&started));
        Ok(LiveHandle::new(started))
    }

    /// Stops applying events to a projection; it keeps its place. The event in hand is finished after this has returned.
    ///
    /// This is about this instance alone: the leadership of a projection with durable effects is given up, and another
    /// instance that stands by takes over. It stays paused when the projections are shut down and started again.
    ///
    /// Dead letters are replayed meanwhile:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use eventcore::{Event, ProjectionManager, Projector, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, Event)]
    /// # #[event(namespace = "bank")]
    /// # enum BankEvent { Deposited { cents: u64 } }
    /// # struct Letters;
    /// # impl Projector for Letters {
    /// #     type Event = BankEvent;
    /// #     type Error = std::convert::Infallible;
    /// #     type Context = ();
    /// #     fn name(&self) -> &str { "letters" }
    /// #     async fn apply(&mut self, _: &RecordedEvent<BankEvent>, _: &mut ()) -> Result<(), Self::Error> { Ok(()) }
    /// # }
    /// use eventcore::{LeadershipError, ProjectionError, ReplayError, replay_dead_letters};
    ///
    /// # let store = eventcore_memory::MemoryEventStore::new();
    /// # let manager = ProjectionManager::builder(store.clone()).register(|| Letters)?.build();
    /// # let live = manager.start_live()?;
    /// # live.wait_until_caught_up().await?;
    /// manager.pause("letters")?;
    /// let outcome = loop {
    ///     match replay_dead_letters(Letters, &store).await {
    ///         // Its run has still to end.
    ///         Err(ReplayError::Projection(ProjectionError::Leadership(LeadershipError::Busy { .. }))) => {
    ///             tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    ///         }
    ///         result => break result,
    ///     }
    /// };
    /// manager.resume("letters")?;
    /// assert_eq!(outcome?.failed, 0);
    /// # live.shutdown().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if there is none of that name.
    pub fn pause(&self, name: &str) -> Result<(), ManagerError> {
        self.follower(name).map(|follower| follower.pause())
    }

    /// Goes on with a paused projection; does nothing to one that is not paused.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if there is none of that name.
    pub fn resume(&self, name: &str) -> Result<(), ManagerError> {
        self.follower(name).map(|follower| follower.resume())
    }

    /// Builds a read model anew from the beginning of the log, beside the old one, which serves until the new one has caught
    /// up. Returns as soon as that was asked for; the [`Rebuild`] tells how far it has come, and when it is done.
    ///
    /// One in memory is another value; one in the store's transaction is
    /// [another version](ProjectionManagerBuilder::register_versioned), built by whoever leads the projection, here or
    /// elsewhere. If that is under way already, this is about that one; one in memory begins again from the beginning. A
    /// projection that is paused is rebuilt when it is resumed.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use eventcore::{Event, InMemory, ProjectionManager, Projector, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, Event)]
    /// # #[event(namespace = "bank")]
    /// # enum BankEvent { Deposited { cents: u64 } }
    /// # #[derive(Clone, Default)]
    /// # struct Total(u64);
    /// # impl Projector for Total {
    /// #     type Event = BankEvent;
    /// #     type Error = std::convert::Infallible;
    /// #     type Context = InMemory;
    /// #     fn name(&self) -> &str { "total" }
    /// #     async fn apply(&mut self, _: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> { Ok(()) }
    /// # }
    /// # let store = eventcore_memory::MemoryEventStore::new();
    /// # let manager = ProjectionManager::builder(store.clone()).register(Total::default)?.build();
    /// # let live = manager.start_live()?;
    /// let mut rebuild = manager.rebuild("total").await?;
    /// let so_far = rebuild.progress().await?;
    /// println!("{:?}, at {:?} of {:?}", so_far.state, so_far.position, so_far.head);
    /// rebuild.done().await?;
    /// # live.shutdown().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if there is no projection of that name, [`ManagerError::NotLive`] if the projections do not
    /// run, [`ManagerError::Failed`] if it has failed for good, [`ManagerError::CannotRebuild`] if its effects are durable
    /// and it was registered without versions, else what the store says.
    pub async fn rebuild(&self, name: &str) -> Result<Rebuild, ManagerError> {
        let follower = self.follower(name)?;
        if !self.is_running() {
            return Err(ManagerError::NotLive);
        }
        Rebuild::begin(follower, Arc::new(self.inner.backend.clone())).await
    }

    /// [Rebuilds](Self::rebuild) all read models that can be rebuilt side by side, at once.
    ///
    /// # Errors
    /// [`ManagerError::NotLive`] if the projections do not run, else what the store says.
    pub async fn rebuild_all(&self) -> Result<Vec<Rebuild>, ManagerError> {
        let mut rebuilds = Vec::new();
        for follower in &self.inner.followers {
            match self.rebuild(follower.name.as_str()).await {
                Ok(rebuild) => rebuilds.push(rebuild),
                Err(ManagerError::CannotRebuild { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(rebuilds)
    }

    /// A copy of the read model as it is, without any I/O, if the projections are live and it has caught up once, or while it
    /// is [rebuilt](Self::rebuild): then the old one is as it was when the rebuild began. Otherwise it is caught up first, as
    /// by [`projection`](Self::projection).
    ///
    /// # Errors
    /// As [`projection`](Self::projection).
    pub async fn live<P>(&self) -> Result<P, ManagerError>
    where
        P: Projector<Context = InMemory> + Clone + Sync + 'static,
    {
        let follower = self.follower_of::<P>()?;
        match serving::<P>(follower) {
            Some(parts) => whole(follower, parts.copies().await),
            None => self.projection::<P>().await,
        }
    }

    /// A copy of the read model with everything in it that was acknowledged before this call, live or not. A paused one, or
    /// one that is paused meanwhile, is not waited for: it is read from the log, and the paused one stays as it is.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if no `P` is registered, [`ManagerError::Partitioned`] if it is split over partitions,
    /// [`ManagerError::Failed`] if it fails, else what the store says.
    pub async fn projection<P>(&self) -> Result<P, ManagerError>
    where
        P: Projector<Context = InMemory> + Clone + Sync + 'static,
    {
        let follower = self.follower_of::<P>()?;
        if let Some(parts) = self.caught_up::<P>(follower).await? {
            return whole(follower, parts.copies().await);
        }
        let partitioned = || ManagerError::Partitioned { name: follower.name.clone() };
        let projector = self.maker::<Maker<P>>(TypeId::of::<P>()).ok_or_else(partitioned)?();
        let outcome = run_projection(projector, &self.inner.backend, ProjectionConfig::default().aside()).await;
        outcome.map(|outcome| outcome.projector).map_err(|error| failed(follower, error))
    }

    /// Copies of the projectors of all partitions, whose sum the read model is: as they are, as by [`live`](Self::live).
    /// A projection that is not partitioned has one part.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if no `P` is registered, [`ManagerError::Failed`] if it fails, else what the store says.
    pub async fn parts<P>(&self) -> Result<Vec<P>, ManagerError>
    where
        P: Projector<Context = InMemory> + Clone + Sync + 'static,
    {
        let follower = self.follower_of::<P>()?;
        let serving = match serving::<P>(follower) {
            None => self.caught_up::<P>(follower).await?,
            serving => serving,
        };
        if let Some(parts) = serving {
            return Ok(parts.copies().await);
        }
        let Some(PartMaker { make, partitions }) = self.maker::<PartMaker<P>>(TypeId::of::<P>()) else {
            return self.projection::<P>().await.map(|whole| vec![whole]);
        };
        let config = ProjectionConfig::default().aside().partitions(*partitions);
        let outcome = run_partitioned(|number| make(number), &self.inner.backend, config).await;
        outcome.map(|outcome| outcome.projectors).map_err(|error| failed(follower, error))
    }

    /// How every projection is doing, in the order in which they were registered. Asks the store for its head once, and waits
    /// for the answer for a second at most: while the store is away this tells what is known.
    pub async fn status(&self) -> Vec<ProjectionStatus> {
        let asked = tokio::time::timeout(HEAD_PATIENCE, self.inner.backend.head()).await;
        let asked = asked.unwrap_or_else(|_| Err(EventStoreError::unavailable("it did not say its head in time")));
        let (head, error) = {
            let mut head = lock(&self.inner.head);
            let error = asked.map(|answer| *head = answer).err();
            (*head, error)
        };
        self.inner.followers.iter().map(|follower| status(follower, head, error.clone())).collect()
    }

    fn is_running(&self) -> bool {
        lock(&self.inner.running).as_ref().is_some_and(|running| !running.has_ended())
    }

    pub(super) fn follower(&self, name: &str) -> Result<&Arc<Follower>, ManagerError> {
        let found = self.inner.followers.iter().find(|follower| follower.name.as_str() == name);
        found.ok_or_else(|| ManagerError::Unknown { what: name.to_owned() })
    }

    fn follower_of<P: 'static>(&self) -> Result<&Arc<Follower>, ManagerError> {
        let found = self.inner.by_type.get(&TypeId::of::<P>());
        found.ok_or_else(|| ManagerError::Unknown { what: type_name::<P>().to_owned() })
    }

    /// The read model once it has everything that is acknowledged now, if it is live and comes to that.
    async fn caught_up<P: 'static>(&self, follower: &Follower) -> Result<Option<Parts<P>>, ManagerError> {
        let head = self.inner.backend.head().await?;
        let live = matches!(follower.state(), ProjectionState::Live);
        match head {
            Some(head) if live && follower.comes_to(head).await => Ok(follower.parts::<P>()),
            _ => Ok(None),
        }
    }

    fn maker<M: 'static>(&self, projector: TypeId) -> Option<&M> {
        self.inner.makers.get(&projector)?.downcast_ref::<M>()
    }
}

/// How long a status waits for the head of the log.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);

/// The read model, if it can be shown as it is.
fn serving<P: 'static>(follower: &Follower) -> Option<Parts<P>> {
    let serves =
        matches!(follower.state(), ProjectionState::Live | ProjectionState::Paused) || follower.is_rebuilding();
    follower.parts::<P>().filter(|_| serves)
}

/// The read model of a projection that is not split.
fn whole<P>(follower: &Follower, mut parts: Vec<P>) -> Result<P, ManagerError> {
    match (parts.pop(), parts.is_empty()) {
        (Some(whole), true) => Ok(whole),
        _ => Err(ManagerError::Partitioned { name: follower.name.clone() }),
    }
}

fn failed<E: StdError + Send + Sync + 'static>(follower: &Follower, error: ProjectionError<E>) -> ManagerError {
    ManagerError::Failed { name: follower.name.clone(), source: SharedError::new(error) }
}

fn status(follower: &Follower, head: Option<GlobalPosition>, head_error: Option<EventStoreError>) -> ProjectionStatus {
    // Of one run: another one may begin meanwhile.
    let progress = follower.progress();
    let position = progress.position();
    let (lag, lag_time) = lag(position, head, progress.as_of(), Timestamp::now());
    let (applied, skipped) = progress.counts();
    let activity = progress.activity();
    ProjectionStatus {
        name: follower.name.clone(),
        state: follower.state(),
        position,
        head,
        head_error,
        lag,
        lag_time,
        applied,
        skipped,
        parked: progress.parked(),
        rate: follower.rate(),
        leader: matches!(activity, Activity::CatchingUp | Activity::Live | Activity::Reconnecting),
        restarts: follower.restarts(),
        last_error: follower.last_error(),
    }
}
