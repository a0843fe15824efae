//! One call of the append function: requests into arrays, rows into verdicts.

use super::single::{self, Single};
use crate::SchemaName;
use crate::retry::{Patience, Statement};
use crate::rows::{column, position, version};
use eventcore::{
    AppendRequest, Appended, AppendedEvent, CommandId, ContentType, EventStoreError, ExpectedVersion, NewEvent,
    StreamId, Timestamp, VersionConflict,
};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// The statements, for one schema.
#[derive(Debug, Clone)]
pub(crate) struct AppendStatement {
    group: Arc<str>,
    many: Arc<str>,
    single: Arc<str>,
}

/// Which function a group is sent to.
#[derive(Debug)]
enum Form<'a> {
    /// One event to one stream.
    Single(Single<'a>),
    /// Many events that most likely can all be appended.
    Many,
    /// Anything.
    Group,
}

impl<'a> Form<'a> {
    /// From so many events on a few queries over arrays are cheaper than a loop.
    const MANY: usize = 3;

    fn of(group: &[&'a AppendRequest], locking: Locking) -> Self {
        if let Some(single) = Single::of(group, locking) {
            return Self::Single(single);
        }
        let without_ids = group.iter().all(|request| request.command().is_none());
        let events: usize = group.iter().map(|request| request.events().len()).sum();
        if locking == Locking::Try && without_ids && events >= Self::MANY { Self::Many } else { Self::Group }
    }
}

/// What became of one request.
#[derive(Debug)]
pub(crate) enum Judged {
    /// It is stored, or was before.
    Appended(Appended),
    /// A stream was not as expected.
    Conflict(VersionConflict),
    /// The command id belongs to another command.
    Reused(CommandId),
    /// Somebody else holds a lock that it needs. Nothing happened to it.
    Busy(Contended),
}

/// What was locked by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Contended {
    Stream(StreamId),
    Command(CommandId),
}

/// How a group comes by its locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Locking {
    /// Takes what is free; whoever needs more is busy.
    Try,
    /// Waits, at most so long for each.
    Wait(Duration),
}

impl AppendStatement {
    pub(crate) fn new(schema: &SchemaName) -> Self {
        let call = |function: &str, parameters: usize| -> Arc<str> {
            let parameters = (1..=parameters).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
            format!("select * from {schema}.{function}({parameters})").into()
        };
        Self { group: call("append", 20), many: call("append_many", 16), single: single::sql(schema) }
    }

    /// Sends a group. No two of its requests may have the same command id.
    pub(crate) async fn send(
        &self,
        connection: &mut PoolConnection<Postgres>,
        patience: Patience,
        group: &[&AppendRequest],
        locking: Locking,
    ) -> Result<PgRow, sqlx::Error> {
        let statement = match Form::of(group, locking) {
            Form::Single(single) => single.statement(&self.single),
            Form::Many => self.many(group),
            Form::Group => self.with(group, locking),
        };
        patience.rows(connection, statement).await?.pop().ok_or(sqlx::Error::RowNotFound)
    }

    /// Sends a request within a transaction of the caller's.
    pub(crate) async fn send_within(
        &self,
        connection: &mut PgConnection,
        request: &AppendRequest,
        locking: Locking,
    ) -> Result<PgRow, sqlx::Error> {
        self.with(&[request], locking).fetch_one(connection).await
    }

