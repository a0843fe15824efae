//! Appending: groups of the core's writer, and those who have to wait or to ask again.

mod lanes;
mod queues;
mod sender;
mod settle;
mod single;
mod statement;

use crate::connections::Connections;
use crate::{PostgresConfig, SchemaName};
use eventcore::{
    AppendLimits, AppendRequest, Appended, ContentType, EventStoreError, GroupAppender, GroupFailure, GroupLimits,
    InvalidAppend, Verdict, WriterHandle, WriterJoin, spawn_writer,
};
use lanes::Lanes;
use sender::{Sender, Sent};
use serde::de::IgnoredAny;
use sqlx::PgConnection;
use statement::{AppendStatement, Contended, Judged, Locking, judged};
use thiserror::Error;
use tokio_util::task::TaskTracker;

/// The way of an append through this process.
#[derive(Debug, Clone)]
pub(crate) struct Appends {
    limits: AppendLimits,
    schema: SchemaName,
    writer: WriterHandle,
    sender: Sender,
    lanes: Lanes,
}

impl Appends {
    pub(crate) fn spawn(connections: Connections, config: &PostgresConfig, tasks: &TaskTracker) -> (Self, WriterJoin) {
        // Who waits for locks may use half of the pool.
        let waiting = connections.pool().options().get_max_connections() as usize / 2;
        let sender = Sender::new(connections, config);
        let lanes = Lanes::new(sender.clone(), config.group, waiting, tasks.clone());
        let appender = Groups { sender: sender.clone(), limits: config.group };
        let (writer, join) = spawn_writer(appender, config.queue);
        (Self { limits: config.limits, schema: config.schema.clone(), writer, sender, lanes }, join)
    }

    pub(crate) async fn append(&self, request: AppendRequest) -> Result<Appended, EventStoreError> {
        check(&request, &self.limits)?;
        let error = match self.writer.append(request.clone()).await {
            Ok(appended) => return Ok(appended),
            Err(error) => error,
        };
        let sent = match Unsettled::of(&error) {
            None => return Err(error),
            Some(Unsettled::Busy(contended)) => self.lanes.send(contended.clone(), request.clone()).await,
            Some(Unsettled::Lost(lost)) => Sent::Lost(lost.clone()),
        };
        match sent {
            Sent::Settled(verdict) => verdict,
            Sent::Lost(lost) => settle::settle(&self.sender, &self.lanes, &self.schema, request, lost).await,
            Sent::Busy(contended) => Err(EventStoreError::unavailable(Unsettled::Busy(contended))),
        }
    }

    /// Refuses new requests; what is queued is still finished.
    pub(crate) fn close(&self) {
        self.writer.close();
    }
}

/// Appends within a transaction of the caller's.
pub(crate) async fn append_in_transaction(
    connection: &mut PgConnection,
    config: &PostgresConfig,
    request: &AppendRequest,
) -> Result<Appended, EventStoreError> {
    check(request, &config.limits)?;
    let set = "select set_config('idle_in_transaction_session_timeout', $1, true)";
    let idle = crate::config::millis(config.transaction_idle_timeout).to_string();
    sqlx::query(set).bind(idle).execute(&mut *connection).await.map_err(crate::fault::store_error)?;
    let group = [request];
    let statement = AppendStatement::new(&config.schema);
    let locking = Locking::Wait(config.lock_timeout);
    let row = statement.send_within(connection, request, locking).await.map_err(crate::fault::store_error)?;
    match judged(&group, locking, &row)?.pop() {
        Some(Judged::Appended(appended)) => Ok(appended),
        Some(Judged::Conflict(conflict)) => Err(conflict.into()),
        Some(Judged::Reused(command_id)) => Err(EventStoreError::CommandIdReused { command_id }),
        Some(Judged::Busy(contended)) => Err(EventStoreError::unavailable(Unsettled::Busy(contended))),
        None => Err(EventStoreError::corrupt("the append function gave no answer")),
    }
}

/// What can be refused before it reaches the server, so that it does not spoil the group it would be in.
fn check(request: &AppendRequest, limits: &AppendLimits) -> Result<(), EventStoreError> {
    limits.check(request)?;
    for item in request.events() {
        let payload = &item.event.payload;
        if payload.content_type() != ContentType::Json {
            continue;
        }
        let malformed = match std::str::from_utf8(payload.bytes()) {
            Ok(text) => serde_json::from_str::<IgnoredAny>(text).err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = malformed {
            let (stream_id, event_type) = (request.stream_of(item).clone(), item.event.event_type.clone());
            return Err(InvalidAppend::MalformedJson { stream_id, event_type, problem }.into());
        }
    }
    Ok(())
}

/// Why a request is not settled yet. It travels through the writer as the cause of an error, and no further.
#[derive(Debug, Error)]
enum Unsettled {
    #[error("another append to the same streams or of the same command is under way: {0:?}")]
    Busy(Contended),
    #[error("the connection was lost before the answer came")]
    Lost(#[source] eventcore::SharedError),
}

impl Unsettled {
    fn of(error: &EventStoreError) -> Option<&Self> {
        match error {
            EventStoreError::Unavailable { source } | EventStoreError::OutcomeUnknown { source } => {
                source.downcast_ref::<Self>()
            }
            _ => None,
        }
    }
}

/// The writer's appender.
struct Groups {
    sender: Sender,
    limits: GroupLimits,
}

impl GroupAppender for Groups {
    async fn append_group(&mut self, group: &[AppendRequest]) -> Result<Vec<Verdict>, GroupFailure> {
        let sent = self.sender.send(&group.iter().collect::<Vec<_>>()).await;
        let verdict = |sent| match sent {
            Sent::Settled(verdict) => verdict,
            Sent::Busy(contended) => Err(EventStoreError::unavailable(Unsettled::Busy(contended))),
            Sent::Lost(error) => Err(EventStoreError::outcome_unknown(Unsettled::Lost(error))),
        };
        Ok(sent.into_iter().map(verdict).collect())
    }

    fn limits(&self) -> GroupLimits {
        self.limits
    }
}
