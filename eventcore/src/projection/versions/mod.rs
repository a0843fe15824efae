//! Read models that are built anew beside the one that serves.

mod child;
mod led;
mod named;
mod projector;
mod run;

pub use projector::VersionedProjector;
pub use run::run_versioned_projection;
