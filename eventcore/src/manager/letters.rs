//! Dead letters of registered projections.

use super::{ManagerError, ProjectionManager, Replayed};
use crate::{Backend, DeadLetter, DeadLetterId, GlobalPosition, PageSize};

impl<B> ProjectionManager<B>
where
    B: Backend + Clone + 'static,
{
    /// The dead letters of a projection, by position; of those after `after` as many as `limit` allows.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if there is no projection of that name, else what the store says.
    pub async fn dead_letters(
        &self,
        name: &str,
        after: Option<GlobalPosition>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, ManagerError> {
        let handler = &self.follower(name)?.name;
        let after = after.map(|position| DeadLetterId { handler: handler.clone(), position });
        Ok(self.inner.backend.dead_letters(Some(handler), after.as_ref(), limit).await?)
    }

    /// Applies the event of a dead letter, and throws the letter away, as [`replay_dead_letter`](crate::replay_dead_letter)
    /// does, with a projector as it was registered. If the projection runs here, it stands still
    /// meanwhile, without being paused: who waits for a position waits for the end of the replay too, and pausing or resuming
    /// it counts from then on.
    ///
    /// # Errors
    /// [`ManagerError::ReplayFailed`] if the event fails again, [`ManagerError::NoSuchLetter`] or
    /// [`ManagerError::LetterAhead`] if there is nothing to replay, [`ManagerError::LedElsewhere`] if another instance runs
    /// the projection, [`ManagerError::Unknown`] if there is none of that name, else what the store says.
    pub async fn replay_dead_letter(&self, name: &str, position: GlobalPosition) -> Result<(), ManagerError> {
        self.replay(name, Some(position)).await.map(drop)
    }

    /// Applies the events of all dead letters of a projection, in the order of the log, each as by
    /// [`replay_dead_letter`](Self::replay_dead_letter). One that fails again is counted and stays a dead letter.
    ///
    /// # Errors
    /// As [`replay_dead_letter`](Self::replay_dead_letter), but for events that fail.
    pub async fn replay_dead_letters(&self, name: &str) -> Result<Replayed, ManagerError> {
        self.replay(name, None).await
    }

    /// Throws a dead letter away, and tells whether there was one. Its event is then left out for good.
    ///
    /// # Errors
    /// [`ManagerError::Unknown`] if there is no projection of that name, else what the store says.
    pub async fn discard_dead_letter(&self, name: &str, position: GlobalPosition) -> Result<bool, ManagerError> {
        let id = DeadLetterId { handler: self.follower(name)?.name.clone(), position };
        Ok(self.inner.backend.discard_dead_letter(&id).await?)
    }

    async fn replay(&self, name: &str, one: Option<GlobalPosition>) -> Result<Replayed, ManagerError> {
        let follower = self.follower(name)?;
        // One in memory has no leadership that is in the way.
        let _hold = if follower.runner.stops_when_paused() { Some(follower.hold().await) } else { None };
        follower.runner.replay(&follower.name, one).await
    }
}
