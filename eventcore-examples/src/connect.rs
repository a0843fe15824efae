//! A store by its URL.

use eventcore::Backend;
use eventcore_memory::MemoryEventStore;
use eventcore_postgres::{PostgresConfig, PostgresEventStore};
use eventcore_sqlite::{SqliteConfig, SqliteEventStore};
use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use thiserror::Error;

/// Where events are kept: `memory`, `sqlite:PATH`, or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
///
/// Printed, it keeps a password to itself.
///
/// ```
/// use eventcore_examples::StoreUrl;
///
/// assert_eq!("memory".parse(), Ok(StoreUrl::Memory));
/// assert_eq!("sqlite:bank.db".parse(), Ok(StoreUrl::Sqlite("bank.db".into())));
/// let error = "bank.db".parse::<StoreUrl>().unwrap_err();
/// assert_eq!(error.to_string(), "\"bank.db\" names no store: expected memory, sqlite:PATH or postgres://..");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreUrl {
    /// In RAM; gone when the program ends.
    Memory,
    /// In a file, which is created where there is none.
    Sqlite(PathBuf),
    /// In a database of a PostgreSQL server, where the schema `eventcore` is made if there is none.
    Postgres(String),
}

/// The text names no store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} names no store: expected memory, sqlite:PATH or postgres://..")]
pub struct UnknownStore {
    text: String,
}

impl FromStr for StoreUrl {
    type Err = UnknownStore;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => Ok(Self::Postgres(text.to_owned())),
            _ => Err(UnknownStore { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

/// The URL with `***` for the password, wherever it stands.
fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        let (login, place) = rest.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{place}"))
    };
    let url = hidden().unwrap_or_else(|| url.to_owned());
    let Some((place, query)) = url.split_once('?') else { return url };
    let hide = |part: &str| if part.starts_with("password=") { "password=***".to_owned() } else { part.to_owned() };
    format!("{place}?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&"))
}

/// A store cannot be opened.
#[derive(Debug, Error)]
#[error("cannot open {url}")]
pub struct ConnectError {
    url: StoreUrl,
    #[source]
    source: Box<dyn StdError + Send + Sync>,
}

/// Opens the store that a URL names, behind the one type that the rest of an application needs to know.
///
/// # Errors
/// [`ConnectError`] with what the adapter says.
pub async fn connect(url: &StoreUrl) -> Result<Arc<dyn Backend>, ConnectError> {
    Ok(open(url).await?.backend())
}

/// A store, known by its adapter: what depends on its transactions needs that.
#[derive(Clone)]
#[non_exhaustive]
pub enum OpenStore {
    /// In RAM.
    Memory(MemoryEventStore),
    /// In a file.
    Sqlite(SqliteEventStore),
    /// On a PostgreSQL server.
    Postgres(PostgresEventStore),
}

impl OpenStore {
    /// The store, behind the one type.
    #[must_use]
    pub fn backend(&self) -> Arc<dyn Backend> {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }
}

/// There is nothing at the path.
#[derive(Debug, Error)]
#[error("there is no such file")]
struct NoFile;

/// Opens the store that a URL names, and makes it if it does not exist.
///
/// # Errors
/// [`ConnectError`] with what the adapter says.
pub async fn open(url: &StoreUrl) -> Result<OpenStore, ConnectError> {
    open_or_make(url, true).await
}

/// Opens the store that a URL names. It has to be there, and as this version of the library needs it.
///
/// # Errors
/// [`ConnectError`] if it is not, and with what the adapter says.
pub async fn open_existing(url: &StoreUrl) -> Result<OpenStore, ConnectError> {
    match url {
        StoreUrl::Sqlite(path) if !path.exists() => Err(ConnectError { url: url.clone(), source: NoFile.into() }),
        _ => open_or_make(url, false).await,
    }
}

async fn open_or_make(url: &StoreUrl, make: bool) -> Result<OpenStore, ConnectError> {
    let failed = |source| ConnectError { url: url.clone(), source };
    match url {
        StoreUrl::Memory => Ok(OpenStore::Memory(MemoryEventStore::new())),
        StoreUrl::Sqlite(path) => {
            match SqliteEventStore::open_with(path, SqliteConfig::default().create_if_missing(make)).await {
                Ok(store) => Ok(OpenStore::Sqlite(store)),
                Err(source) => Err(failed(source.into())),
            }
        }
        StoreUrl::Postgres(database) => {
            let config = PostgresConfig::default().migrate_on_connect(make);
            match PostgresEventStore::connect(database, config).await {
                Ok(store) => Ok(OpenStore::Postgres(store)),
                Err(source) => Err(failed(source.into())),
            }
        }
    }
}
