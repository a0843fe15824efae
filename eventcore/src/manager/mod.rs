//! Many projections over one store: started together, supervised, looked at and rebuilt one by one.

mod config;
mod error;
mod follower;
mod live;
mod rebuild;
mod registry;
mod shared;
mod status;
mod switch;
mod versions;

pub use config::{LiveConfig, MaxRestarts};
pub use error::ManagerError;
pub use live::{LiveHandle, LiveState, LiveStates};
pub use rebuild::{Rebuild, RebuildProgress, RebuildState};
pub use registry::{ProjectionManager, ProjectionManagerBuilder};
pub use status::{ProjectionState, ProjectionStatus};
