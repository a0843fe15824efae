//! What can go wrong with a manager.

use crate::{
    CheckpointError, DeadLetterId, EventStoreError, LeadershipError, ProjectionError, ProjectionName, ReplayError,
    SharedError, ValidationError,
};
use std::error::Error as StdError;
use thiserror::Error;

/// An error of a [`ProjectionManager`](super::ProjectionManager).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// A projector's name is no valid name.
    #[error("the projector's name is refused")]
    Name(#[source] ValidationError),
    /// A projector of this name, or of the same type under another name, is registered already. A type that is to run under
    /// several names is wrapped in one type for each.
    #[error("projection {name} cannot be added: its name or the type of its projector is registered already")]
    Duplicate {
        /// The name of the second one.
        name: ProjectionName,
    },
    /// No projector of this name or type was registered.
    #[error("no projection {what} is registered with this manager")]
    Unknown {
        /// Its name, or the name of its type.
        what: String,
    },
    /// The projections run already. Shut them down first.
    #[error("the projections are live already; shut them down before they are started again")]
    AlreadyLive,
    /// The projection is paused, so it does not come to what was waited for.
    #[error("projection {name} is paused and goes no further; resume it first")]
    Paused {
        /// The projection.
        name: ProjectionName,
    },
    /// The read model is spread over several projectors.
    #[error("projection {name} is split over partitions; its read model is the sum of `ProjectionManager::parts`")]
    Partitioned {
        /// The projection.
        name: ProjectionName,
    },
    /// Another instance leads the projection. Ask there, or once it has stopped.
    #[error("projection {name} is led by another instance; ask there, or stop it there first")]
    LedElsewhere {
        /// The projection.
        name: ProjectionName,
    },
    /// There is no such dead letter, or it was discarded meanwhile.
    #[error("there is no dead letter {id}")]
    NoSuchLetter {
        /// The letter asked for.
        id: DeadLetterId,
    },
    /// The projection has still to come to the event of the letter, as after a reset; one whose read model is in memory
    /// always has, as it starts at the beginning.
    #[error("dead letter {id} is ahead of its projection's checkpoint: the event comes again when the projection runs")]
    LetterAhead {
        /// The letter.
        id: DeadLetterId,
    },
    /// The event of a dead letter failed again, and its letter tells so.
    #[error("the event of a dead letter of projection {name} failed again")]
    ReplayFailed {
        /// The projection.
        name: ProjectionName,
        /// Why not.
        #[source]
        source: SharedError,
    },
    /// The projections do not run. [`start_live`](super::ProjectionManager::start_live) starts them.
    #[error("the projections are not live; start them first")]
    NotLive,
    /// What the projection writes to has no versions, so only the projector knows where it is. A read model in the store's
    /// transaction gets them by [`register_versioned`](super::ProjectionManagerBuilder::register_versioned). To begin again
    /// with effects elsewhere, stop the projection, empty that place, and call
    /// [`reset_projection`](crate::reset_projection).
    #[error(
        "projection {name} writes to what has no versions and cannot be rebuilt side by side; register it as a versioned \
         one, or stop it, empty what it writes to, and reset it"
    )]
    CannotRebuild {
        /// The projection.
        name: ProjectionName,
    },
    /// A rebuild failed for good. The old read model goes on to serve.
    #[error("the rebuild of {name} was given up: {reason}")]
    RebuildGivenUp {
        /// The projection.
        name: ProjectionName,
        /// The reason.
        reason: String,
    },
    /// A projection ended for good.
    #[error("projection {name} failed")]
    Failed {
        /// The projection.
        name: ProjectionName,
        /// The error it ended with.
        #[source]
        source: SharedError,
    },
    /// What is stored about a projection cannot be used.
    #[error(transparent)]
    Checkpoint(CheckpointError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

impl From<CheckpointError> for ManagerError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Store(error) => Self::Store(error),
            other => Self::Checkpoint(other),
        }
    }
}

impl ManagerError {
    pub(super) fn replay<E: StdError + Send + Sync + 'static>(name: &ProjectionName, error: ReplayError<E>) -> Self {
        let name = name.clone();
        match error {
            ReplayError::NoSuchLetter { id } => Self::NoSuchLetter { id },
            ReplayError::Ahead { id } => Self::LetterAhead { id },
            ReplayError::Projection(ProjectionError::Leadership(LeadershipError::Busy { .. })) => {
                Self::LedElsewhere { name }
            }
            ReplayError::Projection(ProjectionError::Store(error)) => Self::Store(error),
            ReplayError::Projection(ProjectionError::Checkpoint(error)) => Self::Checkpoint(error),
            ReplayError::Projection(error @ (ProjectionError::Apply { .. } | ProjectionError::Decode { .. })) => {
                Self::ReplayFailed { name, source: SharedError::new(error) }
            }
            ReplayError::Projection(error) => Self::Failed { name, source: SharedError::new(error) },
        }
    }
}
