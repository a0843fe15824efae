//! A rebuild under way, and how far it has come.

use super::ManagerError;
use super::follower::Follower;
use super::status::ProjectionState;
use crate::{Backend, GlobalPosition, ProjectionName, ReadModelStore, ReadModelVersion};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a rebuild is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RebuildState {
    /// It was asked for, and begins as soon as whoever leads the projection notices.
    Waiting,
    /// It reads history, beside the read model that serves.
    Building,
    /// The new read model serves.
    Done,
    /// It failed for good, for this reason. The old read model goes on to serve.
    GivenUp(String),
}

/// How far a rebuild has come.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RebuildProgress {
    /// What it is doing.
    pub state: RebuildState,
    /// How far the new read model has come.
    pub position: Option<GlobalPosition>,
    /// The head of the log.
    pub head: Option<GlobalPosition>,
    /// How many positions it has come on per second since [`Rebuild::progress`] was called before, at first since the rebuild
    /// was asked for.
    pub rate: f64,
}

/// A rebuild that was asked for, by [`ProjectionManager::rebuild`](super::ProjectionManager::rebuild). Dropping it does not
/// end the rebuild.
pub struct Rebuild {
    follower: Arc<Follower>,
    log: Arc<dyn Backend>,
    way: Way,
    /// When it was looked at last, and how far it had come.
    seen: (Instant, u64),
}

/// How the read model of a projection is rebuilt.
pub(super) enum RebuildWay {
    /// By a value beside the one that serves.
    Value,
    /// By a version beside the one in force.
    Versions(Arc<dyn VersionStore>),
    /// Not beside anything: nobody but the projector knows where its effects are.
    None,
}

enum Way {
    Value,
    Versions { store: Arc<dyn VersionStore>, before: Option<ReadModelVersion> },
}

/// What is asked about versions, whatever the context of their pages.
pub(super) trait VersionStore: Backend + ReadModelStore {}

impl<T: Backend + ReadModelStore> VersionStore for T {}

impl Rebuild {
    /// How often [`done`](Self::done) looks.
    const LOOK: Duration = Duration::from_millis(50);

    /// Asks for a rebuild.
    pub(super) async fn begin(follower: &Arc<Follower>, log: Arc<dyn Backend>) -> Result<Self, ManagerError> {
        let way = match follower.runner.rebuild_way() {
            RebuildWay::None => return Err(ManagerError::CannotRebuild { name: follower.name.clone() }),
            RebuildWay::Value => {
                follower.rebuild()?;
                Way::Value
            }
            RebuildWay::Versions(store) => {
                let before = store.request_rebuild(&follower.name).await?.in_force;
                Way::Versions { store, before }
            }
        };
        Ok(Self { follower: Arc::clone(follower), log, way, seen: (Instant::now(), 0) })
    }

    /// The projection.
    #[must_use]
    pub fn name(&self) -> &ProjectionName {
        &self.follower.name
    }

    /// How far it has come. Asks the store.
    ///
    /// # Errors
    /// [`ManagerError::NotLive`] if the projections were shut down before it was done; a version in the store is gone on
    /// with when they are started again. Else what the store says.
    pub async fn progress(&mut self) -> Result<RebuildProgress, ManagerError> {
        let head = self.log.head().await?;
        let (state, position) = self.look().await?;
        let (at, before) = self.seen;
        let reached = position.map_or(before, GlobalPosition::get);
        let seconds = at.elapsed().as_secs_f64();
        let rate = if seconds > 0.0 { reached.saturating_sub(before) as f64 / seconds } else { 0.0 };
        self.seen = (Instant::now(), reached);
        Ok(RebuildProgress { state, position, head, rate })
    }

    /// Returns when the new read model serves. While the projection is paused, or nobody leads it, it waits.
    ///
    /// # Errors
    /// [`ManagerError::RebuildGivenUp`] if it fails for good, else as [`progress`](Self::progress).
    pub async fn done(&mut self) -> Result<(), ManagerError> {
        loop {
            match self.look().await?.0 {
                RebuildState::Done => return Ok(()),
                RebuildState::GivenUp(reason) => {
                    return Err(ManagerError::RebuildGivenUp { name: self.name().clone(), reason });
                }
                RebuildState::Waiting | RebuildState::Building => tokio::time::sleep(Self::LOOK).await,
            }
        }
    }

    async fn look(&self) -> Result<(RebuildState, Option<GlobalPosition>), ManagerError> {
        let (state, position) = match &self.way {
            Way::Value => {
                let progress = self.follower.progress();
                let state = if progress.has_been_live() { RebuildState::Done } else { RebuildState::Building };
                (state, progress.position())
            }
            Way::Versions { store, before } => {
                let model = store.read_model(self.name()).await?.unwrap_or_default();
                if model.in_force > *before {
                    let at = store.load_checkpoint(self.name()).await?.and_then(|checkpoint| checkpoint.cursor);
                    (RebuildState::Done, at.map(|cursor| cursor.position))
                } else if let Some(version) = model.building {
                    let name = version.checkpoint_name(self.name()).map_err(ManagerError::Name)?;
                    let at = store.load_checkpoint(&name).await?.and_then(|checkpoint| checkpoint.cursor);
                    (RebuildState::Building, at.map(|cursor| cursor.position))
                } else if model.requested {
                    (RebuildState::Waiting, None)
                } else {
                    (RebuildState::GivenUp(model.failure.unwrap_or_default()), None)
                }
            }
        };
        match (state, self.follower.state()) {
            (RebuildState::Waiting | RebuildState::Building, ProjectionState::Failed(error)) => {
                Ok((RebuildState::GivenUp(error.to_string()), position))
            }
            (RebuildState::Waiting | RebuildState::Building, ProjectionState::Stopped) => Err(ManagerError::NotLive),
            (state, _) => Ok((state, position)),
        }
    }
}
