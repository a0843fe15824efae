//! A plain store whose promises can be broken one at a time.

mod append;
mod dead_letters;
mod followers;
mod read;
mod snapshots;
mod transaction;
mod versions;

pub(crate) use crate::broken::Defect;

use eventcore::{
    Checkpoint, CommandId, DeadLetter, DeadLetterId, Epoch, EventStoreError, LineageId, LogSignal, ProjectionName,
    ReadModel, Receipt, RecordedEvent, Snapshot, SnapshotKey, StreamId,
};
use eventcore_testing::{Harness, HarnessError, StoreLimits};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everything under one lock, in the plainest way, with or without a defect.
#[derive(Clone)]
pub(crate) struct ModelStore {
    shared: Arc<Shared>,
}

struct Shared {
    defect: Option<Defect>,
    limits: StoreLimits,
    lineage: LineageId,
    state: Mutex<State>,
    signal: LogSignal,
}

#[derive(Default)]
struct State {
    /// In the order of their positions.
    events: Vec<RecordedEvent>,
    versions: HashMap<StreamId, u64>,
    receipts: BTreeMap<CommandId, Receipt>,
    /// The position given out last.
    last_position: u64,
    followers: BTreeMap<ProjectionName, Follower>,
    letters: BTreeMap<DeadLetterId, DeadLetter>,
    snapshots: BTreeMap<SnapshotKey, Snapshot>,
    read_models: BTreeMap<ProjectionName, ReadModel>,
    /// The read model that transactions write to.
    values: BTreeMap<String, i64>,
    closed: bool,
}

#[derive(Default)]
struct Follower {
    checkpoint: Option<Checkpoint>,
    epoch: Epoch,
    led: bool,
}

impl ModelStore {
    fn has(&self, defect: Defect) -> bool {
        self.shared.defect == Some(defect)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, State>, EventStoreError> {
        let state = self.state();
        if state.closed && !self.has(Defect::ClosesInName) { Err(EventStoreError::Closed) } else { Ok(state) }
    }
}

/// Makes stores with a defect, or without.
pub(crate) struct Model(pub(crate) Option<Defect>);

impl Harness for Model {
    type Store = ModelStore;
    type Place = ModelStore;
    const NAME: &'static str = "model";
    const GAPLESS: bool = true;
    const DURABLE: bool = false;

    async fn create(&self, limits: StoreLimits) -> Result<ModelStore, HarnessError> {
        let lineage = if self.0 == Some(Defect::OneIdentityForAll) {
            "00000000-0000-7000-8000-000000000000".parse()?
        } else {
            LineageId::generate()
        };
        let (state, signal) = (Mutex::default(), LogSignal::default());
        Ok(ModelStore { shared: Arc::new(Shared { defect: self.0, limits, lineage, state, signal }) })
    }

    async fn open(&self, place: &ModelStore) -> Result<ModelStore, HarnessError> {
        Ok(place.clone())
    }
}
