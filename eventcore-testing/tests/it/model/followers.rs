//! Checkpoints and leadership, rightly and wrongly.

use super::{Defect, Follower, ModelStore};
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, Epoch, Leadership, LeadershipError, ProjectionName,
    ProjectorCoordinator, Timestamp,
};
use tokio_util::sync::CancellationToken;

#[async_trait]
impl CheckpointStore for ModelStore {
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        Ok(self.open()?.followers.get(name).and_then(|follower| follower.checkpoint.clone()))
    }

    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        if self.has(Defect::FencedInAStepOfItsOwn) {
            self.fence(&mut *self.open()?.followers.entry(checkpoint.name.clone()).or_default(), checkpoint, epoch)?;
            tokio::task::yield_now().await;
            self.keep(&mut *self.open()?.followers.entry(checkpoint.name.clone()).or_default(), checkpoint);
            return Ok(());
        }
        let mut state = self.open()?;
        let follower = state.followers.entry(checkpoint.name.clone()).or_default();
        self.fence(follower, checkpoint, epoch)?;
        self.keep(follower, checkpoint);
        Ok(())
    }

    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        let mut state = self.open()?;
        let follower = state.followers.entry(name.clone()).or_default();
        if epoch != follower.epoch {
            return Err(CheckpointError::Fenced { name: name.clone(), epoch, current: follower.epoch });
        }
        if !self.has(Defect::ResetForgetsNothing) {
            follower.checkpoint = None;
        }
        if self.has(Defect::ResetForgetsTheEpoch) {
            follower.epoch = Epoch::NONE;
        }
        Ok(())
    }

    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError> {
        let mut all: Vec<_> = self.open()?.followers.values().filter_map(|f| f.checkpoint.clone()).collect();
        if self.has(Defect::ListedInAnyOrder) {
            all.reverse();
        }
        Ok(all)
    }
}

impl ModelStore {
    pub(super) fn fence(
        &self,
        follower: &mut Follower,
        checkpoint: &Checkpoint,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let in_force = match self.shared.defect {
            Some(Defect::FencingIgnored) => true,
            Some(Defect::FencesOnlyOlderEpochs) => epoch >= follower.epoch,
            _ => epoch == follower.epoch,
        };
        if in_force {
            return Ok(());
        }
        Err(CheckpointError::Fenced { name: checkpoint.name.clone(), epoch, current: follower.epoch })
    }

    pub(super) fn keep(&self, follower: &mut Follower, checkpoint: &Checkpoint) {
        let mut kept = checkpoint.clone();
        if !self.has(Defect::TimeOfTheCaller) {
            kept.updated_at = Timestamp::now();
        }
        if self.has(Defect::LineageOfTheStore) {
            kept.lineage = self.shared.lineage;
        }
        if self.has(Defect::CheckpointsNeverGoBack)
            && follower
                .checkpoint
                .as_ref()
                .is_some_and(|old| old.cursor.map(|c| c.position) > kept.cursor.map(|c| c.position))
        {
            return;
        }
        follower.checkpoint = Some(kept);
    }
}

#[async_trait]
impl ProjectorCoordinator for ModelStore {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        let mut state = self.open()?;
        let follower = state.followers.entry(name.clone()).or_default();
        if follower.led && !self.has(Defect::EverybodyLeads) {
            return Err(LeadershipError::Busy { name: name.clone() });
        }
        follower.led = true;
        if !(self.has(Defect::EpochStands) && follower.epoch > Epoch::NONE) {
            follower.epoch = follower.epoch.next();
        }
        let epoch = follower.epoch;
        let guard = Leading { store: self.clone(), name: name.clone() };
        Ok(Leadership::new(name.clone(), epoch, CancellationToken::new(), guard))
    }

    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        if self.has(Defect::ReleaseDoesNothing) {
            std::mem::forget(leadership);
        }
        Ok(())
    }
}

struct Leading {
    store: ModelStore,
    name: ProjectionName,
}

impl Drop for Leading {
    fn drop(&mut self) {
        if self.store.has(Defect::DropDoesNotRelease) && !self.store.state().closed {
            return;
        }
        if let Some(follower) = self.store.state().followers.get_mut(&self.name) {
            follower.led = false;
        }
    }
}
