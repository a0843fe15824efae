//! The adapter of [`eventcore`] that keeps everything in one SQLite file: embedded, durable, and nothing to install.
//!
//! ```
//! use eventcore::{AppendRequest, EventId, EventMetadata, EventStore, ExpectedVersion, NewEvent, Payload, SchemaVersion, StreamId};
//! use eventcore_sqlite::SqliteEventStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("bank.db");
//! let store = SqliteEventStore::open(path).await?;
//! let account = StreamId::new("account-1")?;
//! let opened = NewEvent {
//!     id: EventId::generate(),
//!     event_type: "bank.AccountOpened".parse()?,
//!     schema_version: SchemaVersion::default(),
//!     payload: Payload::json(r#"{"owner":"alice"}"#),
//!     metadata: EventMetadata::empty(),
//! };
//! let request = AppendRequest::builder()
//!     .expect(account.clone(), ExpectedVersion::NoStream)
//!     .event(account.clone(), opened)
//!     .build()?;
//! let appended = store.append(request).await?;
//! assert_eq!(appended.events[0].position.get(), 1);
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! - **Durable**: an append is acknowledged after SQLite has synced it to the disk (WAL mode, `synchronous=FULL`). Appends
//!   that wait at the same time share one commit.
//! - **Readable at any time**: reads run on connections of their own and are never blocked by writers. One consistent read
//!   is made in one read transaction; reads that wait at the same time share one, which begins after all of them were asked
//!   for.
//! - **Positions without gaps**, from 1.
//! - **Immutable**: triggers refuse to change, delete or replace events, stream names, event type names and receipts, also
//!   to other programs that write to the file. Receipts can be deleted, which is what pruning does. Nothing keeps
//!   a program from dropping the triggers themselves, or the tables.
//! - **Several processes** may use one file. Followers notice what another process appended within 25 ms; within a second, if
//!   its sync took more than three.
//! - **One leader** per projection, by a lock on a side file `<file>-leader-<uuid>.lock`, which the kernel releases when the
//!   process dies. A process that is stopped (`SIGSTOP`, a debugger) keeps its leadership until it goes on or dies.
//! - **Exactly-once** projections: [`SqliteContext`] is a transaction of the store itself.
//!
//! The file, its `-wal` and its `-shm` belong together and must be on a local disk. Copy them only with the store closed,
//! or by SQLite's own backup, and put another one in its place only with the store closed: connections that are opened later
//! refuse that one ([`Corrupt`](eventcore::EventStoreError::Corrupt)), while those that are open stay with the old one. A symbolic
//! link to the file is the same store; a hard link is refused.
//!
//! # What is inside
//!
//! All tables begin with `eventcore_`; other names are free for the read models of exactly-once projections.
//!
//! | table | holds |
//! |---|---|
//! | `eventcore_events` | the log; `position` is the key. The payload is stored as the bytes that were given, whatever they are |
//! | `eventcore_streams`, `eventcore_event_types` | the names behind the numbers in the log, so that each is stored once |
//! | `eventcore_receipts` | the commands that were executed, and where their events are |
//! | `eventcore_checkpoints` | how far followers have come, and the epoch of their leader |
//! | `eventcore_meta` | the identity of the log |
//!
//! The header names the program (`application_id`, "EvCo") and the schema version (`user_version`). A newer version of the
//! library brings an older file up to date when it opens it.
//!
//! # Settings
//!
//! [`SqliteConfig`] has them all, with their defaults. The pages of an exactly-once projection hold the write lock; how long
//! is a setting of the projection ([`ProjectionConfig::hold_time`](eventcore::ProjectionConfig::hold_time)), since it is the
//! projection that ends them.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod append;
mod checkpoint;
mod config;
mod connection;
mod dead_letter;
mod decode;
mod error;
mod gate;
mod group;
mod head;
mod ids;
mod index;
mod leadership;
mod log_size;
mod notify;
mod page;
mod patrol;
mod queue;
mod read;
mod read_model;
mod receipt;
mod schema;
mod side;
mod snapshot;
mod still;
mod store;
mod store_file;
mod stream;
mod stretch;
mod unit_of_work;
mod workers;

pub use config::{PollInterval, ReaderPoolSize, SqliteConfig, Synchronous};
pub use error::OpenError;
pub use index::ReadIndex;
pub use store::SqliteEventStore;
pub use unit_of_work::SqliteContext;

/// The version of SQLite's binding, whose types are part of this crate's interface.
pub use rusqlite;
