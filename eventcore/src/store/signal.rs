//! Waking the followers of a log.

use super::EventStoreError;
use std::sync::Arc;
use tokio::sync::watch;

/// The adapter's end: says that there may be something new. Never blocks, never grows.
#[derive(Debug, Clone)]
pub struct LogSignal(Arc<watch::Sender<u64>>);

impl Default for LogSignal {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

impl LogSignal {
    /// Wakes every follower that waits, and lets those that do not wait yet see that they need not.
    pub fn notify(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether any follower's end is left, so that an adapter need not look for what nobody waits for.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// A follower's end.
    #[must_use]
    pub fn watch(&self) -> LogWatch {
        LogWatch(self.0.subscribe())
    }
}

/// A follower's end: waits until there may be something new.
///
/// Make it before reading: a commit between the read and the wait is then not missed.
#[derive(Debug, Clone)]
pub struct LogWatch(watch::Receiver<u64>);

impl LogWatch {
    /// Waits until something was appended since this was made or last returned. It may return without need.
    ///
    /// # Errors
    /// [`EventStoreError::Closed`] once the store is gone.
    pub async fn changed(&mut self) -> Result<(), EventStoreError> {
        self.0.changed().await.map_err(|_| EventStoreError::Closed)
    }
}
