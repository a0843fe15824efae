//! Projections: read models that follow the log.

mod attempt;
mod config;
mod decoded;
mod driver;
mod error;
mod flag;
mod machine;
mod page;
mod partitioned;
mod parts;
mod projector;
mod protocol;
mod replay;
mod report;
mod versions;
mod workers;

pub use config::{CheckpointPages, MaxConsecutiveFailures, MaxRetryAttempts, ProjectionConfig};
pub use driver::{ProjectionOutcome, ResetError, reset_projection, run_projection};
pub use error::ProjectionError;
pub use machine::ProjectionMachine;
pub use partitioned::{PartitionContext, PartitionedConfig, PartitionedOutcome, run_partitioned};
pub use parts::{PageDone, PartDone, PartEffect, PartInput, PartMachine, Partitions};
pub use projector::{FailureContext, FailureStrategy, ProjectionFailure, Projector};
pub use protocol::{
    Applied, Fault, PageShape, ProjectionEffect, ProjectionInput, ProjectionRules, ProjectionStop, Signals,
};
pub use replay::{ReplayError, ReplayOutcome, replay_dead_letter, replay_dead_letters};
pub use report::ProgressReport;
pub(crate) use report::lag;
pub use versions::{VersionedProjector, run_versioned_projection};
