//! Finding out what became of an append whose answer was lost.

use super::lanes::Lanes;
use super::sender::{Sender, Sent};
use super::statement::Contended;
use crate::SchemaName;
use crate::retry::{Retry, repeatable};
use crate::rows::{column, position, version};
use eventcore::{
    AppendRequest, Appended, AppendedEvent, EventStoreError, ExpectedVersion, SharedError, StreamId, Timestamp,
};
use sqlx::AssertSqlSafe;
use std::collections::HashMap;
use uuid::Uuid;

/// Settles a lost append by sending it again.
///
/// With a command id, the receipt decides. Without one, a stream that is written at an expected version does: the append
/// can happen only once, and who finds his own events in his way has succeeded. Anything else stays unknown.
pub(crate) async fn settle(
    sender: &Sender,
    lanes: &Lanes,
    schema: &SchemaName,
    request: AppendRequest,
    lost: SharedError,
) -> Result<Appended, EventStoreError> {
    let unknown = |source: SharedError| EventStoreError::OutcomeUnknown { source };
    let exact = |e: ExpectedVersion| matches!(e.normalized(), ExpectedVersion::Exact(_) | ExpectedVersion::NoStream);
    let guard = request.streams().iter().find(|s| s.written && exact(s.expected));
    let lane = match (request.command(), guard) {
        (Some(claim), _) => Contended::Command(claim.command_id.clone()),
        (None, Some(guard)) => Contended::Stream(guard.stream_id.clone()),
        (None, None) => return Err(unknown(lost)),
    };
    let mut retry = Retry::lasting(sender.patience().retry_for);
    loop {
        tracing::info!(error = &*lost as &dyn std::error::Error, "the answer to an append was lost; sending it again");
        // It waits for the locks, and so for the end of the first one should that still be running.
        match lanes.send(lane.clone(), request.clone()).await {
            Sent::Settled(Ok(appended)) if !appended.replayed => return Ok(appended),
            Sent::Settled(Ok(replayed)) => {
                // A receipt may be that of the first time, and then it is no replay.
                let own = own_events(sender, schema, &request).await.map_err(|e| unknown(SharedError::new(e)))?;
                return Ok(own.unwrap_or(replayed));
            }
            Sent::Settled(Err(EventStoreError::Conflict(conflict))) => {
                // As long as it is not known whose events these are, it must not be decided again.
                let own = own_events(sender, schema, &request).await.map_err(|e| unknown(SharedError::new(e)))?;
                return own.ok_or_else(|| EventStoreError::from(conflict));
            }
            Sent::Settled(Err(error @ EventStoreError::CommandIdReused { .. })) => return Err(error),
            // The server is away or busy: that says nothing about the first time.
            Sent::Settled(Err(error)) if error.is_transient() && retry.pause().await => {}
            Sent::Settled(Err(error)) => return Err(unknown(SharedError::new(error))),
            Sent::Lost(_) | Sent::Busy(_) if retry.pause().await => {}
            Sent::Lost(error) => return Err(unknown(error)),
            Sent::Busy(_) => return Err(unknown(lost)),
        }
    }
}

/// The events of the request, if all of them are stored.
async fn own_events(
    sender: &Sender,
    schema: &SchemaName,
    request: &AppendRequest,
) -> Result<Option<Appended>, EventStoreError> {
    let streams: Vec<&str> = request.streams().iter().filter(|s| s.written).map(|s| s.stream_id.as_str()).collect();
    let ids: Vec<Uuid> = request.events().iter().map(|item| item.event.id.as_uuid()).collect();
    let sql = format!(
        "select event_id, version, position, recorded_at from {schema}.events where stream = any($1) and event_id = any($2)"
    );
    let rows = repeatable(sender.connections(), sender.patience(), || {
        sqlx::query(AssertSqlSafe(sql.as_str())).bind(&streams).bind(&ids)
    })
    .await?;
    let mut found = HashMap::new();
    let mut recorded_at = None;
    for row in &rows {
        found.insert(column::<Uuid>(row, 0)?, (version(column(row, 1)?)?, position(column(row, 2)?)?));
        recorded_at = Some(Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 3)?));
    }
    let located = |item: &eventcore::EventToAppend| {
        let (version, position) = found.get(&item.event.id.as_uuid()).copied()?;
        let stream_id: StreamId = request.stream_of(item).clone();
        Some(AppendedEvent { stream_id, version, position })
    };
    let events: Option<Vec<_>> = request.events().iter().map(located).collect();
    Ok(events.zip(recorded_at).map(|(events, recorded_at)| Appended { events, recorded_at, replayed: false }))
}
