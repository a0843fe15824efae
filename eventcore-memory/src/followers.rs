//! What is remembered of the log's followers: checkpoints, epochs, and who leads.

use eventcore::{Checkpoint, CheckpointError, Epoch, Leadership, LeadershipError, ProjectionName, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
pub(crate) struct Followers(Arc<Mutex<BTreeMap<ProjectionName, Follower>>>);

#[derive(Default)]
struct Follower {
    checkpoint: Option<Checkpoint>,
    /// The epoch given out last.
    epoch: Epoch,
    led: bool,
}

impl Followers {
    pub(crate) fn load(&self, name: &ProjectionName) -> Option<Checkpoint> {
        self.lock().get(name)?.checkpoint.clone()
    }

    pub(crate) fn list(&self) -> Vec<Checkpoint> {
        self.lock().values().filter_map(|follower| follower.checkpoint.clone()).collect()
    }

    pub(crate) fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint { updated_at: Timestamp::now(), ..checkpoint.clone() };
        let mut followers = self.lock();
        let follower = followers.entry(checkpoint.name.clone()).or_default();
        follower.fence(&checkpoint.name, epoch)?;
        follower.checkpoint = Some(checkpoint);
        Ok(())
    }

    pub(crate) fn reset(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError> {
        let mut followers = self.lock();
        let follower = followers.entry(name.clone()).or_default();
        follower.fence(name, epoch)?;
        follower.checkpoint = None;
        Ok(())
    }

    pub(crate) fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        let mut followers = self.lock();
        let follower = followers.entry(name.clone()).or_default();
        if follower.led {
            return Err(LeadershipError::Busy { name: name.clone() });
        }
        follower.led = true;
        follower.epoch = follower.epoch.next();
        let guard = Leading { followers: self.clone(), name: name.clone() };
        // Nobody can take this leadership away: another one begins only after its guard is gone.
        Ok(Leadership::new(name.clone(), follower.epoch, CancellationToken::new(), guard))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProjectionName, Follower>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(follower) = self.followers.lock().get_mut(&self.name) {
            follower.led = false;
        }
    }
}
