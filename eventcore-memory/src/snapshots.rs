//! Snapshots of command state.

use eventcore::{Snapshot, SnapshotKey, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The last snapshot of every key.
#[derive(Default)]
pub(crate) struct Snapshots(Mutex<HashMap<SnapshotKey, Snapshot>>);

impl Snapshots {
    pub(crate) fn load(&self, key: &SnapshotKey) -> Option<Snapshot> {
        self.lock().get(key).cloned()
    }

    pub(crate) fn save(&self, snapshot: &Snapshot) {
        let snapshot = Snapshot { taken_at: Timestamp::now(), ..snapshot.clone() };
        self.lock().insert(snapshot.key.clone(), snapshot);
    }

    pub(crate) fn delete(&self, key: &SnapshotKey) {
        self.lock().remove(key);
    }

    pub(crate) fn prune(&self, older_than: Timestamp) -> u64 {
        let mut all = self.lock();
        let before = all.len();
        all.retain(|_, snapshot| snapshot.taken_at >= older_than);
        (before - all.len()) as u64
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SnapshotKey, Snapshot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
