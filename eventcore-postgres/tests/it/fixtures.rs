//! A log of its own for every test, and what tests put into it.

use eventcore::{
    AppendRequest, Command, CommandLogic, Event, EventId, EventMetadata, ExpectedVersion, NewEvent, NewEvents, Payload,
    RecordedEvent, SchemaVersion, StreamId,
};
use eventcore_postgres::{PostgresConfig, PostgresEventStore, SchemaName};
use eventcore_testing::HarnessError;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::time::Duration;
use uuid::Uuid;

/// How long anything may take that is waited for. It is an upper bound for what hangs, on a machine that has other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A log of its own on a server.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) url: String,
    pub(crate) schema: SchemaName,
}

impl Log {
    /// On the server that all tests share.
    pub(crate) fn new() -> Result<Self, HarnessError> {
        Self::at(eventcore_testing::postgres::shared_url()?)
    }

    pub(crate) fn at(url: String) -> Result<Self, HarnessError> {
        let schema = format!("t_{}", Uuid::now_v7().simple()).parse()?;
        Ok(Self { url, schema })
    }

    /// So patient that a machine that stands still for some seconds costs nobody a lock, a leadership or a page. Tests of
    /// what impatience does choose their own times.
    pub(crate) fn config(&self) -> PostgresConfig {
        let config = PostgresConfig::default().schema(self.schema.clone()).migrate_on_connect(true).max_connections(6);
        let patient = config.retry_for(Duration::from_secs(60)).lock_timeout(Duration::from_secs(60));
        patient.beat_interval(Duration::from_secs(30)).page_idle_timeout(Duration::from_secs(60))
    }

    pub(crate) async fn open(&self) -> Result<PostgresEventStore, HarnessError> {
        Ok(PostgresEventStore::connect(&self.url, self.config()).await?)
    }

    /// A connection past the store.
    pub(crate) async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs statements past the store, in which `@` stands for the log's schema.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), sqlx::Error> {
        let mut connection = PgConnection::connect(&self.url).await?;
        sqlx::raw_sql(AssertSqlSafe(self.sql(sql))).execute(&mut connection).await?;
        connection.close().await
    }

    /// A number that the server answers.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let mut connection = self.connection().await;
        let number = sqlx::query_scalar(AssertSqlSafe(self.sql(sql))).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    }

    pub(crate) fn sql(&self, sql: &str) -> String {
        sql.replace('@', self.schema.as_str())
    }

    pub(crate) async fn remove(self) -> Result<(), HarnessError> {
        Ok(self.run("set client_min_messages = warning; drop schema if exists @ cascade").await?)
    }
}

pub(crate) fn stream(name: impl AsRef<str>) -> StreamId {
    StreamId::new(name).unwrap()
}

pub(crate) fn event_of(event_type: &str, payload: &str) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: event_type.parse().unwrap(),
        schema_version: SchemaVersion::default(),
        payload: Payload::json(payload.to_owned()),
        metadata: EventMetadata::empty(),
    }
}

pub(crate) fn event() -> NewEvent {
    event_of("test.Counted", "{}")
}

/// One event to one stream.
pub(crate) fn append_to(stream: &StreamId, expected: ExpectedVersion) -> AppendRequest {
    AppendRequest::builder().expect(stream.clone(), expected).event(stream.clone(), event()).build().unwrap()
}

/// The events of commands in these tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
pub(crate) enum Counted {
    Counted {},
}

/// How many events its streams hold.
#[derive(Debug, Default)]
pub(crate) struct Count(pub(crate) u64);

/// Counts one up in one stream.
#[derive(Debug, Clone, Command)]
pub(crate) struct CountUp {
    #[stream]
    pub(crate) counter: StreamId,
}

impl CommandLogic for CountUp {
    type Event = Counted;
    type State = Count;
    type Error = std::convert::Infallible;

    fn apply(&self, state: &mut Count, _: &RecordedEvent<Counted>) {
        state.0 += 1;
    }

    fn handle(&self, _: &Count, streams: &CountUpStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&streams.counter, Counted::Counted {}))
    }
}

/// Counts one up in two streams at once.
#[derive(Debug, Clone, Command)]
pub(crate) struct CountBoth {
    #[stream]
    pub(crate) one: StreamId,
    #[stream]
    pub(crate) two: StreamId,
}

impl CommandLogic for CountBoth {
    type Event = Counted;
    type State = Count;
    type Error = std::convert::Infallible;

    fn apply(&self, state: &mut Count, _: &RecordedEvent<Counted>) {
        state.0 += 1;
    }

    fn handle(&self, _: &Count, streams: &CountBothStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&streams.one, Counted::Counted {}).append(&streams.two, Counted::Counted {}))
    }
}
