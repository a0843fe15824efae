//! Watching a few streams as one folded state.

mod durable;
mod fold;
mod lossy;
mod watcher;

pub use durable::{DurableWatcher, watch_durable};
pub use fold::StreamState;
pub use lossy::{LossyWatcher, watch_lossy};
pub use watcher::{Freshness, WatchError, Watched, Watcher, watch};
