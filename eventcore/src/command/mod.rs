//! Commands: read streams, decide, append atomically.

mod context;
mod error;
mod executor;
mod machine;
mod new_events;
mod outcome;
mod queues;
mod retry;
mod streams;
mod traits;

pub use context::CommandContext;
pub use error::CommandError;
pub use executor::{CommandExecutor, execute};
pub use machine::{Appending, DecisionStep, Entropy, Reading, Waiting, decide};
pub use new_events::NewEvents;
pub use outcome::ExecutionOutcome;
pub use retry::{BackoffMultiplier, MaxAttempts, RetryPolicy};
pub use streams::{Discovered, DiscoveredStreams, ReadHandle, StreamBinder, StreamHandle};
pub use traits::{Command, CommandLogic};