    /// The statement for many events.
    fn many<'a>(&self, group: &[&'a AppendRequest]) -> Statement<'a> {
        let arrays = Arrays::of(group);
        sqlx::query(AssertSqlSafe(Arc::clone(&self.many)))
            .bind(arrays.x_ends)
            .bind(arrays.e_ends)
            .bind(arrays.streams)
            .bind(arrays.writes)
            .bind(arrays.x_stream)
            .bind(arrays.x_expected)
            .bind(arrays.x_before)
            .bind(arrays.e_stream)
            .bind(arrays.e_nth)
            .bind(arrays.e_name)
            .bind(arrays.e_id)
            .bind(arrays.e_type)
            .bind(arrays.e_schema)
            .bind(arrays.e_json)
            .bind(arrays.e_bytes)
            .bind(arrays.e_metadata)
    }

    /// The statement for a group.
    fn with<'a>(&self, group: &[&'a AppendRequest], locking: Locking) -> Statement<'a> {
        let (blocking, lock_timeout) = match locking {
            Locking::Try => (false, 0),
            Locking::Wait(time) => (true, crate::config::millis(time)),
        };
        let arrays = Arrays::of(group);
        sqlx::query(AssertSqlSafe(Arc::clone(&self.group)))
            .bind(group.iter().any(|request| request.command().is_some()))
            .bind(arrays.commands)
            .bind(arrays.fingerprints)
            .bind(arrays.x_ends)
            .bind(arrays.e_ends)
            .bind(arrays.streams)
            .bind(arrays.writes)
            .bind(arrays.x_stream)
            .bind(arrays.x_expected)
            .bind(arrays.e_stream)
            .bind(arrays.e_name)
            .bind(arrays.e_id)
            .bind(arrays.e_type)
            .bind(arrays.e_schema)
            .bind(arrays.e_json)
            .bind(arrays.e_bytes)
            .bind(arrays.e_metadata)
            .bind(arrays.e_command)
            .bind(blocking)
            .bind(lock_timeout)
    }
}

/// A group as the arrays that the function takes.
#[derive(Debug, Default)]
struct Arrays<'a> {
    commands: Vec<Option<&'a str>>,
    fingerprints: Vec<Option<Uuid>>,
    x_ends: Vec<i32>,
    e_ends: Vec<i32>,
    streams: Vec<&'a str>,
    writes: Vec<bool>,
    x_stream: Vec<i32>,
    x_expected: Vec<i64>,
    x_before: Vec<i64>,
    e_stream: Vec<i32>,
    e_nth: Vec<i64>,
    e_name: Vec<&'a str>,
    e_id: Vec<Uuid>,
    e_type: Vec<&'a str>,
    e_schema: Vec<i32>,
    e_json: Vec<Option<&'a str>>,
    e_bytes: Vec<Option<&'a [u8]>>,
    e_metadata: Vec<Option<&'a str>>,
    e_command: Vec<Option<&'a str>>,
}

impl<'a> Arrays<'a> {
    fn of(group: &[&'a AppendRequest]) -> Self {
        let mut arrays = Self::default();
        let mut numbers = HashMap::with_capacity(group.len());
        // How many events there are for each stream so far.
        let mut events = Vec::with_capacity(group.len());
        for request in group {
            arrays.add(request, &mut numbers, &mut events);
        }
        arrays
    }

    fn add(&mut self, request: &'a AppendRequest, numbers: &mut HashMap<&'a str, i32>, events: &mut Vec<i64>) {
        let command = request.command().map(|claim| claim.command_id.as_str());
        self.commands.push(command);
        self.fingerprints.push(request.command().map(|claim| claim.fingerprint.as_uuid()));
        let mut own = Vec::with_capacity(request.streams().len());
        for expectation in request.streams() {
            let name = expectation.stream_id.as_str();
            let number = *numbers.entry(name).or_insert_with(|| {
                self.streams.push(name);
                self.writes.push(false);
                events.push(0);
                count(self.streams.len())
            });
            if expectation.written
                && let Some(writes) = self.writes.get_mut(before(number))
            {
                *writes = true;
            }
            self.x_stream.push(number);
            self.x_expected.push(expected(expectation.expected));
            self.x_before.push(events.get(before(number)).copied().unwrap_or_default());
            own.push(number);
        }
        for item in request.events() {
            let event = EventColumns::of(&item.event);
            let number = own.get(item.stream).copied().unwrap_or_default();
            self.e_stream.push(number);
            self.e_nth.push(events.get_mut(before(number)).map_or(0, |events| {
                *events += 1;
                *events
            }));
            self.e_name.push(request.stream_of(item).as_str());
            self.e_id.push(event.id);
            self.e_type.push(event.event_type);
            self.e_schema.push(event.schema_version);
            self.e_json.push(event.json);
            self.e_bytes.push(event.bytes);
            self.e_metadata.push(event.metadata);
            self.e_command.push(command);
        }
        self.x_ends.push(count(self.x_stream.len()));
        self.e_ends.push(count(self.e_stream.len()));
    }
}

/// An event as the function takes it.
#[derive(Debug)]
pub(crate) struct EventColumns<'a> {
    pub(crate) id: Uuid,
    pub(crate) event_type: &'a str,
    pub(crate) schema_version: i32,
    pub(crate) json: Option<&'a str>,
    pub(crate) bytes: Option<&'a [u8]>,
    pub(crate) metadata: Option<&'a str>,
}

