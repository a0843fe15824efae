//! The schema: migrations, and what has to hold before a store may be used.

use crate::fault::postgres;
use crate::{ConnectError, PostgresConfig, SchemaName};
use eventcore::LineageId;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

/// A step from one version of the schema to the next, in order from version 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_log.sql"),
    concat!(include_str!("../migrations/0002_following.sql"), include_str!("../migrations/0002_single_append.sql")),
    include_str!("../migrations/0003_group_append.sql"),
    include_str!("../migrations/0004_group_append.sql"),
];

/// The oldest server that is supported, as `server_version_num` tells it.
const OLDEST_SERVER: i32 = 140_000;

/// The version of the schema that this library writes.
pub const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// All migrations as one script for `psql`, for who makes a new schema by hand. [`migrate`] then finds nothing left to do.
///
/// ```
/// use eventcore_postgres::{SchemaName, schema_sql};
///
/// let script = schema_sql(&SchemaName::default());
/// assert!(script.contains("create table eventcore.events"));
/// ```
#[must_use]
pub fn schema_sql(schema: &SchemaName) -> String {
    let mut script = format!("begin;\n{}", prepare_sql(schema));
    for (version, _) in (1..).zip(MIGRATIONS) {
        script.push_str(&migration_sql(schema, version));
    }
    script + "commit;\n"
}

/// Brings the schema up to date, and tells its version. Any number of instances may do so at once; one does the work.
///
/// The role needs to be the owner of the schema, or be allowed to create it. Tables of the application, and its own
/// migrations, are not touched.
///
/// ```no_run
/// use eventcore_postgres::sqlx::{Connection, PgConnection};
/// use eventcore_postgres::{SchemaName, migrate};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut connection = PgConnection::connect("postgres://owner:secret@localhost/bank").await?;
/// let version = migrate(&mut connection, &SchemaName::default()).await?;
/// println!("the schema has version {version}");
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`ConnectError::SchemaNewer`] if a later version of the library was here, what is wrong with the server if a log cannot
/// be kept there, else what the server says. Nothing was changed then.
pub async fn migrate(connection: &mut PgConnection, schema: &SchemaName) -> Result<i32, ConnectError> {
    check_server(connection).await?;
    let mut transaction = connection.begin().await.map_err(ConnectError::from_sqlx)?;
    let guard = format!("eventcore migrations of {schema}");
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(guard)
        .execute(&mut *transaction)
        .await
        .map_err(ConnectError::from_sqlx)?;
    let found = match version(&mut transaction, schema).await? {
        Some(found) => found,
        None => {
            run(&mut transaction, prepare_sql(schema)).await?;
            0
        }
    };
    if found > SCHEMA_VERSION {
        return Err(ConnectError::SchemaNewer { schema: schema.clone(), found, supported: SCHEMA_VERSION });
    }
    for version in found + 1..=SCHEMA_VERSION {
        tracing::info!(%schema, version, "migrating");
        run(&mut transaction, migration_sql(schema, version)).await?;
    }
    transaction.commit().await.map_err(ConnectError::from_sqlx)?;
    Ok(SCHEMA_VERSION)
}

async fn run(connection: &mut PgConnection, script: String) -> Result<(), ConnectError> {
    sqlx::raw_sql(AssertSqlSafe(script)).execute(connection).await.map(drop).map_err(ConnectError::from_sqlx)
}

fn prepare_sql(schema: &SchemaName) -> String {
    format!(
        "create schema if not exists {schema};\n\
         create table {schema}.migrations (version integer not null primary key, applied_at timestamptz not null);\n"
    )
}

fn migration_sql(schema: &SchemaName, version: i32) -> String {
    let script = usize::try_from(version - 1).ok().and_then(|index| MIGRATIONS.get(index)).copied().unwrap_or_default();
    let script = script.replace("@schema@", schema.as_str());
    format!("{script}\ninsert into {schema}.migrations values ({version}, clock_timestamp());\n")
}

/// The version of the schema; `None` if there is none.
async fn version(connection: &mut PgConnection, schema: &SchemaName) -> Result<Option<i32>, ConnectError> {
    let migrations = format!("{schema}.migrations");
    let there: bool = sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(migrations)
        .fetch_one(&mut *connection)
        .await
        .map_err(ConnectError::from_sqlx)?;
    if !there {
        return Ok(None);
    }
    let sql = format!("select coalesce(max(version), 0) from {schema}.migrations");
    let found = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(ConnectError::from_sqlx)?;
    Ok(Some(found))
}

