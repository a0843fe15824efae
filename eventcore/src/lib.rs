//! Type-driven event sourcing.
//!
//! A *command* is a Rust type. It names the streams it needs; the library reads them in one consistent read, folds their
//! events into state, runs the pure decision, and appends the new events to any of those streams atomically, trying again
//! when somebody else was faster. *Projections* follow the one global order of all events.
//!
//! This crate holds the vocabulary, the ports and the machines; it knows no database. Pick an adapter:
//! `eventcore-memory` for tests, `eventcore-sqlite` for an embedded, durable store, `eventcore-postgres` for many instances
//! on one database. `eventcore-testing` tests commands without a store.
//!
//! # Overview
//!
//! - Names and numbers: [`StreamId`], [`StreamVersion`], [`GlobalPosition`], [`ExpectedVersion`], [`EventId`],
//!   [`CommandId`], [`EventType`], [`Timestamp`]. Each is validated when it is made and says what was wrong.
//! - Events: [`derive(Event)`](derive@Event) and the trait [`Event`], [`RecordedEvent`], [`EventMetadata`].
//! - Commands: [`derive(Command)`](derive@Command), [`CommandLogic`], [`execute`], [`CommandExecutor`], [`RetryPolicy`].
//! - Snapshots of command state: [`StateFold::with_snapshots`], [`CommandExecutor::snapshots`], [`SnapshotPolicy`];
//!   kept in memory: [`StateFold::by_state`], [`CommandExecutor::state_cache`].
//! - Projections: [`Projector`], [`run_projection`], [`ProjectionConfig`], [`EventFilter`], [`reset_projection`]; split
//!   over workers by stream: [`run_partitioned`]; many at once, supervised: [`ProjectionManager`].
//! - Read models that are rebuilt while they serve: [`ProjectionManager::rebuild`]; in the store's transaction:
//!   [`VersionedProjector`], [`run_versioned_projection`], [`ReadModelStore::request_rebuild`].
//! - Events that a projection gave up on: [`FailureStrategy::DeadLetter`], [`DeadLetter`], [`replay_dead_letter`].
//! - Following the log by hand: [`subscribe`], which loses nothing, and [`subscribe_lossy`], which slows nobody; waiting for
//!   a follower: [`Progress`].
//! - Watching a few streams as one folded state: [`watch`]; [`watch_lossy`], which is pushed and cut off when it is too slow;
//!   and [`watch_durable`], which remembers what it has shown.
//! - The machines behind all this, for those who write a driver of their own: [`decide`], [`ProjectionMachine`],
//!   [`PartMachine`], [`FeedMachine`].
//! - Ports, for adapters: [`EventStore`], [`EventReader`], [`CheckpointStore`], [`ProjectorCoordinator`], [`DeadLetterStore`],
//!   [`SnapshotStore`], [`UnitOfWork`], [`VersionedUnitOfWork`], all at once [`Backend`]; and the group-commit writer,
//!   [`spawn_writer`].
//!
//! # A command
//!
//! ```
//! use eventcore::{Command, CommandLogic, Event, NewEvents, RecordedEvent, StreamId, StreamName, ValidationError, require};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, Serialize, Deserialize, Event)]
//! #[event(namespace = "bank")]
//! enum BankEvent {
//!     MoneyDeposited { cents: u64 },
//!     MoneyWithdrawn { cents: u64 },
//! }
//!
//! struct AccountId(u32);
//!
//! impl StreamName for AccountId {
//!     fn stream_id(&self) -> Result<StreamId, ValidationError> {
//!         StreamId::new(format!("account-{}", self.0))
//!     }
//! }
//!
//! #[derive(Command)]
//! struct Withdraw {
//!     #[stream]
//!     account: AccountId,
//!     cents: u64,
//! }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("insufficient funds")]
//! struct InsufficientFunds;
//!
//! impl CommandLogic for Withdraw {
//!     type Event = BankEvent;
//!     type State = u64;
//!     type Error = InsufficientFunds;
//!
//!     fn apply(&self, balance: &mut u64, event: &RecordedEvent<BankEvent>) {
//!         match event.payload() {
//!             BankEvent::MoneyDeposited { cents } => *balance += cents,
//!             BankEvent::MoneyWithdrawn { cents } => *balance -= cents,
//!         }
//!     }
//!
//!     fn handle(&self, balance: &u64, streams: &WithdrawStreams) -> Result<NewEvents<Self>, InsufficientFunds> {
//!         require!(*balance >= self.cents, InsufficientFunds);
//!         Ok(NewEvents::new().append(&streams.account, BankEvent::MoneyWithdrawn { cents: self.cents }))
//!     }
//! }
//! ```
//!
//! `execute(&store, Withdraw { .. }).await` runs it against any adapter.
//!
//! # Failures
//!
//! Errors are enums by meaning. [`EventStoreError`], [`CommandError`] and [`ProjectionError`] tell through `kind()` a
//! conflict, a rejection, bad input, an unavailable store, an unknown outcome and damage apart ([`ErrorKind`]), and keep
//! their cause as `source()`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate self as eventcore;

mod command;
mod event;
mod feed;
mod manager;
mod projection;
mod shared_error;
mod store;
mod stream;
mod text;
mod validation;
mod watch;
mod writer;

pub use command::*;
pub use event::*;
pub use eventcore_macros::*;
pub use feed::*;
pub use manager::*;
pub use projection::*;
pub use shared_error::SharedError;
pub use store::*;
pub use stream::{
    ExpectedVersion, GlobalPosition, StreamCategory, StreamId, StreamName, StreamPrefix, StreamVersion, VersionConflict,
};
pub use validation::{Problem, ValidationError};
pub use watch::*;
pub use writer::*;

/// What the derives' code refers to. No part of the public interface: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::event::derived::*;
    pub use serde;
}
