//! The limit of opening a store again: open, read the end of the log, one durable write.

use crate::Failure;
use eventcore_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use eventcore_sqlite::rusqlite;
use std::path::Path;

pub(crate) fn touch_sqlite(path: &Path) -> Result<(), Failure> {
    let connection = rusqlite::Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "full")?;
    let _: i64 = connection.query_row("select max(position) from eventcore_events", [], |row| row.get(0))?;
    connection.execute_batch("create table if not exists touched (at integer) strict")?;
    connection.execute("insert into touched (at) values (1)", [])?;
    Ok(())
}

pub(crate) async fn touch_postgres(url: &str, schema: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(url).await?;
    let last = format!("select max(position) from {schema}.events");
    let _: i64 = sqlx::query_scalar(AssertSqlSafe(last)).fetch_one(&mut connection).await?;
    let touch =
        format!("create table if not exists {schema}.touched (at bigint); insert into {schema}.touched values (1)");
    connection.execute(AssertSqlSafe(touch)).await?;
    Ok(connection.close().await?)
}
