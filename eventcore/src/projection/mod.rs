//! Projections: read models that follow the log.

mod config;
mod driver;
mod error;
mod flag;
mod machine;
mod page;
mod projector;
mod protocol;
mod replay;
mod report;

pub use config::{CheckpointPages, MaxConsecutiveFailures, MaxRetryAttempts, ProjectionConfig};
pub use driver::{ProjectionOutcome, ResetError, reset_projection, run_projection};
pub use error::ProjectionError;
pub use machine::ProjectionMachine;
pub use projector::{FailureContext, FailureStrategy, ProjectionFailure, Projector};
pub use protocol::{
    Applied, Fault, PageShape, ProjectionEffect, ProjectionInput, ProjectionRules, ProjectionStop, Signals,
};
pub use replay::{ReplayError, ReplayOutcome, replay_dead_letter, replay_dead_letters};
pub use report::ProgressReport;
pub(crate) use report::lag;
