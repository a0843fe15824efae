//! How far a follower of the log has come, and the port that remembers it.

use super::{Epoch, EventStoreError, ReadModel, VersionChange};
use crate::validation::name_type;
use crate::{EventId, EventType, GlobalPosition, Timestamp, ValidationError};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;
use uuid::Uuid;

name_type! {
    /// The name of a projection or another follower. Its checkpoint and its leadership go by it.
    ProjectionName, check_projection_name
}

/// The identity of one log, made when the store is created. A checkpoint of another log is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LineageId(Uuid);

impl LineageId {
    /// A new identity. Only adapters call it, when they create a store.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The identity as stored.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The identity for storing.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for LineageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::str::FromStr for LineageId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self).map_err(|_| {
            let problem = crate::Problem::Malformed { text: text.to_owned(), expected: "a UUID" };
            ValidationError::new("LineageId", problem)
        })
    }
}

/// A place in the log: a position and the event that stands there, so that another history is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogCursor {
    /// The position.
    pub position: GlobalPosition,
    /// The event at this position.
    pub event_id: EventId,
}

/// What a checkpoint remembers of its follower's filter, so that it is not used with another one.
///
/// Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterIdentity {
    /// A digest of the stream selection and of explicitly chosen types.
    pub selection: Uuid,
    /// The types that were wanted because the follower's event type reads them; this set may grow.
    pub default_types: BTreeSet<EventType>,
}

/// How far a follower has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The follower.
    pub name: ProjectionName,
    /// The last event examined; `None` before the first one.
    pub cursor: Option<LogCursor>,
    /// The filter that was in force.
    pub filter: FilterIdentity,
    /// The log it was reached in.
    pub lineage: LineageId,
    /// When it was saved. Set by the store; what a caller puts here is not kept.
    pub updated_at: Timestamp,
}

/// An error about a checkpoint.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Another instance leads by now; nothing was saved.
    #[error("projection {name}: epoch {epoch} was replaced by {current}; another instance leads")]
    Fenced {
        /// The projection.
        name: ProjectionName,
        /// The epoch of the caller.
        epoch: Epoch,
        /// The epoch in force.
        current: Epoch,
    },
    /// A stored checkpoint cannot be understood.
    #[error("the checkpoint of {name} is damaged: {what}; reset it to begin again")]
    Corrupt {
        /// The projection.
        name: ProjectionName,
        /// What is wrong with it.
        what: String,
    },
    /// A read model's versions cannot be changed so; nothing was changed.
    #[error("read model {name}: {change} does not fit what stands: {found}")]
    VersionChange {
        /// The projection.
        name: ProjectionName,
        /// The change.
        change: String,
        /// What stands instead.
        found: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

impl CheckpointError {
    /// The error for a change that does not fit.
    pub fn version_change(name: &ProjectionName, change: &VersionChange, found: &ReadModel) -> Self {
        Self::VersionChange { name: name.clone(), change: format!("{change:?}"), found: format!("{found:?}") }
    }
}

/// The port that remembers checkpoints, fenced by the epoch of their leader.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// The checkpoint of a follower; `None` if it never saved one.
    ///
    /// # Errors
    /// [`CheckpointError::Corrupt`] if what is stored cannot be understood, else what the store says.
    async fn load_checkpoint(&self, name: &ProjectionName) -> Result<Option<Checkpoint>, CheckpointError>;

    /// Saves a checkpoint if `epoch` is still in force for its follower: the one that
    /// [`acquire`](super::ProjectorCoordinator::acquire) gave out last, or 0 if it never gave out one.
    ///
    /// The epoch is checked and the checkpoint is saved in one atomic step, and is durable when this returns.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] if another leader took over, else what the store says.
    async fn save_checkpoint(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<(), CheckpointError>;

    /// Forgets the checkpoint, so that the follower begins again. Its epoch stays.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] as for saving, else what the store says.
    async fn reset_checkpoint(&self, name: &ProjectionName, epoch: Epoch) -> Result<(), CheckpointError>;

    /// All checkpoints, by name. Damaged ones are errors.
    ///
    /// # Errors
    /// What the store says.
    async fn list_checkpoints(&self) -> Result<Vec<Checkpoint>, CheckpointError>;
}
