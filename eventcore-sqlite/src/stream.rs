//! Where a stream stands.

use crate::decode;
use crate::error::store_error;
use eventcore::{EventStoreError, StreamId, StreamVersion};
use rusqlite::{Connection, OptionalExtension};

const SELECT: &str = "select s.id, (select max(e.version) from eventcore_events e where e.stream = s.id) \
     from eventcore_streams s where s.name = ?1";

/// The number and the version of a stream that is stored.
pub(crate) fn find(
    connection: &Connection,
    stream_id: &StreamId,
) -> Result<Option<(i64, StreamVersion)>, EventStoreError> {
    let row: Option<(i64, Option<i64>)> = connection
        .prepare_cached(SELECT)
        .and_then(|mut select| select.query_row([stream_id.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(store_error)?;
    let Some((id, version)) = row else { return Ok(None) };
    Ok(Some((id, version.map_or_else(|| Ok(StreamVersion::default()), decode::version)?)))
}
