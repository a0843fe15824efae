//! Many projections over one store: started together, supervised, looked at and rebuilt one by one.

mod config;
mod error;
mod follower;
mod live;
mod registry;
mod shared;
mod status;
mod switch;

pub use config::{LiveConfig, MaxRestarts};
pub use error::ManagerError;
pub use live::{LiveHandle, LiveState, LiveStates};
pub use registry::{ProjectionManager, ProjectionManagerBuilder};
pub use status::{ProjectionState, ProjectionStatus};
