//! Stores snapshots beside the executions that they are due in.

use super::{DueSnapshot, SnapshotPolicy};
use crate::{EventStoreError, Snapshot, SnapshotKey, SnapshotStore};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A bounded queue, and a task that lives while there are snapshots to come: the first one starts it.
pub(super) struct SnapshotWriter {
    store: Arc<dyn SnapshotStore>,
    policy: SnapshotPolicy,
    queue: Mutex<Queue>,
    /// What is queued or being stored. The next snapshot of the same is due soon enough.
    waiting: Arc<watch::Sender<HashSet<SnapshotKey>>>,
}

enum Queue {
    Idle,
    Running { sender: mpsc::Sender<DueSnapshot>, task: JoinHandle<()> },
    Ended,
}

impl SnapshotWriter {
    pub(super) fn new(store: Arc<dyn SnapshotStore>, policy: SnapshotPolicy) -> Self {
        let waiting = Arc::new(watch::Sender::new(HashSet::new()));
        Self { store, policy, queue: Mutex::new(Queue::Idle), waiting }
    }

    pub(super) const fn policy(&self) -> SnapshotPolicy {
        self.policy
    }

    pub(super) async fn load(&self, key: &SnapshotKey) -> Result<Option<Snapshot>, EventStoreError> {
        self.store.load_snapshot(key).await
    }

    /// Queues a snapshot, or drops it. Never waits.
    pub(super) fn store(&self, snapshot: DueSnapshot) {
        let key = snapshot.key().clone();
        let Some(sender) = self.sender() else {
            tracing::debug!(%key, "a snapshot is dropped: the executor was shut down");
            return;
        };
        if !self.waiting.send_if_modified(|waiting| waiting.insert(key.clone())) {
            return;
        }
        if let Err(error) = sender.try_send(snapshot) {
            tracing::warn!(%key, %error, "a snapshot is dropped");
            forget(&self.waiting, &key);
        }
    }

    /// Waits until nothing is queued or being stored.
    pub(super) async fn flush(&self) {
        if matches!(&*self.queue(), Queue::Running { sender, .. } if sender.is_closed()) {
            // The runtime of the task is gone, and what was queued with it.
            self.waiting.send_modify(HashSet::clear);
        }
        // The sender lives as long as this, so the wait ends only with an empty queue.
        let _ = self.waiting.subscribe().wait_for(HashSet::is_empty).await;
    }

    /// Stores what is queued, refuses what comes later, and ends the task.
    pub(super) async fn shut_down(&self) {
        let ended = std::mem::replace(&mut *self.queue(), Queue::Ended);
        if let Queue::Running { sender, task } = ended {
            drop(sender);
            if let Err(error) = task.await {
                tracing::error!(%error, "the task that stores snapshots failed");
            }
        }
    }

    fn sender(&self) -> Option<mpsc::Sender<DueSnapshot>> {
        let mut queue = self.queue();
        match &*queue {
            Queue::Ended => return None,
            Queue::Running { sender, .. } if !sender.is_closed() => return Some(sender.clone()),
            // Its runtime is gone, and what it had is not stored any more.
            Queue::Running { .. } => self.waiting.send_modify(HashSet::clear),
            Queue::Idle => {}
        }
        let (sender, receiver) = mpsc::channel(self.policy.queue);
        let task = tokio::spawn(run(receiver, Arc::clone(&self.store), Arc::clone(&self.waiting)));
        *queue = Queue::Running { sender: sender.clone(), task };
        Some(sender)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(
    mut queue: mpsc::Receiver<DueSnapshot>,
    store: Arc<dyn SnapshotStore>,
    waiting: Arc<watch::Sender<HashSet<SnapshotKey>>>,
) {
    while let Some(snapshot) = queue.recv().await {
        let key = snapshot.key().clone();
        save(&*store, snapshot).await;
        forget(&waiting, &key);
    }
}

async fn save(store: &dyn SnapshotStore, due: DueSnapshot) {
    let key = due.key().clone();
    // The state's own serde implementation runs here; its panic must not end the task.
    let snapshot = match catch_unwind(AssertUnwindSafe(|| due.make())) {
        Ok(Ok(snapshot)) => snapshot,
        Ok(Err(error)) => {
            tracing::warn!(%key, error = &error as &dyn std::error::Error, "a snapshot cannot be made");
            return;
        }
        Err(_) => {
            tracing::error!(%key, "a state panicked while it was encoded");
            return;
        }
    };
    match store.save_snapshot(&snapshot).await {
        Ok(()) => tracing::debug!(%key, position = %snapshot.position, "snapshot stored"),
        Err(error) => tracing::warn!(%key, error = &error as &dyn std::error::Error, "a snapshot is not stored"),
    }
}

fn forget(waiting: &watch::Sender<HashSet<SnapshotKey>>, key: &SnapshotKey) {
    waiting.send_modify(|waiting| {
        waiting.remove(key);
    });
}
