//! What can go wrong with a manager.

use crate::{EventStoreError, ProjectionName, SharedError, ValidationError};
use thiserror::Error;

/// An error of a [`ProjectionManager`](super::ProjectionManager).
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// A projector's name is no valid name.
    #[error("the projector's name is refused")]
    Name(#[source] ValidationError),
    /// Two projectors have one name.
    #[error("projection {name} is registered twice")]
    Duplicate {
        /// The name.
        name: ProjectionName,
    },
    /// No projector of this name or type was registered.
    #[error("no projection {what} is registered")]
    Unknown {
        /// Its name, or the name of its type.
        what: String,
    },
    /// The projections run already. Shut them down first.
    #[error("the projections are live already; shut them down before they are started again")]
    AlreadyLive,
    /// The projections do not run.
    #[error("the projections are not live")]
    NotLive,
    /// A projection ended for good.
    #[error("projection {name} failed")]
    Failed {
        /// The projection.
        name: ProjectionName,
        /// The error it ended with.
        #[source]
        source: SharedError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}
