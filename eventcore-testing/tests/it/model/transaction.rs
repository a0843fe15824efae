//! A context whose effects are committed with the checkpoint, rightly and wrongly.

use super::{Defect, ModelStore};
use async_trait::async_trait;
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, DeadLetter, DeadLetterId, DeadLetterStore, Epoch, ProjectionContext,
    ProjectionName, UnitOfWork,
};
use eventcore_testing::{HarnessError, TransactionalHarness};

/// Writes that wait for the commit.
pub(crate) struct ModelTransaction {
    store: ModelStore,
    pub(super) writes: Vec<(String, i64)>,
    /// Letters parked, and letters thrown away.
    pub(super) parked: Vec<DeadLetter>,
    pub(super) unparked: Vec<DeadLetterId>,
}

impl ProjectionContext for ModelTransaction {
    const DURABLE: bool = true;
    const TRANSACTIONAL: bool = true;
}

impl ModelTransaction {
    fn add(&mut self, key: &str, amount: i64) {
        if self.store.has(Defect::EffectsAtOnce) {
            *self.store.state().values.entry(key.to_owned()).or_default() += amount;
        } else {
            self.writes.push((key.to_owned(), amount));
        }
    }
}

#[async_trait]
impl UnitOfWork<ModelTransaction> for ModelStore {
    async fn resume(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError> {
        self.load_checkpoint(name).await
    }

    async fn begin(&self, name: &ProjectionName, epoch: Epoch) -> Result<ModelTransaction, CheckpointError> {
        tokio::task::consume_budget().await;
        let current = self.open()?.followers.get(name).map_or(Epoch::NONE, |follower| follower.epoch);
        let open_to_all = self.has(Defect::FencingIgnored)
            || self.has(Defect::EffectsInSpiteOfFencing)
            || self.has(Defect::LettersInSpiteOfFencing)
            || self.has(Defect::ChangesUnfenced);
        if epoch != current && !open_to_all {
            return Err(CheckpointError::Fenced { name: name.clone(), epoch, current });
        }
        Ok(ModelTransaction { store: self.clone(), writes: Vec::new(), parked: Vec::new(), unparked: Vec::new() })
    }

    async fn commit(
        &self,
        page: ModelTransaction,
        checkpoint: &Checkpoint,
        epoch: Epoch,
    ) -> Result<(), CheckpointError> {
        let mut state = self.open()?;
        let mut follower = state.followers.remove(&checkpoint.name).unwrap_or_default();
        let fenced = self.fence(&mut follower, checkpoint, epoch);
        if fenced.is_ok() && !self.has(Defect::CheckpointForgotten) {
            self.keep(&mut follower, checkpoint);
        }
        state.followers.insert(checkpoint.name.clone(), follower);
        if fenced.is_ok() || self.has(Defect::EffectsInSpiteOfFencing) {
            for (key, amount) in page.writes {
                *state.values.entry(key).or_default() += amount;
            }
        }
        if fenced.is_ok() || self.has(Defect::LettersInSpiteOfFencing) {
            page.parked.iter().for_each(|letter| self.park(&mut state.letters, letter));
            if !self.has(Defect::UnparksInName) {
                page.unparked.iter().for_each(|id| drop(state.letters.remove(id)));
            }
        }
        fenced
    }

    async fn rollback(&self, page: ModelTransaction) -> Result<(), CheckpointError> {
        let mut state = self.open()?;
        if self.has(Defect::RollbackCommits) {
            for (key, amount) in page.writes {
                *state.values.entry(key).or_default() += amount;
            }
        }
        if self.has(Defect::RollbackParks) {
            page.parked.iter().for_each(|letter| self.park(&mut state.letters, letter));
        }
        Ok(())
    }

    async fn park(&self, page: &mut ModelTransaction, letter: &DeadLetter, _: Epoch) -> Result<(), CheckpointError> {
        if self.has(Defect::ParksAtOnce) {
            return self.park_dead_letter(letter, None).await;
        }
        page.parked.push(letter.clone());
        Ok(())
    }

    async fn unpark(&self, page: &mut ModelTransaction, id: &DeadLetterId) -> Result<bool, CheckpointError> {
        if self.has(Defect::UnparksAtOnce) {
            return Ok(self.discard_dead_letter(id).await?);
        }
        page.unparked.push(id.clone());
        Ok(self.open()?.letters.contains_key(id))
    }
}

impl TransactionalHarness for super::Model {
    type Context = ModelTransaction;

    async fn add(&self, context: &mut ModelTransaction, key: &str, amount: i64) -> Result<(), HarnessError> {
        context.add(key, amount);
        Ok(())
    }

    async fn value(&self, store: &ModelStore, key: &str) -> Result<Option<i64>, HarnessError> {
        Ok(store.state().values.get(key).copied())
    }
}
