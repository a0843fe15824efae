//! Who runs a projection: a lock on a side file, and an epoch in the store.

use crate::checkpoint;
use crate::store::SqliteEventStore;
use async_trait::async_trait;
use eventcore::{CheckpointError, EventStoreError, Leadership, LeadershipError, ProjectionName, ProjectorCoordinator};
use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The kernel releases the lock when its process dies, however it dies. A process that is only stopped keeps it.
///
/// The lock belongs to the open file, so two stores in one process exclude each other as two processes do. The file is
/// empty and is never removed: removing it while somebody else opens it would make two locks of one.
#[async_trait]
impl ProjectorCoordinator for SqliteEventStore {
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        let path = lock_path(&self.shared().path, name);
        let busy = name.clone();
        let lock = self.shared().side.workers.run_with_worker(move |_| Ok(try_lock(&path, &busy))).await??;
        // Only who has the lock raises the epoch, and the one before it is fenced from then on.
        let raised = name.clone();
        let epoch = self.shared().side.write(move |connection| checkpoint::raise_epoch(connection, &raised)).await;
        let epoch = epoch.map_err(into_store_error)?;
        // Nobody can take a kernel's lock away, so this leadership is never lost while it is held.
        Ok(Leadership::new(name.clone(), epoch, CancellationToken::new(), lock))
    }

    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        // Closing the file releases the lock at once.
        drop(leadership.into_guard());
        Ok(())
    }
}

/// `bank.db` and a projection's name make `bank.db-leader-<uuid>.lock`: a name can hold characters that a file name cannot.
fn lock_path(database: &Path, name: &ProjectionName) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(format!("-leader-{}.lock", Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_str().as_bytes())));
    path.into()
}

fn try_lock(path: &Path, name: &ProjectionName) -> Result<File, LeadershipError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(EventStoreError::storage)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LeadershipError::Busy { name: name.clone() }),
        Err(TryLockError::Error(error)) => Err(EventStoreError::storage(error).into()),
    }
}

fn into_store_error(error: CheckpointError) -> EventStoreError {
    match error {
        CheckpointError::Store(error) => error,
        other => EventStoreError::corrupt_because("the epoch of a projection", other),
    }
}
