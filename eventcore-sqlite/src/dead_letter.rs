//! Dead letters, kept in the file beside the checkpoints.

use crate::checkpoint::fence;
use crate::decode;
use crate::error::store_error;
use crate::store::SqliteEventStore;
use async_trait::async_trait;
use eventcore::{
    CheckpointError, DeadLetter, DeadLetterId, DeadLetterStore, Epoch, EventStoreError, EventType, GlobalPosition,
    PageSize, ProjectionName, StreamId, Timestamp,
};
use rusqlite::{Connection, Row, params};
use std::error::Error;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select handler, position, event_id, event_type, stream, attempts, errors, parked_at \
             from eventcore_dead_letters where ",
            $rest
        )
    };
}
const SELECT: &str = select!("handler = ?1 and position = ?2");
const SELECT_PAGE: &str = select!("(handler, position) > (?1, ?2) order by handler, position limit ?3");
const SELECT_PAGE_OF: &str = select!("handler = ?1 and position > ?2 order by position limit ?3");
const PARK: &str = "insert into eventcore_dead_letters \
     (handler, position, event_id, event_type, stream, attempts, errors, parked_at) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
     on conflict (handler, position) do update set event_id = excluded.event_id, event_type = excluded.event_type, \
     stream = excluded.stream, attempts = excluded.attempts, errors = excluded.errors, parked_at = excluded.parked_at";
const DISCARD: &str = "delete from eventcore_dead_letters where handler = ?1 and position = ?2";
const HAND_OVER: &str = "update eventcore_dead_letters set handler = ?2 where handler = ?1";
const DISCARD_AFTER: &str = "delete from eventcore_dead_letters where handler = ?1 and position > ?2";

/// Keeps a letter, within whatever transaction is open.
pub(crate) fn park(connection: &Connection, letter: &DeadLetter) -> Result<(), EventStoreError> {
    let errors = serde_json::to_string(&letter.errors).map_err(EventStoreError::storage)?;
    connection
        .prepare_cached(PARK)
        .and_then(|mut park| {
            park.execute(params![
                letter.id.handler.as_str(),
                letter.id.position.get(),
                letter.event_id.as_uuid().as_bytes(),
                letter.event_type.as_str(),
                letter.stream_id.as_str(),
                letter.attempts,
                errors,
                Timestamp::now().as_micros(),
            ])
        })
        .map_err(store_error)?;
    Ok(())
}

/// Throws away all letters of a handler, within whatever transaction is open.
pub(crate) fn discard_all(connection: &Connection, handler: &ProjectionName) -> Result<(), EventStoreError> {
    let mut discard = connection.prepare_cached(DISCARD_AFTER).map_err(store_error)?;
    discard.execute(params![handler.as_str(), 0]).map_err(store_error)?;
    Ok(())
}

/// Hands all letters of a handler to another one, within whatever transaction is open.
pub(crate) fn hand_over(
    connection: &Connection,
    from: &ProjectionName,
    to: &ProjectionName,
) -> Result<(), EventStoreError> {
    discard_all(connection, to)?;
    let mut hand_over = connection.prepare_cached(HAND_OVER).map_err(store_error)?;
    hand_over.execute([from.as_str(), to.as_str()]).map_err(store_error)?;
    Ok(())
}

/// Throws a letter away, within whatever transaction is open, and tells whether there was one.
pub(crate) fn discard(connection: &Connection, id: &DeadLetterId) -> Result<bool, EventStoreError> {
    let deleted = connection
        .prepare_cached(DISCARD)
        .and_then(|mut discard| discard.execute(params![id.handler.as_str(), id.position.get()]))
        .map_err(store_error)?;
    Ok(deleted > 0)
}

fn page(
    connection: &Connection,
    handler: Option<&ProjectionName>,
    after: Option<&DeadLetterId>,
    limit: PageSize,
) -> Result<Vec<DeadLetter>, EventStoreError> {
    // Of one handler all letters come after those of the handlers before it.
    let position = match (handler, after) {
        (Some(handler), Some(after)) if *handler < after.handler => return Ok(Vec::new()),
        (Some(handler), Some(after)) if *handler > after.handler => 0,
        (_, after) => after.map_or(0, |after| after.position.get()),
    };
    let sql = if handler.is_some() { SELECT_PAGE_OF } else { SELECT_PAGE };
    let name = handler.or(after.map(|after| &after.handler)).map_or("", ProjectionName::as_str);
    let mut select = connection.prepare_cached(sql).map_err(store_error)?;
    let mut rows = select.query(params![name, position, limit.into_inner()]).map_err(store_error)?;
    let mut letters = Vec::new();
    while let Some(row) = rows.next().map_err(store_error)? {
        letters.push(read(row)?);
    }
    Ok(letters)
}

