//! Commands: read streams, decide, append atomically.

mod cache;
mod context;
mod error;
mod executor;
mod fold;
mod joint;
mod known;
mod lobby;
mod machine;
mod new_events;
mod outcome;
mod queues;
mod recall;
mod retry;
mod snapshot;
mod snapshot_writer;
mod streams;
mod traits;

pub use cache::{CacheKey, CachedState};
pub use context::CommandContext;
pub use error::CommandError;
pub use executor::{CommandExecutor, execute};
pub use fold::{SnapshotState, StateFold};
pub use machine::{
    Appending, DecisionOptions, DecisionStep, Entropy, Keeping, Loading, Reading, Waiting, decide, decide_with,
};
pub use new_events::NewEvents;
pub use outcome::ExecutionOutcome;
pub use recall::Recalling;
pub use retry::{BackoffMultiplier, MaxAttempts, RetryPolicy};
pub use snapshot::{DueSnapshot, SnapshotFailure, SnapshotPolicy};
pub use streams::{Discovered, DiscoveredStreams, ReadHandle, StreamBinder, StreamHandle};
pub use traits::{Command, CommandLogic};
