//! The manager: which projections there are, and how to look at them.

use super::follower::{Follower, Runner, RunnerOf, lock};
use super::live::{LiveHandle, Running};
use super::rebuild::Rebuild;
use super::versions::VersionedRunner;
use super::{LiveConfig, ManagerError, ProjectionState, ProjectionStatus};
use crate::projection::lag;
use crate::{
    Activity, Backend, GlobalPosition, InMemory, ProjectionConfig, ProjectionName, Projector, ReadModelVersion,
    SharedError, Timestamp, UnitOfWork, VersionedProjector, VersionedUnitOfWork, run_projection,
};
use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::RwLock;

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
    inner: Arc<Inner<B>>,
}

struct Inner<B> {
    backend: B,
    config: LiveConfig,
    followers: Vec<Arc<Follower>>,
    by_type: HashMap<TypeId, Arc<Follower>>,
    running: Mutex<Option<Arc<Running>>>,
    /// Projectors that were pulled while nothing was live.
    makers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

/// Builds a [`ProjectionManager`].
pub struct ProjectionManagerBuilder<B> {
    backend: B,
    config: LiveConfig,
    followers: Vec<Arc<Follower>>,
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
        self.add::<P>(make().name(), Arc::new(runner))?;
        self.makers.insert(TypeId::of::<P>(), Box::new(make));
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
        let name = make(first).name().to_owned();
        let runner = VersionedRunner::new(self.backend.clone(), make);
        self.add::<P>(&name, Arc::new(runner))?;
        Ok(self)
    }

    fn add<P: 'static>(&mut self, name: &str, runner: Arc<dyn Runner>) -> Result<(), ManagerError> {
        let name = ProjectionName::new(name).map_err(ManagerError::Name)?;
        let type_id = TypeId::of::<P>();
        if self.followers.iter().any(|follower| follower.name == name) || self.by_type.contains_key(&type_id) {
            return Err(ManagerError::Duplicate { name });
        }
        let follower = Arc::new(Follower::new(name, runner));
        self.followers.push(Arc::clone(&follower));
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
        let Self { backend, config, followers, by_type, makers } = self;
        let inner = Inner { backend, config, followers, by_type, running: Mutex::new(None), makers };
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
        let started = Running::start(&self.inner.followers, self.inner.config);
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

    /// A copy of the read model as it is, without any I/O, if the projections are live and it has caught up once. Otherwise
    /// it is caught up first, as by [`projection`](Self::projection).
    ///
    /// # Errors
    /// As [`projection`](Self::projection).
    pub async fn live<P>(&self) -> Result<P, ManagerError>
    where
        P: Projector<Context = InMemory> + Clone + Sync + 'static,
    {
        let follower = self.follower_of::<P>()?;
        let serves = matches!(follower.state(), ProjectionState::Live | ProjectionState::Paused);
        if serves && let Some(copy) = self.copy::<P>(follower).await {
            return Ok(copy);
        }
        self.projection::<P>().await
    }

    /// A copy of the read model with everything in it that was acknowledged before this call, live or not.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if no `P` is registered, [`ManagerError::Failed`] if it fails, else what the store says.
    pub async fn projection<P>(&self) -> Result<P, ManagerError>
    where
        P: Projector<Context = InMemory> + Clone + Sync + 'static,
    {
        let follower = self.follower_of::<P>()?;
        let head = self.inner.backend.head().await?;
        if let (ProjectionState::Live, Some(head)) = (follower.state(), head)
            && follower.progress().wait_for(head).await.is_ok()
            && let Some(copy) = self.copy::<P>(follower).await
        {
            return Ok(copy);
        }
        let unknown = || ManagerError::Unknown { what: type_name::<P>().to_owned() };
        let maker = self.inner.makers.get(&TypeId::of::<P>()).and_then(|make| make.downcast_ref::<Maker<P>>());
        let projector = maker.ok_or_else(unknown)?();
        let outcome = run_projection(projector, &self.inner.backend, ProjectionConfig::default().aside()).await;
        outcome.map(|outcome| outcome.projector).map_err(|error| {
            let source = SharedError::new(error);
            ManagerError::Failed { name: follower.name.clone(), source }
        })
    }

    /// How every projection is doing, in the order in which they were registered. Asks the store for its head once.
    ///
    /// # Errors
    /// What the store says.
    pub async fn status(&self) -> Result<Vec<ProjectionStatus>, ManagerError> {
        let head = self.inner.backend.head().await?;
        Ok(self.inner.followers.iter().map(|follower| status(follower, head)).collect())
    }

    fn is_running(&self) -> bool {
        lock(&self.inner.running).as_ref().is_some_and(|running| !running.has_ended())
    }

    fn follower(&self, name: &str) -> Result<&Arc<Follower>, ManagerError> {
        let found = self.inner.followers.iter().find(|follower| follower.name.as_str() == name);
        found.ok_or_else(|| ManagerError::Unknown { what: name.to_owned() })
    }

    fn follower_of<P: 'static>(&self) -> Result<&Arc<Follower>, ManagerError> {
        let found = self.inner.by_type.get(&TypeId::of::<P>());
        found.ok_or_else(|| ManagerError::Unknown { what: type_name::<P>().to_owned() })
    }

    async fn copy<P: Clone + 'static>(&self, follower: &Follower) -> Option<P> {
        let model = follower.runner.read_model()?.downcast::<Arc<RwLock<P>>>().ok()?;
        let copy = model.read().await.clone();
        Some(copy)
    }
}

fn status(follower: &Follower, head: Option<GlobalPosition>) -> ProjectionStatus {
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
