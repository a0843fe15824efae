//! What an adapter brings to the suite, and what the suite makes of it.

use crate::{ContractViolation, FaultyStore};
use async_trait::async_trait;
use eventcore::{AppendLimits, Backend, CommandExecutor, EventStore};
use std::error::Error as StdError;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a harness could not make or open a store.
pub type HarnessError = Box<dyn StdError + Send + Sync>;

/// A store as the cases see it.
pub type OpenStore = Arc<dyn Backend>;

/// How an adapter makes the stores that its contract is tested with.
///
/// A *place* is where one log lives: a directory, a schema of a database server, for an adapter in RAM the store itself.
/// Every case gets places of its own and may open one several times, to restart a store or to have two instances of it.
pub trait Harness: Send + Sync + 'static {
    /// The adapter.
    type Store: Backend + Clone + 'static;
    /// Where one log lives. Dropping it may remove it; it is dropped after the stores opened in it.
    type Place: Send + Sync + 'static;

    /// The adapter's name, for people.
    const NAME: &'static str;
    /// Whether positions are numbered without gaps.
    const GAPLESS: bool;
    /// Whether a place that is opened again after its store was closed holds what was stored.
    const DURABLE: bool;

    /// Makes a place with an empty log, whose stores have these limits.
    fn create(&self, limits: StoreLimits) -> impl Future<Output = Result<Self::Place, HarnessError>> + Send;

    /// Opens the log at a place. It may be open already: then this is a further instance on the same log.
    fn open(&self, place: &Self::Place) -> impl Future<Output = Result<Self::Store, HarnessError>> + Send;

    /// Clears a place away when a case is over, if dropping it does not do so.
    fn remove(&self, _place: Self::Place) -> impl Future<Output = Result<(), HarnessError>> + Send {
        async { Ok(()) }
    }
}

/// The limits that the suite wants a store to have. By default those that every adapter has by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// How large an event and an append may be.
    pub append: AppendLimits,
    /// The most events that one consistent read may bring.
    pub max_read_events: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { append: AppendLimits::default(), max_read_events: 1_000_000 }
    }
}

/// How the cases hold the adapter's stores, so that the ports are tested through pointers too. On the pointers commands are
/// executed with a state cache, on the value without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// The adapter's own type.
    Value,
    /// `Box<dyn Backend>`.
    Boxed,
    /// `Arc<dyn Backend>`.
    Shared,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Value, Self::Boxed, Self::Shared];

    /// Holds a store so, behind one that lets other tasks run at every call: else a case that spins could not be ended.
    fn hold(self, store: impl Backend + 'static) -> OpenStore {
        match self {
            Self::Value => Arc::new(FaultyStore::new(store)),
            Self::Boxed => Arc::new(FaultyStore::new(Box::new(store) as Box<dyn Backend>)),
            Self::Shared => Arc::new(FaultyStore::new(Arc::new(store) as Arc<dyn Backend>)),
        }
    }
}

/// Where a case gets its stores from.
pub struct Environment {
    places: Box<dyn Places>,
    form: Form,
    gapless: bool,
    durable: bool,
}

impl Environment {
    /// The stores of `harness`, held in `form`.
    #[must_use]
    pub fn new<H: Harness>(harness: H, form: Form) -> Self {
        let places = Box::new(PlacesOf { harness, form, made: Mutex::default() });
        Self { places, form, gapless: H::GAPLESS, durable: H::DURABLE }
    }

    /// Whether positions are numbered without gaps.
    #[must_use]
    pub const fn gapless(&self) -> bool {
        self.gapless
    }

    /// Whether a place opened again holds what was stored.
    #[must_use]
    pub const fn durable(&self) -> bool {
        self.durable
    }

    /// An executor as the form wants it: on the adapter's own type a plain one, else one that keeps states in memory and
    /// stores commands together. What is promised of executions holds for both.
    pub(crate) fn executor<S: EventStore>(&self, store: S) -> CommandExecutor<S> {
        match self.form {
            Form::Value => CommandExecutor::new(store),
            Form::Boxed | Form::Shared => CommandExecutor::new(store).state_cache(10),
        }
    }

    /// An empty store.
    pub(crate) async fn fresh(&self) -> Result<OpenStore, ContractViolation> {
        self.place().await?.open().await
    }

    /// An empty store with limits.
    pub(crate) async fn fresh_with(&self, limits: StoreLimits) -> Result<OpenStore, ContractViolation> {
        self.place_with(limits).await?.open().await
    }

    /// A place with an empty log.
    pub(crate) async fn place(&self) -> Result<Place<'_>, ContractViolation> {
        self.place_with(StoreLimits::default()).await
    }

    /// Clears all places away.
    pub(crate) async fn clear(&self) -> Result<(), ContractViolation> {
        Ok(self.places.clear().await?)
    }

    async fn place_with(&self, limits: StoreLimits) -> Result<Place<'_>, ContractViolation> {
        Ok(Place { environment: self, index: self.places.create(limits).await? })
    }
}

/// A log that can be opened any number of times.
pub(crate) struct Place<'a> {
    environment: &'a Environment,
    index: usize,
}

impl Place<'_> {
    /// Opens the log; another instance if it is open already.
    pub(crate) async fn open(&self) -> Result<OpenStore, ContractViolation> {
        Ok(self.environment.places.open(self.index).await?)
    }
}

/// [`Harness`] without its types. Places are known by their number.
#[async_trait]
trait Places: Send + Sync {
    async fn create(&self, limits: StoreLimits) -> Result<usize, HarnessError>;
    async fn open(&self, index: usize) -> Result<OpenStore, HarnessError>;
    async fn clear(&self) -> Result<(), HarnessError>;
}

struct PlacesOf<H: Harness> {
    harness: H,
    form: Form,
    made: Mutex<Vec<Arc<H::Place>>>,
}

impl<H: Harness> PlacesOf<H> {
    fn made(&self) -> std::sync::MutexGuard<'_, Vec<Arc<H::Place>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<H: Harness> Places for PlacesOf<H> {
    async fn create(&self, limits: StoreLimits) -> Result<usize, HarnessError> {
        let place = Arc::new(self.harness.create(limits).await?);
        let mut made = self.made();
        made.push(place);
        Ok(made.len() - 1)
    }

    async fn open(&self, index: usize) -> Result<OpenStore, HarnessError> {
        let place = self.made().get(index).cloned().ok_or("no such place")?;
        Ok(self.form.hold(self.harness.open(&place).await?))
    }

    async fn clear(&self) -> Result<(), HarnessError> {
        let made = std::mem::take(&mut *self.made());
        for place in made.into_iter().filter_map(Arc::into_inner) {
            self.harness.remove(place).await?;
        }
        Ok(())
    }
}
