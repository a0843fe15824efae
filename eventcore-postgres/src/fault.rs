//! What an error of the database means.

use eventcore::{EventStoreError, SharedError};
use sqlx::postgres::{PgDatabaseError, PgSeverity};

/// What an error of a statement means for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection is gone; what the statement did is unknown.
    Lost,
    /// Nothing was done, and the same may succeed in a moment.
    Passing,
    /// Nothing was done: a lock was not free in time.
    LockTimeout,
    /// Nothing was done: it was too much at once.
    TooMuch,
    /// Nothing was done, and the same will fail again.
    Final,
}

impl Fault {
    /// The meaning of an error that a statement, sent on a live connection, ended with.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        let Some(database) = postgres(error) else {
            return match error {
                sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => Self::Final,
                // What came back could not be read, or nothing did.
                _ => Self::Lost,
            };
        };
        match database.code() {
            "55P03" => Self::LockTimeout,
            "53200" | "54000" | "54001" => Self::TooMuch,
            "57014" => Self::Final,
            "40001" | "40P01" => Self::Passing,
            _ if matches!(database.severity(), PgSeverity::Fatal | PgSeverity::Panic) => Self::Lost,
            code if code == "40003" || code.starts_with("08") || code.starts_with("57P") => Self::Lost,
            _ => Self::Final,
        }
    }

    /// The meaning of an error that came before the statement was sent, while a connection was sought.
    pub(crate) fn of_acquire(error: &sqlx::Error) -> Self {
        match (postgres(error), error) {
            (Some(database), _) if matches!(database.code(), "53200" | "53300" | "57P03" | "57P01" | "57P02") => {
                Self::Passing
            }
            (None, sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed) => Self::Passing,
            _ => Self::Final,
        }
    }
}

/// The error of a port, for a statement whose outcome is not in doubt.
pub(crate) fn store_error(error: sqlx::Error) -> EventStoreError {
    let code = postgres(&error).map(|e| e.code().to_owned()).unwrap_or_default();
    let fault = Fault::of(&error);
    if matches!(error, sqlx::Error::PoolClosed) {
        return EventStoreError::Closed;
    }
    let source = SharedError::new(error);
    match (code.as_str(), fault) {
        ("53100", _) => EventStoreError::StorageFull { source },
        ("25006" | "EC002", _) => EventStoreError::ReadOnly { source },
        ("XX001" | "XX002", _) => {
            EventStoreError::Corrupt { what: "the server found damaged data".to_owned(), source: Some(source) }
        }
        ("57014" | "53300" | "53200", _) | (_, Fault::Lost | Fault::Passing | Fault::LockTimeout) => {
            EventStoreError::Unavailable { source }
        }
        _ => EventStoreError::Storage { source },
    }
}

/// The server's own words, if it spoke.
pub(crate) fn postgres(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()
}
