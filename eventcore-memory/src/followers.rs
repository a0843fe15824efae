//! What is remembered of the log's followers: checkpoints, epochs, who leads, and what they failed on.

use eventcore::{
    Checkpoint, CheckpointError, DeadLetter, DeadLetterId, Epoch, GlobalPosition, Leadership, LeadershipError,
    PageSize, ProjectionName, Timestamp,
};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
pub(crate) struct Followers(Arc<Mutex<Remembered>>);

/// Under one lock, since a letter is only kept for the epoch in force.
#[derive(Default)]
struct Remembered {
    followers: BTreeMap<ProjectionName, Follower>,
    letters: BTreeMap<DeadLetterId, DeadLetter>,
}

#[derive(Default)]
struct Follower {
    checkpoint: Option<Checkpoint>,
    /// The epoch given out last.
    epoch: Epoch,
    led: bool,
}

impl Followers {
    pub(crate) fn load(&self, name: &ProjectionName) -> Option<Checkpoint> {
        self.lock().followers.get(name)?.checkpoint.clone()
    }

    pub(crate) fn list(&self) -> Vec<Checkpoint> {
        self.lock().followers.values().filter_map(|follower| follower.checkpoint.clone()).collect()
    }

    pub(crate) fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint { updated_at: Timestamp::now(), ..checkpoint.clone() };
        let mut remembered = self.lock();
        let follower = remembered.followers.entry(checkpoint.name.clone()).or_default();
        follower.fence(&checkpoint.name, epoch)?;
        follower.checkpoint = Some(checkpoint);
        Ok(())
    }

    pub(crate) fn reset(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        let mut remembered = self.lock();
        let follower = remembered.followers.entry(name.clone()).or_default();
        follower.fence(name, epoch)?;
        follower.checkpoint = None;
        Ok(())
    }

    pub(crate) fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        let mut remembered = self.lock();
        let follower = remembered.followers.entry(name.clone()).or_default();
        if follower.led {
            return Err(LeadershipError::Busy { name: name.clone() });
        }
        follower.led = true;
        follower.epoch = follower.epoch.next();
        let guard = Leading { followers: self.clone(), name: name.clone() };
        // Nobody can take this leadership away: another one begins only after its guard is gone.
        Ok(Leadership::new(name.clone(), follower.epoch, CancellationToken::new(), guard))
    }

    pub(crate) fn park(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        let letter = DeadLetter { parked_at: Timestamp::now(), ..letter.clone() };
        let mut remembered = self.lock();
        remembered.fence(&letter.id.handler, epoch)?;
        remembered.letters.insert(letter.id.clone(), letter);
        Ok(())
    }

    pub(crate) fn letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Vec<DeadLetter> {
        let remembered = self.lock();
        let letters = remembered.letters.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let wanted = letters.filter(|(id, _)| handler.is_none_or(|handler| *handler == id.handler));
        wanted.take(limit.get()).map(|(_, letter)| letter.clone()).collect()
    }

    pub(crate) fn letter(&self, id: &DeadLetterId) -> Option<DeadLetter> {
        self.lock().letters.get(id).cloned()
    }

    pub(crate) fn discard(&self, id: &DeadLetterId) -> bool {
        self.lock().letters.remove(id).is_some()
    }

    pub(crate) fn discard_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        let mut remembered = self.lock();
        remembered.fence(handler, epoch)?;
        let before = remembered.letters.len();
        remembered.letters.retain(|id, _| id.handler != *handler || Some(id.position) <= after);
        Ok((before - remembered.letters.len()) as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn fence(&mut self, name: &ProjectionName, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        match epoch {
            Some(epoch) => self.followers.entry(name.clone()).or_default().fence(name, epoch),
            None => Ok(()),
        }
    }
}

impl Follower {
    fn fence(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        if epoch == self.epoch {
            return Ok(());
        }
        Err(CheckpointError::Fenced { name: name.clone(), epoch, current: self.epoch })
    }
}

/// Ends the leadership when it is dropped.
struct Leading {
    followers: Followers,
    name: ProjectionName,
}

impl Drop for Leading {
    fn drop(&mut self) {
        if let Some(follower) = self.followers.lock().followers.get_mut(&self.name) {
            follower.led = false;
        }
    }
}
