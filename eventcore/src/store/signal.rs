//! Waking the followers of a log.

use super::EventStoreError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// The adapter's end: says that there may be something new. Never blocks, never grows.
#[derive(Debug, Clone)]
pub struct LogSignal {
    count: Arc<watch::Sender<u64>>,
    look_every: Duration,
}

/// The signal of an adapter that may not hear of everything: followers look by themselves every 100 ms.
impl Default for LogSignal {
    fn default() -> Self {
        Self { count: Arc::new(watch::Sender::new(0)), look_every: Duration::from_millis(100) }
    }
}

impl LogSignal {
    /// The signal of an adapter that finds by itself whatever others append, at least as long as the log
    /// [is watched](Self::is_watched), as by looking once for all followers. These then look only every 5 s instead of every
    /// 100 ms ([`default`](Self::default)). If the adapter does not look, an append of another process is seen up to 5 s late.
    #[must_use]
    pub fn tended() -> Self {
        Self { look_every: Duration::from_secs(5), ..Self::default() }
    }

    /// Wakes every follower that waits, and lets those that do not wait yet see that they need not.
    pub fn notify(&self) {
        self.count.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether any follower's end is left, so that an adapter need not look for what nobody waits for.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.count.receiver_count() > 0
    }

    /// A follower's end.
    #[must_use]
    pub fn watch(&self) -> LogWatch {
        LogWatch { count: self.count.subscribe(), look_every: self.look_every }
    }
}

/// A follower's end: waits until there may be something new.
///
/// Make it before reading: a commit between the read and the wait is then not missed.
#[derive(Debug, Clone)]
pub struct LogWatch {
    count: watch::Receiver<u64>,
    look_every: Duration,
}

impl LogWatch {
    /// How long a follower waits at most before it looks by itself: 100 ms, or 5 s if the adapter
    /// [looks for all](LogSignal::tended).
    ///
    /// ```
    /// # use eventcore::{EventStoreError, LogWatch};
    /// /// Waits for something new, or until it is time to look.
    /// async fn changed_or_due(log: &mut LogWatch) -> Result<(), EventStoreError> {
    ///     tokio::time::timeout(log.look_every(), log.changed()).await.unwrap_or(Ok(()))
    /// }
    /// ```
    #[must_use]
    pub const fn look_every(&self) -> Duration {
        self.look_every
    }

    /// Has this follower look by itself after this time, for adapters that wrap another one, and followers in a hurry.
    ///
    /// ```
    /// # use eventcore::LogSignal;
    /// # use std::time::Duration;
    /// let mut watch = LogSignal::tended().watch();
    /// watch.set_look_every(Duration::from_secs(1));
    /// assert_eq!(watch.look_every(), Duration::from_secs(1));
    /// ```
    pub const fn set_look_every(&mut self, interval: Duration) {
        self.look_every = interval;
    }

    /// Waits until something was appended since this was made or last returned. It may return without need.
    ///
    /// # Errors
    /// [`EventStoreError::Closed`] once the store is gone.
    pub async fn changed(&mut self) -> Result<(), EventStoreError> {
        self.count.changed().await.map_err(|_| EventStoreError::Closed)
    }

    /// As [`changed`](Self::changed), but at most [`look_every`](Self::look_every).
    pub(crate) async fn changed_or_due(&mut self) -> Result<(), EventStoreError> {
        timeout(self.look_every, self.changed()).await.unwrap_or(Ok(()))
    }
}
