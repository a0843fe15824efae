//! How far the log is known to reach, and waking its followers.

use eventcore::{LogSignal, LogWatch};
use std::sync::atomic::{AtomicU64, Ordering};

/// Shared by the writer, which announces what it committed, and the poller, which announces what others did.
#[derive(Default)]
pub(crate) struct Head {
    signal: LogSignal,
    /// The highest position that followers were woken for.
    announced: AtomicU64,
}

impl Head {
    /// A head that is at `position` when the store is opened; followers read that far without being woken.
    pub(crate) fn at(position: u64) -> Self {
        Self { signal: LogSignal::tended(), announced: AtomicU64::new(position) }
    }

    /// Wakes the followers if the log reaches further than they were told.
    pub(crate) fn announce(&self, position: u64) {
        if self.announced.fetch_max(position, Ordering::AcqRel) < position {
            self.signal.notify();
        }
    }

    /// Wakes the followers in any case, so that they find the store closed.
    pub(crate) fn wake(&self) {
        self.signal.notify();
    }

    pub(crate) fn watch(&self) -> LogWatch {
        self.signal.watch()
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.signal.is_watched()
    }
}
