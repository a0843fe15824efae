//! Dead letters, rightly and wrongly.

use super::{Defect, ModelStore};
use async_trait::async_trait;
use eventcore::{
    CheckpointError, DeadLetter, DeadLetterId, DeadLetterStore, Epoch, EventStoreError, GlobalPosition, PageSize,
    ProjectionName, Timestamp,
};
use std::collections::BTreeMap;

impl ModelStore {
    pub(super) fn park(&self, letters: &mut BTreeMap<DeadLetterId, DeadLetter>, letter: &DeadLetter) {
        if self.has(Defect::ParksNothing)
            || (self.has(Defect::LettersNeverReplaced) && letters.contains_key(&letter.id))
        {
            return;
        }
        let mut letter = letter.clone();
        if !self.has(Defect::TimeOfTheCaller) {
            letter.parked_at = Timestamp::now();
        }
        if self.has(Defect::CausesLost) {
            letter.errors.truncate(1);
        }
        letters.insert(letter.id.clone(), letter);
    }

    fn fence_letter(&self, handler: &ProjectionName, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        let current = self.open()?.followers.get(handler).map_or(Epoch::NONE, |follower| follower.epoch);
        match epoch {
            Some(epoch) if epoch != current && !self.has(Defect::ParksInSpiteOfFencing) => {
                Err(CheckpointError::Fenced { name: handler.clone(), epoch, current })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl DeadLetterStore for ModelStore {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        self.fence_letter(&letter.id.handler, epoch)?;
        self.park(&mut self.open()?.letters, letter);
        Ok(())
    }

    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        let state = self.open()?;
        let mut letters: Vec<_> = state.letters.values().collect();
        if self.has(Defect::LettersByPosition) {
            letters.sort_by_key(|letter| letter.id.position);
        }
        let behind = |id: &DeadLetterId| match after {
            Some(after) if self.has(Defect::LetterPagesOverlap) => id >= after,
            after => Some(id) > after,
        };
        let wanted = letters
            .into_iter()
            .filter(|letter| behind(&letter.id) && handler.is_none_or(|handler| *handler == letter.id.handler));
        Ok(wanted.take(limit.get()).cloned().collect())
    }

    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        Ok(self.open()?.letters.get(id).cloned())
    }

    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        let letters = &mut self.open()?.letters;
        let there = letters.contains_key(id);
        if self.has(Defect::DiscardsTheWholeHandler) {
            letters.retain(|other, _| other.handler != id.handler);
        }
        letters.remove(id);
        Ok(there)
    }

    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        self.fence_letter(handler, epoch)?;
        let letters = &mut self.open()?.letters;
        let before = letters.len();
        letters.retain(|id, _| {
            let stays = if self.has(Defect::DiscardsTheLastToo) {
                Some(id.position) < after
            } else {
                Some(id.position) <= after
            };
            id.handler != *handler || stays
        });
        Ok((before - letters.len()) as u64)
    }
}