fn one(connection: &Connection, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
    let mut select = connection.prepare_cached(SELECT).map_err(store_error)?;
    let mut rows = select.query(params![id.handler.as_str(), id.position.get()]).map_err(store_error)?;
    rows.next().map_err(store_error)?.map(read).transpose()
}

/// Reads a letter, naming what cannot be understood.
fn read(row: &Row<'_>) -> Result<DeadLetter, EventStoreError> {
    let handler: String = row.get(0).map_err(store_error)?;
    let handler =
        ProjectionName::new(handler).map_err(|error| corrupt("the handler of a dead letter".to_owned(), error))?;
    let id = DeadLetterId { handler, position: decode::position(row.get(1).map_err(store_error)?)? };
    let what = |part: &str| format!("{part} of the dead letter {id}");
    let event_id: Vec<u8> = row.get(2).map_err(store_error)?;
    let event_type: String = row.get(3).map_err(store_error)?;
    let stream: String = row.get(4).map_err(store_error)?;
    let attempts: i64 = row.get(5).map_err(store_error)?;
    let errors: String = row.get(6).map_err(store_error)?;
    Ok(DeadLetter {
        event_id: decode::event_id(&event_id)?,
        event_type: EventType::new(event_type).map_err(|error| corrupt(what("the event type"), error))?,
        stream_id: StreamId::new(stream).map_err(|error| corrupt(what("the stream"), error))?,
        attempts: u32::try_from(attempts).map_err(|error| corrupt(what("the number of attempts"), error))?,
        errors: serde_json::from_str(&errors).map_err(|error| corrupt(what("the errors"), error))?,
        parked_at: decode::timestamp(row.get(7).map_err(store_error)?)?,
        id,
    })
}

fn corrupt(what: String, error: impl Error + Send + Sync + 'static) -> EventStoreError {
    EventStoreError::corrupt_because(what, error)
}

#[async_trait]
impl DeadLetterStore for SqliteEventStore {
    async fn park_dead_letter(&self, letter: &DeadLetter, epoch: Option<Epoch>) -> Result<(), CheckpointError> {
        let letter = letter.clone();
        let park = move |connection: &Connection| {
            if let Some(epoch) = epoch {
                fence(connection, &letter.id.handler, epoch)?;
            }
            Ok(park(connection, &letter)?)
        };
        self.shared().side.write(park).await
    }

    async fn dead_letters(
        &self,
        handler: Option<&ProjectionName>,
        after: Option<&DeadLetterId>,
        limit: PageSize,
    ) -> Result<Vec<DeadLetter>, EventStoreError> {
        let (handler, after) = (handler.cloned(), after.cloned());
        let list = move |connection: &Connection| page(connection, handler.as_ref(), after.as_ref(), limit);
        self.shared().index.read(move |reader| list(&reader.connection)).await
    }

    async fn dead_letter(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, EventStoreError> {
        let id = id.clone();
        self.shared().index.read(move |reader| one(&reader.connection, &id)).await
    }

    async fn discard_dead_letter(&self, id: &DeadLetterId) -> Result<bool, EventStoreError> {
        let id = id.clone();
        self.shared().side.write(move |connection| discard(connection, &id)).await
    }

    async fn discard_dead_letters_after(
        &self,
        handler: &ProjectionName,
        after: Option<GlobalPosition>,
        epoch: Option<Epoch>,
    ) -> Result<u64, CheckpointError> {
        let (handler, after) = (handler.clone(), after.map_or(0, GlobalPosition::get));
        let discard = move |connection: &Connection| {
            if let Some(epoch) = epoch {
                fence(connection, &handler, epoch)?;
            }
            let deleted = connection
                .prepare_cached(DISCARD_AFTER)
                .and_then(|mut discard| discard.execute(params![handler.as_str(), after]))
                .map_err(store_error)?;
            Ok(deleted as u64)
        };
        self.shared().side.write(discard).await
    }
}
