//! Where it is measured: fresh stores, and fresh tables for the limit beside them.

use crate::Failure;
use crate::raw::{self, Raw, RawMemory, RawPostgres, RawSqlite};
use crate::resources::Meter;
use eventcore::Backend;
use eventcore_examples::StoreUrl;
use eventcore_memory::MemoryEventStore;
use eventcore_postgres::sqlx::{self, AssertSqlSafe, Connection, Executor, PgConnection};
use eventcore_postgres::{PostgresConfig, PostgresEventStore};
use eventcore_sqlite::SqliteEventStore;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SCHEMA: &str = "eventcore_benchmark";
pub(crate) const RAW_SCHEMA: &str = "eventcore_benchmark_raw";

#[derive(Debug, Clone)]
pub(crate) enum Place {
    Memory,
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    /// A place to measure at, where nothing of anybody else is.
    pub(crate) fn new(url: StoreUrl) -> Result<Self, Failure> {
        let place = Self::existing(url)?;
        match &place {
            Self::Sqlite(path) if path.exists() || raw_file(path).exists() => {
                let taken = path.display();
                Err(format!("{taken} or {taken}.raw exists; name a file that the benchmark may make and remove").into())
            }
            _ => Ok(place),
        }
    }

    /// A place where another process of the benchmark made a store.
    pub(crate) fn existing(url: StoreUrl) -> Result<Self, Failure> {
        match url {
            StoreUrl::Memory => Ok(Self::Memory),
            StoreUrl::Sqlite(path) => Ok(Self::Sqlite(path)),
            StoreUrl::Postgres(url) => Ok(Self::Postgres(url)),
            other => Err(format!("{other} cannot be measured").into()),
        }
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Whether positions have no gaps.
    pub(crate) const fn is_dense(&self) -> bool {
        !matches!(self, Self::Postgres(_))
    }

    pub(crate) async fn meter(&self) -> Result<Meter, Failure> {
        match self {
            Self::Postgres(url) => Ok(Meter::with_server(url).await?),
            _ => Ok(Meter::of_this_process()),
        }
    }

    /// A new store without events.
    pub(crate) async fn fresh(&self) -> Result<Arc<dyn Backend>, Failure> {
        match self {
            Self::Memory => return Ok(Arc::new(MemoryEventStore::new())),
            Self::Sqlite(path) => remove(path)?,
            Self::Postgres(url) => drop_schema(url, SCHEMA).await?,
        }
        self.another().await
    }

    /// How the command line names it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Memory => "memory".to_owned(),
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Another instance of the store that was made last, as another process would have it.
    pub(crate) async fn another(&self) -> Result<Arc<dyn Backend>, Failure> {
        match self {
            Self::Memory => Err("a store in memory has no second instance".into()),
            Self::Sqlite(path) => Ok(Arc::new(SqliteEventStore::open(path).await?)),
            Self::Postgres(url) => Ok(Arc::new(PostgresEventStore::connect(url, settings()?).await?)),
        }
    }

    /// Another instance with so many connections at most, where it has any.
    pub(crate) async fn small(&self, connections: u32) -> Result<Arc<dyn Backend>, Failure> {
        match self {
            Self::Postgres(url) => {
                let settings = settings()?.max_connections(connections);
                Ok(Arc::new(PostgresEventStore::connect(url, settings).await?))
            }
            _ => self.another().await,
        }
    }

    /// How many sessions a PostgreSQL server has for this database, beside the one that asks.
    pub(crate) async fn sessions(&self) -> Result<Option<u64>, Failure> {
        let Self::Postgres(url) = self else { return Ok(None) };
        let mut connection = PgConnection::connect(url).await?;
        let sessions: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity where datname = current_database() \
             and backend_type = 'client backend' and pid <> pg_backend_pid()",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        Ok(Some(u64::try_from(sessions)?))
    }

    /// What hand-written code does before its first answer: opens the store that was made last, reads the end of its log, and
    /// makes one durable write to a table of its own.
    pub(crate) async fn open_by_hand(&self) -> Result<(), Failure> {
        match self {
            Self::Memory => Err("a store in memory cannot be opened again".into()),
            Self::Sqlite(path) => tokio::task::block_in_place(|| raw::touch_sqlite(path)),
            Self::Postgres(url) => raw::touch_postgres(url, SCHEMA).await,
        }
    }

    /// New tables without rows, for the limit. `accounts` are known to them by name.
    pub(crate) async fn raw(&self, accounts: u32) -> Result<Raw, Failure> {
        match self {
            Self::Memory => Ok(Raw::Memory(RawMemory::default())),
            Self::Sqlite(path) => {
                let path = raw_file(path);
                remove(&path)?;
                Ok(Raw::Sqlite(RawSqlite::create(&path, accounts)?))
            }
            Self::Postgres(url) => {
                drop_schema(url, RAW_SCHEMA).await?;
                Ok(Raw::Postgres(RawPostgres::create(url).await?))
            }
        }
    }

    /// Leaves nothing behind.
    pub(crate) async fn clear(&self) -> Result<(), Failure> {
        match self {
            Self::Memory => Ok(()),
            Self::Sqlite(path) => {
                remove(path)?;
                remove(&raw_file(path))
            }
            Self::Postgres(url) => {
                drop_schema(url, SCHEMA).await?;
                drop_schema(url, RAW_SCHEMA).await
            }
        }
    }
}

fn settings() -> Result<PostgresConfig, Failure> {
    Ok(PostgresConfig::default().schema(SCHEMA.parse()?).migrate_on_connect(true))
}

async fn drop_schema(url: &str, schema: &str) -> Result<(), Failure> {
    let mut connection = PgConnection::connect(url).await?;
    connection.execute(AssertSqlSafe(format!("drop schema if exists {schema} cascade"))).await?;
    Ok(connection.close().await?)
}

fn raw_file(path: &Path) -> PathBuf {
    with_suffix(path, ".raw")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a database with everything that stands beside it under its name.
fn remove(path: &Path) -> Result<(), Failure> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let beside = [format!("{name}-wal"), format!("{name}-shm"), name.to_owned()];
    let leader = format!("{name}-leader-");
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let file = entry.file_name();
        let Some(file) = file.to_str() else { continue };
        if beside.iter().any(|own| own == file) || file.starts_with(&leader) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
