//! What can go wrong when a file is opened, and what SQLite's result codes mean.

use eventcore::{EventStoreError, SharedError};
use rusqlite::ErrorCode;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// A store could not be opened. The file was left as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no file or an empty one, and the configuration forbids to create a store.
    #[error("{path:?}: there is no store, and create_if_missing is off")]
    NotFound {
        /// The path given.
        path: PathBuf,
    },
    /// The directory that should hold the file does not exist.
    #[error("{path:?}: its directory does not exist; create it first")]
    MissingDirectory {
        /// The path given.
        path: PathBuf,
    },
    /// The path names a directory or something else that is no regular file.
    #[error("{path:?} is not a file")]
    NotAFile {
        /// The path given.
        path: PathBuf,
    },
    /// The file has another name, a hard link. SQLite keeps its write-ahead log by the name, so stores opened by two names
    /// would overwrite each other. A symbolic link does no harm.
    #[error("{path:?} has {names} names (hard links), through which the store would be damaged; remove all but one")]
    SeveralNames {
        /// The path given.
        path: PathBuf,
        /// How many names the file has.
        names: u64,
    },
    /// The file is no SQLite database.
    #[error("{path:?} is not a SQLite database")]
    NotADatabase {
        /// The path given.
        path: PathBuf,
        /// What SQLite said, unless the file is too short to be one.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// The file is a SQLite database of another program.
    #[error("{path:?} is a SQLite database of another program (application id {application_id}); give another path")]
    ForeignDatabase {
        /// The path given.
        path: PathBuf,
        /// The application id found in it; 0 if its program sets none.
        application_id: i32,
    },
    /// The file was written by a newer version of this library.
    #[error("{path:?} has schema version {found}, this version knows up to {supported}; use a newer version")]
    NewerSchema {
        /// The path given.
        path: PathBuf,
        /// The schema version of the file.
        found: i32,
        /// The newest schema version that this library knows.
        supported: i32,
    },
    /// The file or its directory cannot be written to.
    #[error("{path:?} is read-only; a store needs to write to the file and its directory")]
    ReadOnly {
        /// The path given.
        path: PathBuf,
        /// What SQLite said, unless the file's permissions already told.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// The file is a store whose content cannot be what was written.
    #[error("{path:?} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The path given.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// What SQLite said, if it noticed.
        #[source]
        source: Option<rusqlite::Error>,
    },
    /// Another process held the file locked for longer than the busy timeout.
    #[error("{path:?} is locked by another process; try again later")]
    Busy {
        /// The path given.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// There is no room for the schema.
    #[error("{path:?}: the storage is full")]
    StorageFull {
        /// The path given.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file system cannot hold a write-ahead log, as some network file systems.
    #[error("{path:?}: its file system supports no write-ahead log (journal mode stays {mode}); use a local disk")]
    NoWriteAheadLog {
        /// The path given.
        path: PathBuf,
        /// The journal mode that SQLite kept.
        mode: String,
    },
    /// The system refused, for example permission to look at the file or another thread.
    #[error("{path:?} cannot be opened")]
    Io {
        /// The path given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// SQLite refused for another reason.
    #[error("{path:?} cannot be opened")]
    Sqlite {
        /// The path given.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// An error of SQLite while `path` was being opened, by meaning.
    pub(crate) fn from_sqlite(path: PathBuf, source: rusqlite::Error) -> Self {
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotADatabase { path, source: Some(source) },
            Some(ErrorCode::DatabaseCorrupt) => {
                Self::Damaged { path, what: "SQLite finds it malformed".to_owned(), source: Some(source) }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly { path, source: Some(source) },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path, source },
            Some(ErrorCode::DiskFull) => Self::StorageFull { path, source },
            _ => Self::Sqlite { path, source },
        }
    }
}

/// An error of SQLite while a store was in use, by meaning.
pub(crate) fn store_error(error: rusqlite::Error) -> EventStoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => EventStoreError::unavailable(error),
        Some(ErrorCode::DiskFull) => EventStoreError::StorageFull { source: SharedError::new(error) },
        Some(ErrorCode::ReadOnly) => EventStoreError::ReadOnly { source: SharedError::new(error) },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            EventStoreError::corrupt_because("SQLite finds the file malformed", error)
        }
        Some(_) => EventStoreError::storage(error),
        // Not SQLite but a value that is not what its column holds.
        None if is_conversion(&error) => {
            EventStoreError::corrupt_because("a column holds a value of another kind", error)
        }
        None if matches!(error, rusqlite::Error::QueryReturnedNoRows) => {
            EventStoreError::corrupt_because("a row that another one refers to is missing", error)
        }
        None => EventStoreError::storage(error),
    }
}

fn is_conversion(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::Utf8Error(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}
