//! Versions of read models, rightly and wrongly.

use super::transaction::ModelTransaction;
use super::{Defect, ModelStore, State};
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, Epoch, ProjectionName, ReadModel, ReadModelStore, ReadModelVersion, VersionChange,
    VersionedUnitOfWork,
};

impl ModelStore {
    fn leads(&self, state: &State, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        let current = state.followers.get(name).map_or(Epoch::NONE, |follower| follower.epoch);
        if epoch == current || self.has(Defect::FencingIgnored) {
            return Ok(());
        }
        Err(CheckpointError::Fenced { name: name.clone(), epoch, current })
    }
}

fn write(state: &mut State, page: ModelTransaction) {
    for letter in page.parked {
        state.letters.insert(letter.id.clone(), letter);
    }
    for (key, amount) in page.writes {
        *state.values.entry(key).or_default() += amount;
    }
}

#[async_trait]
impl ReadModelStore for ModelStore {
    async fn read_model(&self, name: &ProjectionName) -> Result<Option<ReadModel>, CheckpointError> {
        tokio::task::consume_budget().await;
        Ok(self.open()?.read_models.get(name).cloned())
    }

    async fn request_rebuild(&self, name: &ProjectionName) -> Result<ReadModel, CheckpointError> {
        let mut state = self.open()?;
        let model = state.read_models.entry(name.clone()).or_default();
        let mut answer = model.clone();
        answer.requested = model.building.is_none() || self.has(Defect::RequestBesideARebuild);
        if !self.has(Defect::RequestForgotten) {
            *model = answer.clone();
        }
        Ok(answer)
    }
}

#[async_trait]
impl VersionedUnitOfWork<ModelTransaction> for ModelStore {
    async fn commit_version(
        &self,
        page: ModelTransaction,
        checkpoint: &Checkpoint,
        leader: &ProjectionName,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let mut state = self.open()?;
        self.leads(&state, leader, epoch)?;
        let name = if self.has(Defect::VersionMovesTheProjection) { leader } else { &checkpoint.name };
        let follower = state.followers.entry(name.clone()).or_default();
        self.keep(follower, &Checkpoint { name: name.clone(), ..checkpoint.clone() });
        write(&mut state, page);
        Ok(())
    }

    async fn commit_change(
        &self,
        page: ModelTransaction,
        name: &ProjectionName,
        change: &VersionChange,
        epoch: Epoch,
    ) -> Result<ReadModel, CheckpointError> {
        let mut state = self.open()?;
        if !self.has(Defect::ChangesUnfenced) {
            self.leads(&state, name, epoch)?;
        }
        let stands = state.read_models.get(name).cloned().unwrap_or_default();
        let Some(mut next) = stands.after(change) else {
            if self.has(Defect::EffectsOfUnfitChanges) {
                write(&mut state, page);
            }
            return Err(CheckpointError::version_change(name, change, &stands));
        };
        if self.has(Defect::RequestOutlivesItsRebuild) {
            next.requested = stands.requested;
        }
        let of = |version: Option<ReadModelVersion>| version.and_then(|version| version.checkpoint_name(name).ok());
        let forgotten = match change {
            VersionChange::Begin => of(next.building),
            VersionChange::Forget if !self.has(Defect::ForgottenVersionKeepsItsCheckpoint) => of(stands.retired),
            VersionChange::Swap => of(stands.building),
            _ => None,
        };
        if let Some(version) = &forgotten {
            let letters = std::mem::take(&mut state.letters);
            let swap = *change == VersionChange::Swap && !self.has(Defect::SwapLeavesTheLetters);
            let kept = letters.into_iter().filter_map(|(mut id, mut letter)| match id.handler == *version {
                false => (!swap || id.handler != *name).then_some((id, letter)),
                true if swap => {
                    id.handler = name.clone();
                    letter.id = id.clone();
                    Some((id, letter))
                }
                true => None,
            });
            state.letters = kept.collect();
        }
        let mut of_version =
            forgotten.and_then(|name| state.followers.get_mut(&name)).and_then(|follower| match change {
                VersionChange::Swap if self.has(Defect::SwapKeepsTheVersionsCheckpoint) => follower.checkpoint.clone(),
                _ => follower.checkpoint.take(),
            });
        if *change == VersionChange::Swap && !self.has(Defect::SwapKeepsTheOldCheckpoint) {
            if let Some(checkpoint) = &mut of_version {
                checkpoint.name = name.clone();
            }
            state.followers.entry(name.clone()).or_default().checkpoint = of_version;
        }
        state.read_models.insert(name.clone(), next.clone());
        if !(self.has(Defect::SwapWithoutEffects) && *change == VersionChange::Swap) {
            write(&mut state, page);
        }
        Ok(next)
    }
}
