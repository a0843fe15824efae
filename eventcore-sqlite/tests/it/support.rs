//! What several tests need.

use eventcore::{
    AppendRequest, Appended, CommandClaim, CommandId, EventId, EventMetadata, EventStore, EventStoreError, Fingerprint,
    NewEvent, Payload, SchemaVersion, StreamId,
};
use eventcore_sqlite::{SqliteConfig, SqliteEventStore, Synchronous};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take that is waited for. It is an upper bound for what hangs, on a machine that has other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Leaves syncs to the system, which would take most of the tests' time: no test takes the power away. And waits for locks
/// as long as it takes: a machine that stands still for some seconds costs nobody his turn.
pub(crate) fn patient() -> SqliteConfig {
    SqliteConfig::default().synchronous(Synchronous::Normal).busy_timeout(Duration::from_secs(60))
}

/// A directory that vanishes, with a store in it.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) async fn open(&self) -> SqliteEventStore {
        self.open_with(patient()).await
    }

    pub(crate) async fn open_with(&self, config: SqliteConfig) -> SqliteEventStore {
        SqliteEventStore::open_with(self.path(), config).await.unwrap()
    }

    /// A connection of another program.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }
}

pub(crate) fn stream(name: &str) -> StreamId {
    StreamId::new(name).unwrap()
}

pub(crate) fn event(payload: impl Into<String>) -> NewEvent {
    event_of("test.Happened", payload)
}

pub(crate) fn event_of(event_type: &str, payload: impl Into<String>) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: event_type.parse().unwrap(),
        schema_version: SchemaVersion::default(),
        payload: Payload::json(payload.into()),
        metadata: EventMetadata::empty(),
    }
}

pub(crate) fn claim(id: &str) -> CommandClaim {
    CommandClaim { command_id: CommandId::new(id).unwrap(), fingerprint: Fingerprint::of("Test", []) }
}

/// An append of one event to one stream.
pub(crate) fn one(name: &str, payload: &str) -> AppendRequest {
    AppendRequest::builder().event(stream(name), event(payload)).build().unwrap()
}

pub(crate) async fn append(store: &SqliteEventStore, name: &str, payload: &str) -> Result<Appended, EventStoreError> {
    store.append(one(name, payload)).await
}
