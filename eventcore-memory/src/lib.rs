//! The adapter of [`eventcore`] that keeps everything in RAM.
//!
//! It answers as the durable adapters do: the same guarantees, the same errors, the same limits. What it does not do is
//! outlive the process. Tests, read models that are rebuilt at every start, and trying things out are what it is for.
//!
//! ```
//! use eventcore::{AppendRequest, EventId, EventMetadata, EventStore, ExpectedVersion, NewEvent, Payload, SchemaVersion, StreamId};
//! use eventcore_memory::MemoryEventStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryEventStore::new();
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
//! assert_eq!(store.stream_version(&account).await?.get(), 1);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod followers;
mod index;
mod log;
mod payloads;
mod segments;
mod snapshots;
mod store;

pub use store::{MemoryConfig, MemoryEventStore};