/// Checks everything that the guarantees stand on, and tells which log this is.
pub(crate) async fn check(connection: &mut PgConnection, config: &PostgresConfig) -> Result<LineageId, ConnectError> {
    let schema = &config.schema;
    check_server(connection).await?;
    match version(connection, schema).await? {
        None => return Err(ConnectError::SchemaMissing { schema: schema.clone() }),
        Some(found) if found > SCHEMA_VERSION => {
            return Err(ConnectError::SchemaNewer { schema: schema.clone(), found, supported: SCHEMA_VERSION });
        }
        Some(found) if found < SCHEMA_VERSION => {
            return Err(ConnectError::SchemaOutdated { schema: schema.clone(), found, needed: SCHEMA_VERSION });
        }
        Some(_) => {}
    }
    check_sequence(connection, schema).await?;
    let lineage: Option<Uuid> = sqlx::query_scalar(AssertSqlSafe(format!("select lineage from {schema}.log")))
        .fetch_optional(connection)
        .await
        .map_err(ConnectError::from_sqlx)?;
    let what = "its table log, which says which log this is, is empty";
    lineage.map(LineageId::from_uuid).ok_or_else(|| ConnectError::Damaged { schema: schema.clone(), what: what.into() })
}

/// What the order of the log asks of the server and of the session.
async fn check_server(connection: &mut PgConnection) -> Result<(), ConnectError> {
    let row = sqlx::query(
        "select current_setting('server_version_num')::integer, current_setting('server_version'), pg_is_in_recovery(), \
         current_setting('default_transaction_read_only') = 'on', current_setting('default_transaction_isolation'), \
         current_setting('server_encoding')",
    )
    .fetch_one(connection)
    .await
    .map_err(ConnectError::from_sqlx)?;
    let get = |index: usize| row.try_get::<String, _>(index).map_err(ConnectError::from_sqlx);
    let number: i32 = row.try_get(0).map_err(ConnectError::from_sqlx)?;
    let standby: bool = row.try_get(2).map_err(ConnectError::from_sqlx)?;
    let read_only: bool = row.try_get(3).map_err(ConnectError::from_sqlx)?;
    let (isolation, encoding) = (get(4)?, get(5)?);
    if number < OLDEST_SERVER {
        return Err(ConnectError::ServerTooOld { found: get(1)? });
    }
    if standby {
        return Err(ConnectError::Standby);
    }
    if read_only {
        return Err(ConnectError::ReadOnly);
    }
    if isolation != "read committed" {
        return Err(ConnectError::Isolation { found: isolation });
    }
    if encoding != "UTF8" {
        return Err(ConnectError::Encoding { found: encoding });
    }
    Ok(())
}

async fn check_sequence(connection: &mut PgConnection, schema: &SchemaName) -> Result<(), ConnectError> {
    let row = sqlx::query(
        "select seqincrement, seqcache, seqcycle, seqmin from pg_catalog.pg_sequence where seqrelid = to_regclass($1)",
    )
    .bind(format!("{schema}.positions"))
    .fetch_optional(&mut *connection)
    .await
    .map_err(ConnectError::from_sqlx)?;
    let settings = row.map(|row| {
        Ok::<_, sqlx::Error>((
            row.try_get::<i64, _>(0)?,
            row.try_get::<i64, _>(1)?,
            row.try_get::<bool, _>(2)?,
            row.try_get::<i64, _>(3)?,
        ))
    });
    match settings.transpose().map_err(ConnectError::from_sqlx)? {
        Some((1, 1, false, 1)) => {}
        found => return Err(ConnectError::PositionSequence { schema: schema.clone(), found: format!("{found:?}") }),
    }
    // Logical replication and partial dumps leave sequences behind. Events would land below those that followers have read.
    // Whatever is visible was drawn before, so a sequence in order is never behind, whoever appends meanwhile.
    let sql = format!(
        "select e.last, case when p.is_called then p.last_value else p.last_value - 1 end \
         from (select coalesce(max(position), 0) as last from {schema}.events) e, {schema}.positions p"
    );
    let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await.map_err(ConnectError::from_sqlx)?;
    let last: i64 = row.try_get(0).map_err(ConnectError::from_sqlx)?;
    let drawn: i64 = row.try_get(1).map_err(ConnectError::from_sqlx)?;
    if drawn < last {
        let what = format!("the sequence positions stands at {drawn}, behind the last event at {last}; set it to that");
        return Err(ConnectError::Damaged { schema: schema.clone(), what });
    }
    Ok(())
}

impl ConnectError {
    /// The meaning of an error while connecting.
    pub(crate) fn from_sqlx(error: sqlx::Error) -> Self {
        let code = postgres(&error).map(|e| e.code().to_owned()).unwrap_or_default();
        match (code.as_str(), &error) {
            ("28P01" | "28000", _) => Self::WrongCredentials { source: error },
            ("3D000", _) => Self::NoSuchDatabase { source: error },
            ("53300", _) => Self::TooManyConnections { source: error },
            ("42501", _) => Self::NotAllowed { source: error },
            ("25006", _) => Self::ReadOnly,
            ("57P03", _) | (_, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => Self::Unreachable { source: error },
            (_, sqlx::Error::Configuration(_)) => Self::InvalidUrl { source: error },
            (_, sqlx::Error::Tls(_)) => Self::Tls { source: error },
            _ => Self::Failed { source: error },
        }
    }
}
