//! Snapshots, rightly and wrongly.

use super::{Defect, ModelStore};
use async_trait::async_trait;
use eventcore::{EventStoreError, Snapshot, SnapshotKey, SnapshotStore, Timestamp};

#[async_trait]
impl SnapshotStore for ModelStore {
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        let state = self.open()?;
        if self.has(Defect::SnapshotKeysIgnoreCase) {
            let alike = |found: &&Snapshot| found.key.as_str().eq_ignore_ascii_case(key.as_str());
            return Ok(state.snapshots.values().find(alike).cloned());
        }
        Ok(state.snapshots.get(key).cloned())
    }

    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError> {
        let mut kept = Snapshot { taken_at: Timestamp::now(), ..snapshot.clone() };
        if self.has(Defect::SnapshotTimeOfTheCaller) {
            kept.taken_at = snapshot.taken_at;
        }
        if self.has(Defect::SnapshotStreamsCutOff) {
            kept.streams.truncate(1);
        }
        if self.has(Defect::SnapshotSavedInTwoSteps) {
            let stale = self.open()?.snapshots.get(&kept.key).map(|old| old.payload.clone());
            let half = Snapshot { payload: stale.unwrap_or_else(|| kept.payload.clone()), ..kept.clone() };
            self.open()?.snapshots.insert(kept.key.clone(), half);
            tokio::task::yield_now().await;
            if let Some(half) = self.open()?.snapshots.get_mut(&kept.key) {
                half.payload = kept.payload;
            }
            return Ok(());
        }
        let mut state = self.open()?;
        if let Some(old) = state.snapshots.get(&kept.key) {
            if self.has(Defect::SnapshotsNeverGoBack) && old.position > kept.position {
                return Ok(());
            }
            if self.has(Defect::StaleSnapshotPayload) {
                kept.payload = old.payload.clone();
            }
        }
        state.snapshots.insert(kept.key.clone(), kept);
        Ok(())
    }

    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError> {
        let mut state = self.open()?;
        if self.has(Defect::DeletesAllSnapshots) {
            state.snapshots.clear();
        }
        state.snapshots.remove(key);
        Ok(())
    }

    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError> {
        let mut state = self.open()?;
        let before = state.snapshots.len();
        let one_too_many = self.has(Defect::PrunesOneSnapshotTooMany);
        state.snapshots.retain(|_, s| s.taken_at > older_than || (s.taken_at == older_than && !one_too_many));
        Ok((before - state.snapshots.len()) as u64)
    }
}
