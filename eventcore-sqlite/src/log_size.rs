//! Keeping the write-ahead log from growing without bound.

use crate::connection::{self, MAX_IDLE_WAL_BYTES};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// SQLite begins its write-ahead log anew when no reader needs it, and never waits for that. Readers that follow each other
/// without a pause would let it grow for ever, so when it is too large the writer waits for them once: those who begin
/// meanwhile read the file and no longer need the log.
pub(crate) struct LogSize {
    path: PathBuf,
    /// The size at which the next attempt is made, in bytes.
    next: u64,
}

impl LogSize {
    /// A log larger than this is begun anew as soon as readers allow. Whoever reads that long costs one wait for each
    /// further step of this size.
    const STEP: u64 = MAX_IDLE_WAL_BYTES;
    /// How long readers that are under way are waited for.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// The log of the database at `path`.
    pub(crate) fn of(path: &Path) -> Self {
        Self { path: connection::write_ahead_log(path), next: Self::STEP }
    }

    /// Moves the log into the file if it is too large. What it holds is durable either way, so a failure is only told.
    pub(crate) fn bound(&mut self, connection: &mut Connection, patience: Duration) {
        let bytes = std::fs::metadata(&self.path).map_or(0, |log| log.len());
        if bytes <= self.next {
            return;
        }
        let begun = connection::wait_when_busy(connection, Self::PATIENCE.min(patience))
            .and_then(|()| connection.query_row("pragma wal_checkpoint(restart)", [], |row| row.get::<_, i64>(0)));
        let restored = connection::wait_when_busy(connection, patience);
        match begun.and_then(|busy| restored.map(|()| busy)) {
            // The next commit begins it anew and cuts it back.
            Ok(0) => self.next = Self::STEP,
            Ok(_) => {
                tracing::warn!(bytes, "a reader has kept the write-ahead log from being begun anew");
                self.next = bytes + Self::STEP;
            }
            Err(error) => {
                tracing::warn!(bytes, error = &error as &dyn std::error::Error, "the write-ahead log stays");
                self.next = bytes + Self::STEP;
            }
        }
    }
}
