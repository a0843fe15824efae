//! Snapshots of command state, and the port that stores them.

use super::EventStoreError;
use crate::validation::name_type;
use crate::{EventId, GlobalPosition, StreamId, StreamVersion, Timestamp};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

name_type! {
    /// What a snapshot is of: a type of state and the streams it is folded from.
    /// [`SnapshotKey::of_command`] makes the one that an executor uses.
    SnapshotKey, check_snapshot_key
}

/// A digest of what the bytes of a snapshot mean. Bytes of another one are not decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SnapshotSchema(Uuid);

impl SnapshotSchema {
    /// The digest as stored.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The digest for storing.
    #[must_use]
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }
}

impl fmt::Display for SnapshotSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far one stream is folded into a state.
///
/// Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FoldedStream {
    /// The stream.
    pub stream_id: StreamId,
    /// The version of its last event that is folded; 0 if there is none.
    pub version: StreamVersion,
    /// That event, by which a log with another history is noticed; `None` if there is none.
    pub event_id: Option<EventId>,
}

/// The state of commands as of some moment, as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What it is of.
    pub key: SnapshotKey,
    /// What the payload means.
    pub schema: SnapshotSchema,
    /// Every stream folded into it, and how far.
    pub streams: Vec<FoldedStream>,
    /// The highest position folded into it.
    pub position: GlobalPosition,
    /// The state, as the executor encodes it.
    pub payload: Bytes,
    /// When it was saved. Set by the store; what a caller puts here is not kept.
    pub taken_at: Timestamp,
}

/// The port that stores snapshots: one per key, the last one saved.
///
/// Nothing depends on a snapshot but speed, so one may be lost, deleted or out of date. But one that is there is whole: its
/// parts are of one [`save_snapshot`](Self::save_snapshot). What is wrong with it in spite of that is found out by the
/// executor, which then reads all events.
#[async_trait]
pub trait SnapshotStore: Send + Sync {
    /// The snapshot saved last under a key, if there is one.
    ///
    /// # Errors
    /// [`Corrupt`](EventStoreError::Corrupt) if what is stored cannot be understood, else what the storage says.
    async fn load_snapshot(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError>;

    /// Saves a snapshot in place of the one under the same key, whatever that one was of.
    ///
    /// # Errors
    /// What the storage says.
    async fn save_snapshot(&self, snapshot: &Snapshot) -> Result<(), EventStoreError>;

    /// Deletes the snapshot under a key, if there is one.
    ///
    /// # Errors
    /// What the storage says.
    async fn delete_snapshot(&self, key: &SnapshotKey) -> Result<(), EventStoreError>;

    /// Deletes all snapshots saved before `older_than`, and tells how many. Those of states that no command has any more
    /// go only so; those in use are saved anew by and by.
    ///
    /// # Errors
    /// What the storage says.
    async fn prune_snapshots(&self, older_than: Timestamp) -> Result<u64, EventStoreError>;
}
