//! Consistent reads: those of concurrent commands share one statement.

use crate::connections::Connections;
use crate::retry::{Patience, repeatable};
use crate::rows::{EVENT_COLUMNS, EventRows, column, number, position, version};
use crate::{PostgresConfig, SchemaName};
use eventcore::{
    AppendedEvent, CommandClaim, CommandId, EventStoreError, Fingerprint, ReadStreams, Receipt, StreamId,
    StreamVersion, StreamsRead, Timestamp,
};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

/// Hands reads to the task that groups them. Clones share it; it ends when all are gone.
#[derive(Debug, Clone)]
pub(crate) struct Reads(mpsc::Sender<Queued>);

#[derive(Debug)]
struct Queued {
    request: ReadStreams,
    reply: oneshot::Sender<Result<StreamsRead, EventStoreError>>,
}

impl Reads {
    /// How many statements may be under way at once; while all are, further reads gather.
    const LANES: u32 = 2;
    /// The most reads in one statement.
    const GROUP: usize = 256;
    /// How many reads may wait before callers do.
    const QUEUE: usize = 1_024;

    pub(crate) fn spawn(connections: Connections, config: &PostgresConfig) -> Self {
        let (sender, mut queue) = mpsc::channel::<Queued>(Self::QUEUE);
        let lanes = Self::LANES.min(connections.pool().options().get_max_connections() / 2).max(1);
        let permits = Arc::new(Semaphore::new(lanes as usize));
        let reader = Arc::new(Reader {
            connections,
            sql: statement(&config.schema),
            limit: config.max_read_events,
            patience: Patience::of(config),
        });
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let mut group = vec![first];
                while group.len() < Self::GROUP
                    && let Ok(queued) = queue.try_recv()
                {
                    group.push(queued);
                }
                let reader = Arc::clone(&reader);
                tokio::spawn(async move {
                    reader.answer(group).await;
                    drop(permit);
                });
            }
        });
        Self(sender)
    }

    pub(crate) async fn read(&self, request: ReadStreams) -> Result<StreamsRead, EventStoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Queued { request, reply }).await.map_err(|_| EventStoreError::Closed)?;
        answer.await.unwrap_or(Err(EventStoreError::Closed))
    }
}

/// One statement for any number of streams and command ids, and so one snapshot.
///
/// Kinds: 0 an event of stream `i`, 1 the version of stream `i`, 2 an event of receipt `i`, 3 receipt `i`. The lateral form
/// with its limit reads each stream, and each receipt, by its index, whatever the planner knows about a young table.
fn statement(schema: &SchemaName) -> Arc<str> {
    format!(
        "(select 0::smallint, s.i::integer, null::uuid, null::timestamptz, {EVENT_COLUMNS} \
         from unnest($1::text[], $2::bigint[]) with ordinality as s(name, after, i) \
         cross join lateral (select * from {schema}.events x where x.stream = s.name and x.version > s.after \
         order by x.version limit $4) e limit $4) \
         union all \
         select 1::smallint, s.i::integer, null, null, null, null, e.version, null, null, null, null, null, null, null, null \
         from unnest($1::text[], $2::bigint[]) with ordinality as s(name, after, i) \
         cross join lateral (select x.version from {schema}.events x where x.stream = s.name \
         order by x.version desc limit 1) e where s.after > 0 \
         union all \
         select 3::smallint, c.i::integer, r.fingerprint, r.recorded_at, null, null, null, null, null, null, null, null, null, null, null \
         from unnest($3::text[]) with ordinality as c(id, i) \
         cross join lateral (select * from {schema}.receipts x where x.command_id = c.id limit 1) r \
         union all \
         select 2::smallint, c.i::integer, null, null, e.position, e.stream, e.version, null, null, null, null, null, null, null, null \
         from unnest($3::text[]) with ordinality as c(id, i) \
         cross join lateral (select x.positions from {schema}.receipts x where x.command_id = c.id limit 1) r \
         cross join lateral unnest(r.positions) as p(at) \
         cross join lateral (select * from {schema}.events x where x.position = p.at limit 1) e"
    )
    .into()
}

struct Reader {
    connections: Connections,
    sql: Arc<str>,
    limit: usize,
    patience: Patience,
}

impl Reader {
    async fn answer(&self, group: Vec<Queued>) {
        let (requests, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|q| (q.request, q.reply)).unzip();
        let answers = match self.read(&requests).await {
            // One of them may be too large; the others need not suffer for it.
            Err(EventStoreError::ReadTooLarge { .. }) if requests.len() > 1 => {
                let mut answers = Vec::with_capacity(requests.len());
                for request in &requests {
                    answers.push(
                        self.read(std::slice::from_ref(request)).await.map(|mut read| read.pop().unwrap_or_default()),
                    );
                }
                answers
            }
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
            Ok(reads) => reads.into_iter().map(Ok).collect(),
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            // Who no longer waits needs no answer.
            drop(reply.send(answer));
        }
    }

    async fn read(&self, requests: &[ReadStreams]) -> Result<Vec<StreamsRead>, EventStoreError> {
        let wanted = Wanted::of(requests);
        let rows = self.rows(&wanted).await?;
        let found = Found::of(&rows, &wanted)?;
        requests.iter().map(|request| found.answer(request, &wanted)).collect()
    }

