//! The limit on PostgreSQL: the columns and indexes of the library's table, one autocommit statement per group.

use super::{Insert, RawRow, fold};
use crate::Failure;
use crate::domain::{Account, DEPOSITED, Entry};
use crate::place::RAW_SCHEMA;
use eventcore::StreamName;
use eventcore_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection, Row};
use futures_util::TryStreamExt;
use std::collections::HashMap;

pub(crate) struct RawPostgres {
    url: String,
    connection: PgConnection,
    insert_one: String,
    insert_many: String,
    insert_plain: String,
}

impl RawPostgres {
    pub(crate) async fn create(url: &str) -> Result<Self, Failure> {
        let mut raw = Self::connect(url).await?;
        let schema = format!(
            "create schema {RAW_SCHEMA};
            create sequence {RAW_SCHEMA}.positions;
            create table {RAW_SCHEMA}.events (
                position bigint not null primary key, stream text collate \"C\" not null, version bigint not null,
                event_id uuid not null, type text collate \"C\" not null, schema_version integer not null,
                content_type text not null, payload_json json, payload_bytes bytea, metadata json,
                recorded_at timestamptz not null, command_id text collate \"C\", unique (stream, version)
            );
            create index on {RAW_SCHEMA}.events (type, position);"
        );
        raw.connection.execute(AssertSqlSafe(schema)).await?;
        Ok(raw)
    }

    async fn connect(url: &str) -> Result<Self, Failure> {
        let into = format!(
            "insert into {RAW_SCHEMA}.events \
            (position, stream, version, event_id, type, schema_version, content_type, payload_json, recorded_at) \
            select nextval('{RAW_SCHEMA}.positions')"
        );
        let last = |stream: &str| {
            format!(
                "select e.version from {RAW_SCHEMA}.events e where e.stream = {stream} order by e.version desc limit 1"
            )
        };
        let rest = format!("'{DEPOSITED}', 1, 'application/json'");
        let rows = "unnest($1::text[], $2::bigint[], $3::uuid[], $4::text[]) as u(stream, expected, id, json)";
        let many =
            format!("{into}, u.stream, u.expected + 1, u.id, {rest}, u.json::json, clock_timestamp() from {rows}");
        Ok(Self {
            url: url.to_owned(),
            connection: PgConnection::connect(url).await?,
            insert_one: format!(
                "{into}, $1, $2 + 1, $3, {rest}, $4::text::json, clock_timestamp() where $2 = coalesce(({}), 0)",
                last("$1")
            ),
            insert_many: format!(
                "{many} left join lateral ({}) v on true where u.expected = coalesce(v.version, 0)",
                last("u.stream")
            ),
            insert_plain: many,
        })
    }

    /// Another session on the same tables.
    pub(crate) async fn another(&self) -> Result<Self, Failure> {
        Self::connect(&self.url).await
    }

    pub(crate) async fn insert(&mut self, rows: &[RawRow], insert: Insert) -> Result<usize, Failure> {
        let done = if let ([row], Insert::Conditional) = (rows, insert) {
            let one = sqlx::query(AssertSqlSafe(self.insert_one.as_str()));
            one.bind(&row.stream)
                .bind(row.expected)
                .bind(row.id)
                .bind(&row.payload)
                .execute(&mut self.connection)
                .await?
        } else {
            let sql = if insert == Insert::Plain { &self.insert_plain } else { &self.insert_many };
            let many = sqlx::query(AssertSqlSafe(sql.as_str()))
                .bind(rows.iter().map(|row| row.stream.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.expected).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.id).collect::<Vec<_>>())
                .bind(rows.iter().map(|row| row.payload.as_str()).collect::<Vec<_>>());
            many.execute(&mut self.connection).await?
        };
        Ok(usize::try_from(done.rows_affected())?)
    }

    pub(crate) async fn fold_all(&mut self) -> Result<HashMap<u32, i64>, Failure> {
        let mut balances = HashMap::new();
        let sql = format!("select payload_json::text from {RAW_SCHEMA}.events order by position");
        let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await? {
            fold(&mut balances, row.try_get::<&str, _>(0)?.as_bytes())?;
        }
        Ok(balances)
    }

    pub(crate) async fn fold_one(&mut self, account: Account) -> Result<i64, Failure> {
        let mut balance = 0;
        let sql = format!("select payload_json::text from {RAW_SCHEMA}.events where stream = $1 order by version");
        let stream = account.stream_id()?.to_string();
        let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(stream).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await? {
            balance += serde_json::from_str::<Entry>(row.try_get(0)?)?.amount;
        }
        Ok(balance)
    }
}
