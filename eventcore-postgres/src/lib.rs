//! The PostgreSQL adapter of [`eventcore`]: many instances on one database, one order, nothing missed.
//!
//! - Appends of one process share statements, and processes commit in parallel. Streams that are written or only read are
//!   judged under locks, so there is neither a lost update nor a write skew.
//! - Positions come from a sequence; a reader never looks past a position that somebody may still commit. A transaction
//!   that has nothing to do with the log holds nobody back.
//! - Followers are woken by LISTEN/NOTIFY and poll besides, so a lost notification costs a poll interval.
//!   Nobody listens or polls for a store that only appends or reads pages.
//! - Leaderships are leases with an epoch; a leader that was replaced cannot write any more.
//!
//! The schema is the library's own: [`migrate`] makes it, [`schema_sql`] prints it. Roles, pools, poolers, backup and
//! failover are in `docs/operations.md`.
//!
//! It asks of the server: PostgreSQL 14 or later, the primary, a database in UTF8, and read committed as the default
//! isolation level. Connecting checks all of it.
//!
//! The feature `tls` brings encrypted connections, checked against the certificate authorities of the web; `sslmode` and its
//! companions in the URL say whether they are used.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod append;
mod checkpoint;
mod config;
mod connections;
mod context;
mod dead_letter;
mod error;
mod fault;
mod feed;
mod health;
mod leadership;
mod notify;
mod pace;
mod read;
mod read_model;
mod retry;
mod rows;
mod schema;
mod schema_name;
mod snapshot;
mod store;
mod tail;

pub use config::PostgresConfig;
pub use context::PgContext;
pub use error::ConnectError;
pub use health::Health;
pub use schema::{SCHEMA_VERSION, migrate, schema_sql};
pub use schema_name::SchemaName;
pub use store::PostgresEventStore;

/// The library that speaks to the server. Its pools, connections and errors are part of this crate's interface.
pub use sqlx;
