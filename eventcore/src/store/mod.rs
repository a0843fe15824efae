//! The ports: what an adapter implements, the data that crosses them, and their errors.
//!
//! Ports speak bytes; the generic functions of this crate encode and decode at the edge. All ports are dyn-safe except
//! [`UnitOfWork`]'s transactional forms, and are implemented for `&T`, `Arc<T>` and `Box<T>` of every implementer.
//! The contract suite of `eventcore-testing` checks an implementation against everything that is said here.

mod append;
mod backend;
mod checkpoint;
mod dead_letter;
mod error;
mod filter;
mod leadership;
mod ports;
mod read;
mod read_model;
mod signal;
mod snapshot;
mod unit_of_work;

pub(crate) use append::MANY_STREAMS;
pub use append::{
    AppendLimits, AppendRequest, AppendRequestBuilder, Appended, AppendedEvent, CommandClaim, EventToAppend,
    Fingerprint, Receipt, StreamExpectation,
};
pub use backend::Backend;
pub use checkpoint::{
    Checkpoint, CheckpointError, CheckpointStore, FilterIdentity, LineageId, LogCursor, ProjectionName,
};
pub use dead_letter::{DeadLetter, DeadLetterId, DeadLetterStore};
pub use error::{ErrorKind, EventStoreError, InvalidAppend};
pub use filter::{EventFilter, StreamSelection};
pub use leadership::{Epoch, Leadership, LeadershipError, ProjectorCoordinator};
pub use ports::{EventReader, EventStore};
pub use read::{Page, PageSize, ReadStreams, StreamPage, StreamPosition, StreamsRead};
pub use read_model::{ReadModel, ReadModelStore, ReadModelVersion, VersionChange, VersionStep, VersionedUnitOfWork};
pub use signal::{LogSignal, LogWatch};
pub use snapshot::{FoldedStream, Snapshot, SnapshotKey, SnapshotSchema, SnapshotStore};
pub use unit_of_work::{InMemory, ProjectionContext, UnitOfWork};
