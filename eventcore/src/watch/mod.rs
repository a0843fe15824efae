//! Watching a few streams as one folded state.

mod durable;
mod fold;
mod watcher;

pub use durable::{DurableWatcher, watch_durable};
pub use fold::StreamState;
pub use watcher::{Freshness, WatchError, Watched, Watcher, watch};
