//! Why a store cannot be used.

use crate::SchemaName;
use thiserror::Error;

/// Why a store cannot be used: what is wrong, and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL makes no sense.
    #[error("the URL of the database is not understood; it reads postgres://user:password@host:port/database")]
    InvalidUrl {
        /// What is wrong with it.
        #[source]
        source: sqlx::Error,
    },
    /// Nothing answers there.
    #[error("the server cannot be reached; check host, port and that it runs")]
    Unreachable {
        /// What happened.
        #[source]
        source: sqlx::Error,
    },
    /// The server refused user or password.
    #[error("the server refused the user or the password")]
    WrongCredentials {
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
    /// The server has no database of this name.
    #[error("the server has no such database; create it first")]
    NoSuchDatabase {
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
    /// The server has no connection left.
    #[error("the server has no connection left; lower the pools of its clients or raise max_connections")]
    TooManyConnections {
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
    /// The role lacks a privilege.
    #[error("the role lacks a privilege; see the grants in docs/operations.md")]
    NotAllowed {
        /// What the server said.
        #[source]
        source: sqlx::Error,
    },
    /// The encrypted connection could not be made.
    #[error("the encrypted connection failed")]
    Tls {
        /// What happened.
        #[source]
        source: sqlx::Error,
    },
    /// There is no log in this schema.
    #[error("there is no log in schema {schema}; call migrate() or connect with migrate_on_connect(true)")]
    SchemaMissing {
        /// The schema.
        schema: SchemaName,
    },
    /// The schema is of an older version of the library.
    #[error("schema {schema} has version {found}, {needed} is needed; call migrate()")]
    SchemaOutdated {
        /// The schema.
        schema: SchemaName,
        /// The version found.
        found: i32,
        /// The version needed.
        needed: i32,
    },
    /// The schema is of a newer version of the library.
    #[error("schema {schema} has version {found}, this library knows up to {supported}; use a newer one")]
    SchemaNewer {
        /// The schema.
        schema: SchemaName,
        /// The version found.
        found: i32,
        /// The newest version known.
        supported: i32,
    },
    /// The schema is not what the migrations made.
    #[error("schema {schema} is damaged: {what}")]
    Damaged {
        /// The schema.
        schema: SchemaName,
        /// What was found.
        what: String,
    },
    /// The sequence of positions has other settings than the order of the log needs.
    #[error("the sequence {schema}.positions must have increment 1, cache 1, no cycle and minvalue 1; found {found}")]
    PositionSequence {
        /// The schema.
        schema: SchemaName,
        /// Its settings: increment, cache, cycle, minimum.
        found: String,
    },
    /// The server accepts no writes.
    #[error("the server is read-only for this role (default_transaction_read_only)")]
    ReadOnly,
    /// The server is a standby. It cannot see the locks that the order of the log stands on, not even for reading.
    #[error("the server is a standby; connect to the primary (target_session_attrs=read-write)")]
    Standby,
    /// The server is older than PostgreSQL 14.
    #[error("PostgreSQL 14 or later is needed, this is {found}")]
    ServerTooOld {
        /// Its version.
        found: String,
    },
    /// Sessions do not run under read committed.
    #[error("default_transaction_isolation must be read committed, it is {found}; set it for this role or database")]
    Isolation {
        /// The level found.
        found: String,
    },
    /// The database is not in UTF-8.
    #[error("the database must have the encoding UTF8, it has {found}")]
    Encoding {
        /// The encoding found.
        found: String,
    },
    /// The server refused for another reason.
    #[error("the database failed")]
    Failed {
        /// What happened.
        #[source]
        source: sqlx::Error,
    },
}
