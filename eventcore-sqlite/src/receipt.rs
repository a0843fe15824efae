//! Receipts of commands.

use crate::decode;
use crate::error::store_error;
use eventcore::{AppendedEvent, CommandClaim, CommandId, EventStoreError, Fingerprint, Receipt, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

const SELECT: &str = "select fingerprint, recorded_at, first_position, event_count from eventcore_receipts \
     where command_id = ?1";
const SELECT_EVENTS: &str = "select s.name, e.version, e.position from eventcore_events e \
     join eventcore_streams s on s.id = e.stream where e.position between ?1 and ?2 order by e.position";
const INSERT: &str = "insert into eventcore_receipts (command_id, fingerprint, recorded_at, first_position, event_count) \
     values (?1, ?2, ?3, ?4, ?5)";
const PRUNE: &str = "delete from eventcore_receipts where command_id in \
     (select command_id from eventcore_receipts where recorded_at < ?1 limit ?2)";

/// The receipt of a command, if it was executed.
pub(crate) fn find(connection: &Connection, command_id: &CommandId) -> Result<Option<Receipt>, EventStoreError> {
    let row = connection
        .prepare_cached(SELECT)
        .and_then(|mut select| {
            select
                .query_row([command_id.as_str()], |row| {
                    let first: Option<i64> = row.get(2)?;
                    Ok((row.get(0)?, row.get(1)?, first, row.get(3)?))
                })
                .optional()
        })
        .map_err(store_error)?;
    let Some((fingerprint, recorded_at, first, count)) = row else { return Ok(None) };
    let fingerprint: Vec<u8> = fingerprint;
    let fingerprint = Fingerprint::from_uuid(decode::uuid(&fingerprint, "the fingerprint of a receipt")?);
    Ok(Some(Receipt {
        claim: CommandClaim { command_id: command_id.clone(), fingerprint },
        events: first.map_or_else(|| Ok(Vec::new()), |first| events(connection, command_id, first, count))?,
        recorded_at: decode::timestamp(recorded_at)?,
    }))
}

/// Where the events of a command went: they have consecutive positions, since they were appended together.
fn events(
    connection: &Connection,
    command_id: &CommandId,
    first: i64,
    count: i64,
) -> Result<Vec<AppendedEvent>, EventStoreError> {
    let mut select = connection.prepare_cached(SELECT_EVENTS).map_err(store_error)?;
    let mut rows = select.query([first, first.saturating_add(count - 1)]).map_err(store_error)?;
    let mut events = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        let column = |index| row.get_ref(index).map_err(store_error);
        events.push(AppendedEvent {
            stream_id: decode::stream_id(column(0)?)?,
            version: decode::version(row.get(1).map_err(store_error)?)?,
            position: decode::position(row.get(2).map_err(store_error)?)?,
        });
    }
    if usize::try_from(count) != Ok(events.len()) {
        let what = format!("the receipt of command {command_id} names {count} events, {} are there", events.len());
        return Err(EventStoreError::corrupt(what));
    }
    Ok(events)
}

pub(crate) fn insert(
    connection: &Connection,
    claim: &CommandClaim,
    recorded_at: Timestamp,
    events: &[AppendedEvent],
) -> Result<(), EventStoreError> {
    let first = events.first().map(|event| event.position.get());
    let fingerprint = claim.fingerprint.as_uuid();
    connection
        .prepare_cached(INSERT)
        .and_then(|mut insert| {
            insert.execute(params![
                claim.command_id.as_str(),
                fingerprint.as_bytes(),
                recorded_at.as_micros(),
                first,
                events.len()
            ])
        })
        .map(drop)
        .map_err(store_error)
}

/// Forgets at most `limit` receipts recorded before `older_than`, and tells how many.
pub(crate) fn prune(connection: &Connection, older_than: Timestamp, limit: u32) -> Result<u64, EventStoreError> {
    let pruned = connection
        .prepare_cached(PRUNE)
        .and_then(|mut delete| delete.execute(params![older_than.as_micros(), limit]))
        .map_err(store_error)?;
    Ok(pruned as u64)
}
