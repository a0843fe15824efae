//! How a projection is doing.

use crate::{EventStoreError, GlobalPosition, ProjectionName, SharedError};
use std::time::Duration;

/// What a projection is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProjectionState {
    /// It was not started, or was shut down.
    Stopped,
    /// It was paused, and keeps its place.
    Paused,
    /// Another instance leads it.
    Standby,
    /// It reads history.
    CatchingUp,
    /// It has seen everything there was.
    Live,
    /// The store failed or the projector panicked; it is tried again.
    Reconnecting,
    /// It ended for good, with this error.
    Failed(SharedError),
}

/// How a projection is doing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// The projection.
    pub name: ProjectionName,
    /// What it is doing.
    pub state: ProjectionState,
    /// How far it has come.
    pub position: Option<GlobalPosition>,
    /// The head of the log, as far as it is known: while the store does not say, the one it said last.
    pub head: Option<GlobalPosition>,
    /// Why the store did not say its head now; `None` if it did.
    pub head_error: Option<EventStoreError>,
    /// How many positions it is behind that head. Where the store leaves gaps, that is more than the number of events.
    pub lag: u64,
    /// How old its picture of the log is, as in [`ProgressReport::lag_time`](crate::ProgressReport::lag_time): zero while it
    /// is caught up, `None` as long as it has read nothing.
    pub lag_time: Option<Duration>,
    /// How many events it applied since it was started last.
    pub applied: u64,
    /// How many events it left out since it was started last, because they failed.
    pub skipped: u64,
    /// How many events became dead letters since it was started last.
    pub parked: u64,
    /// How many events it applied per second, in the last second that was measured; in the first one since it was started,
    /// on average since then.
    pub rate: f64,
    /// Whether this instance leads it. Always so for a read model in memory that runs.
    pub leader: bool,
    /// How often it was started again after it had failed.
    pub restarts: u32,
    /// The last error, even if it recovered.
    pub last_error: Option<SharedError>,
}