impl<'a> EventColumns<'a> {
    pub(crate) fn of(event: &'a NewEvent) -> Self {
        // Checked to be text before a request is queued.
        let json = (event.payload.content_type() == ContentType::Json)
            .then(|| std::str::from_utf8(event.payload.bytes()).ok())
            .flatten();
        Self {
            id: event.id.as_uuid(),
            event_type: event.event_type.as_str(),
            schema_version: i32::try_from(event.schema_version.get()).unwrap_or(i32::MAX),
            json,
            bytes: json.is_none().then(|| event.payload.bytes().as_ref()),
            metadata: (!event.metadata.is_empty()).then(|| event.metadata.as_json()),
        }
    }
}

/// An expectation as the function takes it.
pub(crate) fn expected(version: ExpectedVersion) -> i64 {
    match version.normalized() {
        ExpectedVersion::Any => -1,
        ExpectedVersion::StreamExists => -2,
        ExpectedVersion::NoStream => 0,
        ExpectedVersion::Exact(version) => crate::rows::number(version.get()),
    }
}

fn count(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Reads the verdicts of a group, one per request.
pub(crate) fn judged(group: &[&AppendRequest], locking: Locking, row: &PgRow) -> Result<Vec<Judged>, EventStoreError> {
    if let Form::Single(single) = Form::of(group, locking) {
        return Ok(vec![single.judged(row)?]);
    }
    let answer = Answer::of(row)?;
    // What only those need who were not simply appended.
    let streams = if answer.spots.is_empty() { Vec::new() } else { distinct_streams(group) };
    let mut replayed = if answer.kinds.contains(&2) { answer.replayed(row)? } else { HashMap::new() };
    let mut events = answer.versions.iter().zip(&answer.positions);
    let mut verdicts = Vec::with_capacity(group.len());
    for (index, request) in group.iter().enumerate() {
        let own: Vec<_> = events.by_ref().take(request.events().len()).collect();
        let stream = answer.spots.get(index).copied().flatten();
        let stream = stream.and_then(|spot| streams.get(before(spot))).map(|name| StreamId::clone(name));
        let kind = answer.kinds.get(index).copied().ok_or_else(senseless)?;
        verdicts.push(match (kind, stream) {
            (1, _) => {
                let events = request.events().iter().zip(own).map(|(item, (version, position))| {
                    appended(
                        request.stream_of(item).clone(),
                        version.ok_or_else(senseless)?,
                        position.ok_or_else(senseless)?,
                    )
                });
                let events = events.collect::<Result<Vec<_>, _>>()?;
                if events.len() != request.events().len() {
                    return Err(senseless());
                }
                Judged::Appended(Appended { events, recorded_at: answer.recorded_at, replayed: false })
            }
            (2, _) => Judged::Appended(replayed.remove(&index).ok_or_else(senseless)?),
            (3, Some(stream_id)) => {
                let expectation = request.streams().iter().find(|s| s.stream_id == stream_id).ok_or_else(senseless)?;
                let actual = answer.actuals.get(index).copied().flatten().ok_or_else(senseless)?;
                let actual = version(actual)?;
                Judged::Conflict(VersionConflict { stream_id, expected: expectation.expected, actual })
            }
            (4, _) => Judged::Reused(command_id(request)?),
            (5, Some(stream_id)) => Judged::Busy(Contended::Stream(stream_id)),
            (5, None) => Judged::Busy(Contended::Command(command_id(request)?)),
            _ => return Err(senseless()),
        });
    }
    Ok(verdicts)
}

/// What the function answered, before it is put into words.
struct Answer {
    kinds: Vec<i16>,
    spots: Vec<Option<i32>>,
    actuals: Vec<Option<i64>>,
    versions: Vec<Option<i64>>,
    positions: Vec<Option<i64>>,
    recorded_at: Timestamp,
}

impl Answer {
    fn of(row: &PgRow) -> Result<Self, EventStoreError> {
        Ok(Self {
            kinds: column(row, 0)?,
            spots: column::<Option<_>>(row, 1)?.unwrap_or_default(),
            actuals: column::<Option<_>>(row, 2)?.unwrap_or_default(),
            versions: column(row, 3)?,
            positions: column(row, 4)?,
            recorded_at: Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 5)?),
        })
    }

    /// The receipts of the requests that were replayed, by request.
    fn replayed(&self, row: &PgRow) -> Result<HashMap<usize, Appended>, EventStoreError> {
        let Some(times) = column::<Option<Vec<Option<chrono::DateTime<chrono::Utc>>>>>(row, 10)? else {
            return Ok(HashMap::new());
        };
        let mut replayed = HashMap::new();
        for (index, _) in self.kinds.iter().enumerate().filter(|(_, kind)| **kind == 2) {
            let recorded_at = Timestamp::from(times.get(index).copied().flatten().ok_or_else(senseless)?);
            replayed.insert(index, Appended { events: Vec::new(), recorded_at, replayed: true });
        }
        // A receipt without events has none of these.
        let requests = column::<Option<Vec<i32>>>(row, 6)?.unwrap_or_default();
        let streams = column::<Option<Vec<String>>>(row, 7)?.unwrap_or_default();
        let versions = column::<Option<Vec<i64>>>(row, 8)?.unwrap_or_default();
        let positions = column::<Option<Vec<i64>>>(row, 9)?.unwrap_or_default();
        for (((request, stream), version), position) in requests.into_iter().zip(streams).zip(versions).zip(positions) {
            let stream = StreamId::new(stream)
                .map_err(|error| EventStoreError::corrupt_because("the stream of a receipt", error))?;
            let receipt = replayed.get_mut(&before(request)).ok_or_else(senseless)?;
            receipt.events.push(appended(stream, version, position)?);
        }
        Ok(replayed)
    }
}

pub(crate) fn appended(
    stream_id: StreamId,
    at_version: i64,
    at_position: i64,
) -> Result<AppendedEvent, EventStoreError> {
    Ok(AppendedEvent { stream_id, version: version(at_version)?, position: position(at_position)? })
}

/// The streams of a group in the order of the array that was sent.
fn distinct_streams<'a>(group: &[&'a AppendRequest]) -> Vec<&'a StreamId> {
    let mut seen = std::collections::HashSet::new();
    group.iter().flat_map(|r| r.streams()).map(|s| &s.stream_id).filter(|id| seen.insert(id.as_str())).collect()
}

fn command_id(request: &AppendRequest) -> Result<CommandId, EventStoreError> {
    request.command().map(|claim| claim.command_id.clone()).ok_or_else(senseless)
}

/// The index of something that the server counts from 1.
fn before(number: i32) -> usize {
    usize::try_from(number).unwrap_or_default().wrapping_sub(1)
}

pub(crate) fn senseless() -> EventStoreError {
    EventStoreError::corrupt("the append function gave an answer that makes no sense")
}