    /// The rows, unless there are more events than one read may bring.
    async fn rows(&self, wanted: &Wanted<'_>) -> Result<Vec<PgRow>, EventStoreError> {
        let one_too_many = number(self.limit as u64).saturating_add(1);
        let rows = repeatable(&self.connections, self.patience, || {
            sqlx::query(AssertSqlSafe(Arc::clone(&self.sql)))
                .bind(&wanted.streams)
                .bind(&wanted.after)
                .bind(&wanted.commands)
                .bind(one_too_many)
        })
        .await?;
        let events = rows.iter().filter(|row| row.try_get::<i16, _>(0).is_ok_and(|kind| kind == 0)).count();
        if events > self.limit {
            return Err(EventStoreError::ReadTooLarge { limit: self.limit });
        }
        Ok(rows)
    }
}

/// What a group of reads wants, each thing once.
#[derive(Debug, Default)]
struct Wanted<'a> {
    streams: Vec<&'a str>,
    after: Vec<i64>,
    commands: Vec<&'a str>,
    stream_index: HashMap<(&'a str, i64), usize>,
    command_index: HashMap<&'a str, usize>,
    command_ids: Vec<&'a CommandId>,
}

impl<'a> Wanted<'a> {
    fn of(requests: &'a [ReadStreams]) -> Self {
        let mut wanted = Self::default();
        for request in requests {
            for stream in request.streams() {
                let key = (stream.stream_id.as_str(), number(stream.after.get()));
                wanted.stream_index.entry(key).or_insert_with(|| {
                    wanted.streams.push(key.0);
                    wanted.after.push(key.1);
                    wanted.streams.len() - 1
                });
            }
            if let Some(id) = request.command_id() {
                wanted.command_index.entry(id.as_str()).or_insert_with(|| {
                    wanted.commands.push(id.as_str());
                    wanted.command_ids.push(id);
                    wanted.commands.len() - 1
                });
            }
        }
        wanted
    }
}

/// What was found, by stream and by command.
#[derive(Debug)]
struct Found {
    events: Vec<Vec<eventcore::RecordedEvent>>,
    versions: Vec<StreamVersion>,
    receipts: Vec<Option<Receipt>>,
}

impl Found {
    fn of(rows: &[PgRow], wanted: &Wanted<'_>) -> Result<Self, EventStoreError> {
        let mut found = Self {
            events: wanted.streams.iter().map(|_| Vec::new()).collect(),
            versions: vec![StreamVersion::default(); wanted.streams.len()],
            receipts: vec![None; wanted.commands.len()],
        };
        let mut places: Vec<Vec<AppendedEvent>> = wanted.commands.iter().map(|_| Vec::new()).collect();
        let mut reader = EventRows::default();
        let wrong = || EventStoreError::corrupt("a consistent read brought rows that nobody asked for");
        for row in rows {
            let kind: i16 = column(row, 0)?;
            let index = usize::try_from(column::<i32>(row, 1)?).unwrap_or_default().wrapping_sub(1);
            match kind {
                0 => found.events.get_mut(index).ok_or_else(wrong)?.push(reader.event(row, 4)?),
                1 => *found.versions.get_mut(index).ok_or_else(wrong)? = version(column(row, 6)?)?,
                2 => {
                    let stream_id = StreamId::new(column::<&str>(row, 5)?)
                        .map_err(|error| EventStoreError::corrupt_because("the stream of a receipt", error))?;
                    let (version, position) = (version(column(row, 6)?)?, position(column(row, 4)?)?);
                    places.get_mut(index).ok_or_else(wrong)?.push(AppendedEvent { stream_id, version, position });
                }
                _ => {
                    let command_id = CommandId::clone(wanted.command_ids.get(index).ok_or_else(wrong)?);
                    let fingerprint = Fingerprint::from_uuid(column::<Uuid>(row, 2)?);
                    let recorded_at = Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 3)?);
                    let claim = CommandClaim { command_id, fingerprint };
                    let receipt = Receipt { claim, events: Vec::new(), recorded_at };
                    *found.receipts.get_mut(index).ok_or_else(wrong)? = Some(receipt);
                }
            }
        }
        for (events, version) in found.events.iter_mut().zip(&mut found.versions) {
            events.sort_unstable_by_key(eventcore::RecordedEvent::version);
            if let Some(last) = events.last() {
                *version = last.version();
            }
        }
        for (receipt, mut events) in found.receipts.iter_mut().zip(places) {
            events.sort_unstable_by_key(|event| event.position);
            if let Some(receipt) = receipt {
                receipt.events = events;
            }
        }
        Ok(found)
    }

    fn answer(&self, request: &ReadStreams, wanted: &Wanted<'_>) -> Result<StreamsRead, EventStoreError> {
        let indexes: Vec<usize> = request
            .streams()
            .iter()
            .filter_map(|s| wanted.stream_index.get(&(s.stream_id.as_str(), number(s.after.get()))).copied())
            .collect();
        let mut events: Vec<_> = indexes.iter().filter_map(|&i| self.events.get(i)).flatten().cloned().collect();
        events.sort_unstable_by_key(eventcore::RecordedEvent::position);
        let versions = indexes.iter().filter_map(|&i| self.versions.get(i)).copied().collect();
        let receipt = request.command_id().and_then(|id| wanted.command_index.get(id.as_str()));
        let receipt = receipt.and_then(|&i| self.receipts.get(i)).cloned().flatten();
        Ok(StreamsRead { events, versions, receipt })
    }
}
