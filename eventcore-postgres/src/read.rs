//! Consistent reads: those of concurrent commands share one statement.

use crate::connections::Connections;
use crate::retry::{Patience, Sink, Statement, repeatable_into};
use crate::rows::{EVENT_COLUMNS, EventRows, column, int8, limit_of, number, position, version};
use crate::{PostgresConfig, SchemaName};
use eventcore::{
    AppendedEvent, CommandClaim, CommandId, EventStoreError, Fingerprint, ReadStreams, Receipt, RecordedEvent,
    StreamId, StreamVersion, StreamsRead, Timestamp, let_callers_come,
};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgRow;
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
            statements: Statements::new(&config.schema),
            limit: config.max_read_events,
            patience: Patience::of(config),
        });
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
                let_callers_come(Self::GROUP, || queue.len()).await;
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

/// The statements, for one schema. Each is one snapshot.
struct Statements {
    /// The events of one stream from its beginning.
    stream: Arc<str>,
    /// The events of any number of streams from their beginnings.
    streams: Arc<str>,
    /// Any number of streams and command ids.
    everything: Arc<str>,
}

impl Statements {
    /// The server needs longer to set up the statement for everything than for what most commands read, which is small.
    ///
    /// The lateral form with its limit reads each stream, and each receipt, by its index, whatever the planner knows about a
    /// young table or how few streams there are: it follows the index for the order, and would rather sort what it takes for
    /// few rows if it saw the limit ([`limit_of`]). Kinds: 0 an event of stream `i`, 1 the version of stream `i`, 2 an event
    /// of receipt `i`, 3 receipt `i`.
    fn new(schema: &SchemaName) -> Self {
        let after = "from unnest($1::text[], $2::bigint[]) with ordinality as s(name, after, i)";
        let few = limit_of("$3");
        let events = format!(
            "{after} cross join lateral (select * from {schema}.events x where x.stream = s.name and x.version > s.after \
             order by x.version limit {few}) e limit $3"
        );
        let nulls = ["null"; 8].join(", ");
        Self {
            stream: format!(
                "select 1::bigint, {EVENT_COLUMNS} from {schema}.events e where e.stream = $1 and e.version > 0 \
                 order by e.version limit {}",
                limit_of("$2")
            )
            .into(),
            streams: format!("select s.i, {EVENT_COLUMNS} {events}").into(),
            everything: format!(
                "(select s.i, {EVENT_COLUMNS}, 0::smallint, null::text, null::uuid {events}) \
                 union all \
                 select s.i, null, e.version, {}, 1::smallint, null, null {after} \
                 cross join lateral (select x.version from {schema}.events x where x.stream = s.name \
                 order by x.version desc limit 1) e where s.after > 0 \
                 union all \
                 select c.i, {nulls}, r.recorded_at, 3::smallint, null, r.fingerprint \
                 from unnest($4::text[]) with ordinality as c(id, i) \
                 cross join lateral (select * from {schema}.receipts x where x.command_id = c.id limit 1) r \
                 union all \
                 select c.i, e.position, e.version, {}, 2::smallint, e.stream, null \
                 from unnest($4::text[]) with ordinality as c(id, i) \
                 cross join lateral (select x.positions from {schema}.receipts x where x.command_id = c.id limit 1) r \
                 cross join lateral unnest(r.positions) as p(at) \
                 cross join lateral (select * from {schema}.events x where x.position = p.at limit 1) e",
                ["null"; 7].join(", "),
                ["null"; 7].join(", "),
            )
            .into(),
        }
    }

    fn of<'q>(&self, wanted: &'q Wanted<'_>, limit: i64) -> Statement<'q> {
        let query = |sql: &Arc<str>| sqlx::query(AssertSqlSafe(Arc::clone(sql)));
        match (wanted.streams.as_slice(), wanted.is_whole_streams()) {
            ([stream], true) => query(&self.stream).bind(*stream).bind(limit),
            (streams, true) => query(&self.streams).bind(streams).bind(&wanted.after).bind(limit),
            (streams, false) => {
                query(&self.everything).bind(streams).bind(&wanted.after).bind(limit).bind(&wanted.commands)
            }
        }
    }
}

struct Reader {
    connections: Connections,
    statements: Statements,
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
        let one_too_many = number(self.limit as u64).saturating_add(1);
        let sink = || Found::new(&wanted, self.limit);
        let select = || self.statements.of(&wanted, one_too_many);
        let mut found = repeatable_into(&self.connections, self.patience, sink, select).await?.finish()?;
        Ok(requests.iter().map(|request| found.answer(request)).collect())
    }
}

/// What a group of reads wants, each thing once.
#[derive(Debug, Default)]
struct Wanted<'a> {
    streams: Vec<&'a str>,
    stream_ids: Vec<&'a StreamId>,
    /// How many of the reads want it.
    times: Vec<usize>,
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
                let index = *wanted.stream_index.entry(key).or_insert_with(|| {
                    wanted.streams.push(key.0);
                    wanted.stream_ids.push(&stream.stream_id);
                    wanted.after.push(key.1);
                    wanted.times.push(0);
                    wanted.streams.len() - 1
                });
                if let Some(times) = wanted.times.get_mut(index) {
                    *times += 1;
                }
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

    /// Whether nothing is wanted but streams from their beginnings.
    fn is_whole_streams(&self) -> bool {
        self.commands.is_empty() && self.after.iter().all(|after| *after == 0)
    }
}

