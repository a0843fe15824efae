//! Many projections over one store: started together, supervised, looked at and rebuilt one by one.

mod config;
mod error;
mod follower;
mod letters;
mod live;
mod models;
mod partitioned;
mod rebuild;
mod registry;
mod runner;
mod shared;
mod status;
mod switch;
mod tail;
mod versions;
mod window;

pub use config::{LiveConfig, MaxRestarts};
pub use error::ManagerError;
pub use follower::Replayed;
pub use live::{LiveHandle, LiveState, LiveStates};
pub use rebuild::{Rebuild, RebuildProgress, RebuildState};
pub use registry::{ProjectionManager, ProjectionManagerBuilder};
pub use status::{ProjectionState, ProjectionStatus};
pub use window::WindowLimits;
