//! The callers' side of the writer.

use super::Verdict;
use crate::{AppendRequest, EventStoreError};
use tokio::sync::{mpsc, oneshot, watch};

/// A request on its way to the writer.
pub(super) struct Queued {
    pub(super) request: AppendRequest,
    pub(super) reply: oneshot::Sender<Verdict>,
}

/// Hands requests to the writer. Clones share its queue.
///
/// When every handle is gone, or one of them called [`close`](Self::close), the writer finishes its queue and ends.
#[derive(Debug, Clone)]
pub struct WriterHandle {
    queue: mpsc::Sender<Queued>,
    closing: watch::Sender<bool>,
}

impl WriterHandle {
    pub(super) fn new(queue: mpsc::Sender<Queued>, closing: watch::Sender<bool>) -> Self {
        Self { queue, closing }
    }

    /// Appends; waits for room in the queue, then for the commit. Who drops the future after the request was queued only
    /// loses the answer: the append may still happen.
    ///
    /// # Errors
    /// The adapter's verdict; [`EventStoreError::Closed`] if the writer has ended; [`EventStoreError::Poisoned`] after a
    /// failure that left the storage in an unknown state.
    pub async fn append(&self, request: AppendRequest) -> Verdict {
        if *self.closing.borrow() {
            return Err(EventStoreError::Closed);
        }
        let (reply, verdict) = oneshot::channel();
        self.queue.send(Queued { request, reply }).await.map_err(|_| EventStoreError::Closed)?;
        // The writer answers everything it took, unless its appender panics, and then nobody knows.
        verdict
            .await
            .unwrap_or_else(|_| Err(EventStoreError::outcome_unknown("the writer ended with the append in hand")))
    }

    /// Refuses new requests. What is queued is still finished.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// Waits for the end of a writer.
#[derive(Debug, Clone)]
pub struct WriterJoin(watch::Receiver<bool>);

impl WriterJoin {
    pub(super) fn new(ended: watch::Receiver<bool>) -> Self {
        Self(ended)
    }

    /// Returns when the writer has answered everything and given its appender back to the system. Any number of callers
    /// may wait.
    ///
    /// # Errors
    /// [`EventStoreError::Closed`] if the writer ended by a panic of its appender.
    pub async fn join(mut self) -> Result<(), EventStoreError> {
        self.0.wait_for(|ended| *ended).await.map(drop).map_err(|_| EventStoreError::Closed)
    }
}
