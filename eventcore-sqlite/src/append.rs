//! The writer's side: one transaction per group.

use crate::SqliteConfig;
use crate::error::store_error;
use crate::gate::Gate;
use crate::group::{Failure, Group, Known};
use crate::head::Head;
use crate::log_size::LogSize;
use eventcore::{AppendLimits, AppendRequest, EventStoreError, GroupAppender, GroupFailure, Verdict};
use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Appends groups of requests through its own connection.
pub(crate) struct SqliteAppender {
    connection: Connection,
    gate: Arc<Gate>,
    head: Arc<Head>,
    limits: AppendLimits,
    known: Known,
    log_size: LogSize,
    busy_timeout: Duration,
}

impl SqliteAppender {
    pub(crate) fn new(
        connection: Connection,
        path: &Path,
        config: &SqliteConfig,
        gate: Arc<Gate>,
        head: Arc<Head>,
    ) -> Self {
        Self {
            connection,
            gate,
            head,
            limits: config.limits,
            known: Known::default(),
            log_size: LogSize::of(path),
            busy_timeout: config.busy_timeout,
        }
    }

    fn commit_group(&mut self, group: &[AppendRequest]) -> Result<Vec<Verdict>, GroupFailure> {
        self.run("begin immediate").map_err(|error| GroupFailure::Nothing(store_error(error)))?;
        let verdicts = match self.judge_group(group) {
            Ok(verdicts) => verdicts,
            Err(error) => return Err(self.roll_back(error)),
        };
        if let Err(error) = self.run("commit") {
            return Err(self.settle(error));
        }
        self.head.announce(self.known.head());
        self.log_size.bound(&mut self.connection, self.busy_timeout);
        Ok(verdicts)
    }

    fn judge_group(&mut self, group: &[AppendRequest]) -> Result<Vec<Verdict>, EventStoreError> {
        let mut group_in_hand = Group::begin(&self.connection, &mut self.known, self.limits)?;
        let mut verdicts = Vec::with_capacity(group.len());
        for request in group {
            verdicts.push(match group_in_hand.append(request) {
                Ok(appended) => Ok(appended),
                Err(Failure::Refused(error)) => Err(error),
                Err(Failure::Storage(error)) => return Err(error),
            });
        }
        Ok(verdicts)
    }

    fn run(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(drop)
    }

    /// Takes back what the group did before `error`.
    fn roll_back(&mut self, error: EventStoreError) -> GroupFailure {
        // What this transaction added is gone.
        self.known = Known::default();
        // Some errors, such as a full disk, have rolled back already.
        if self.connection.is_autocommit() || self.run("rollback").is_ok() {
            return GroupFailure::Nothing(error);
        }
        GroupFailure::Unknown(error)
    }

    /// Finds out what a failed commit left behind.
    fn settle(&mut self, error: rusqlite::Error) -> GroupFailure {
        let code = error.sqlite_error_code();
        match self.roll_back(store_error(error)) {
            // The frame that makes a transaction count is written last, so without room for it there is none. After any
            // other failure, such as that of a sync, it may be in the file and count when the file is opened again.
            GroupFailure::Nothing(error) if matches!(code, Some(ErrorCode::DatabaseBusy | ErrorCode::DiskFull)) => {
                GroupFailure::Nothing(error)
            }
            GroupFailure::Nothing(error) | GroupFailure::Unknown(error) => GroupFailure::Unknown(error),
            other => other,
        }
    }
}

impl GroupAppender for SqliteAppender {
    async fn append_group(&mut self, group: &[AppendRequest]) -> Result<Vec<Verdict>, GroupFailure> {
        let _turn = self.gate.enter().await.map_err(GroupFailure::Nothing)?;
        match self.commit_group(group) {
            // What does not fit as a whole may fit in part: a large request does not fail its neighbours.
            Err(GroupFailure::Nothing(EventStoreError::StorageFull { .. })) if group.len() > 1 => {
                let mut verdicts = Vec::with_capacity(group.len());
                for request in group {
                    match self.commit_group(std::slice::from_ref(request)) {
                        Ok(verdict) => verdicts.extend(verdict),
                        Err(GroupFailure::Nothing(error)) => verdicts.push(Err(error)),
                        Err(unknown) => return Err(unknown),
                    }
                }
                Ok(verdicts)
            }
            outcome => outcome,
        }
    }
}

/// The end of the writer: what is in the write-ahead log goes into the file, as far as readers allow. It is durable either
/// way, so a failure only leaves the work to whoever opens the file next.
impl Drop for SqliteAppender {
    fn drop(&mut self) {
        if let Err(error) = self.connection.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(())) {
            tracing::debug!(error = &error as &dyn std::error::Error, "the write-ahead log stays");
        }
    }
}