/// What was found, by stream and by command.
#[derive(Debug)]
struct Found<'a> {
    wanted: &'a Wanted<'a>,
    whole_streams: bool,
    reader: EventRows,
    events: Vec<Vec<RecordedEvent>>,
    versions: Vec<StreamVersion>,
    receipts: Vec<Option<Receipt>>,
    /// The events of receipts.
    places: Vec<Vec<AppendedEvent>>,
    /// How many of those that want a stream have not been answered.
    times: Vec<usize>,
    count: usize,
    limit: usize,
    failed: Option<EventStoreError>,
}

impl Sink for Found<'_> {
    fn take(&mut self, row: PgRow) -> bool {
        if let Err(error) = self.add(&row) {
            self.failed = Some(error);
        }
        self.failed.is_none()
    }
}

impl<'a> Found<'a> {
    fn new(wanted: &'a Wanted<'a>, limit: usize) -> Self {
        let (streams, commands) = (wanted.streams.len(), wanted.commands.len());
        Self {
            wanted,
            whole_streams: wanted.is_whole_streams(),
            reader: EventRows::default(),
            events: vec![Vec::new(); streams],
            versions: vec![StreamVersion::default(); streams],
            receipts: vec![None; commands],
            places: vec![Vec::new(); commands],
            times: wanted.times.clone(),
            count: 0,
            limit,
            failed: None,
        }
    }

    /// Takes what a row says, unless there are more events than one read may bring.
    fn add(&mut self, row: &PgRow) -> Result<(), EventStoreError> {
        let wrong = || EventStoreError::corrupt("a consistent read brought rows that nobody asked for");
        let index = usize::try_from(int8(row, 0)?).unwrap_or_default().wrapping_sub(1);
        let kind = if self.whole_streams { 0 } else { column::<i16>(row, 10)? };
        match kind {
            0 => {
                self.count += 1;
                if self.count > self.limit {
                    return Err(EventStoreError::ReadTooLarge { limit: self.limit });
                }
                let stream_id = StreamId::clone(self.wanted.stream_ids.get(index).ok_or_else(wrong)?);
                let event = self.reader.event(row, 1, stream_id)?;
                self.events.get_mut(index).ok_or_else(wrong)?.push(event);
            }
            1 => *self.versions.get_mut(index).ok_or_else(wrong)? = version(int8(row, 2)?)?,
            2 => {
                let stream_id = StreamId::new(column::<&str>(row, 11)?)
                    .map_err(|error| EventStoreError::corrupt_because("the stream of a receipt", error))?;
                let (position, version) = (position(int8(row, 1)?)?, version(int8(row, 2)?)?);
                self.places.get_mut(index).ok_or_else(wrong)?.push(AppendedEvent { stream_id, version, position });
            }
            _ => {
                let command_id = CommandId::clone(self.wanted.command_ids.get(index).ok_or_else(wrong)?);
                let fingerprint = Fingerprint::from_uuid(column::<Uuid>(row, 12)?);
                let recorded_at = Timestamp::from(column::<chrono::DateTime<chrono::Utc>>(row, 9)?);
                let claim = CommandClaim { command_id, fingerprint };
                let receipt = Receipt { claim, events: Vec::new(), recorded_at };
                *self.receipts.get_mut(index).ok_or_else(wrong)? = Some(receipt);
            }
        }
        Ok(())
    }

    /// Puts into order what came in no promised one.
    fn finish(mut self) -> Result<Self, EventStoreError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        for (events, version) in self.events.iter_mut().zip(&mut self.versions) {
            events.sort_unstable_by_key(RecordedEvent::version);
            if let Some(last) = events.last() {
                *version = last.version();
            }
        }
        for (receipt, events) in self.receipts.iter_mut().zip(&mut self.places) {
            events.sort_unstable_by_key(|event| event.position);
            if let Some(receipt) = receipt {
                receipt.events = std::mem::take(events);
            }
        }
        Ok(self)
    }

    fn answer(&mut self, request: &ReadStreams) -> StreamsRead {
        let mut read = StreamsRead::default();
        for stream in request.streams() {
            let key = (stream.stream_id.as_str(), number(stream.after.get()));
            let Some(&index) = self.wanted.stream_index.get(&key) else { continue };
            read.versions.extend(self.versions.get(index));
            let (Some(events), Some(times)) = (self.events.get_mut(index), self.times.get_mut(index)) else { continue };
            // The last one who wants them gets the events themselves.
            *times = times.saturating_sub(1);
            match (*times, read.events.is_empty()) {
                (0, true) => read.events = std::mem::take(events),
                (0, false) => read.events.append(events),
                _ => read.events.extend_from_slice(events),
            }
        }
        read.events.sort_unstable_by_key(RecordedEvent::position);
        let receipt = request.command_id().and_then(|id| self.wanted.command_index.get(id.as_str()));
        read.receipt = receipt.and_then(|&i| self.receipts.get(i)).cloned().flatten();
        read
    }
}
