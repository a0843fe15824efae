//! What can go wrong with a manager.

use crate::{CheckpointError, EventStoreError, ProjectionName, SharedError, ValidationError};
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
