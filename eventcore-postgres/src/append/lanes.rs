//! Requests whose locks were taken wait beside the writer, so that nobody else waits with them.

use super::queues::Queues;
use super::sender::{Sender, Sent};
use super::statement::Contended;
use eventcore::{AppendRequest, EventStoreError, GroupLimits, SharedError};
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::task::TaskTracker;

/// One lane per contended stream or command id. A lane sends what waits in it as one group that waits for its locks.
#[derive(Debug, Clone)]
pub(crate) struct Lanes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sender: Sender,
    limits: GroupLimits,
    lanes: Queues<Contended, Waiting>,
    /// A lane at work holds a connection while it waits; the rest of the pool is for others.
    permits: Semaphore,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Waiting {
    request: AppendRequest,
    reply: oneshot::Sender<Sent>,
}

impl Lanes {
    pub(crate) fn new(sender: Sender, limits: GroupLimits, connections: usize, tasks: TaskTracker) -> Self {
        let permits = Semaphore::new(connections.max(1));
        Self(Arc::new(Shared { sender, limits, lanes: Queues::new(), permits, tasks }))
    }

    /// Sends a request as soon as its locks are free. The answer is never [`Sent::Busy`].
    pub(crate) async fn send(&self, contended: Contended, request: AppendRequest) -> Sent {
        let (reply, answer) = oneshot::channel();
        self.0.enter(contended, Waiting { request, reply });
        answer.await.unwrap_or_else(|_| Sent::Lost(SharedError::new(EventStoreError::Closed)))
    }
}

impl Shared {
    /// Callers wait for their answers, so a lane is never longer than there are callers.
    fn enter(self: &Arc<Self>, contended: Contended, waiting: Waiting) {
        if self.lanes.enter(contended.clone(), waiting) {
            self.tasks.spawn(Arc::clone(self).serve(contended));
        }
    }

    async fn serve(self: Arc<Self>, contended: Contended) {
        loop {
            let Ok(permit) = self.permits.acquire().await else { return };
            let Some(group) = self.take(&contended) else { return };
            let (requests, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|w| (w.request, w.reply)).unzip();
            let answers = self.sender.send_waiting(&requests.iter().collect::<Vec<_>>()).await;
            drop(permit);
            for (reply, answer) in replies.into_iter().zip(answers) {
                if let Err(answer) = reply.send(answer) {
                    tracing::debug!(?answer, "nobody waits for the answer to this append");
                }
            }
        }
    }

    /// What waits in a lane, within the limits; an empty lane is closed.
    fn take(&self, contended: &Contended) -> Option<Vec<Waiting>> {
        let mut bytes = 0;
        self.lanes.take(contended, |lane| {
            let fits = lane.take(self.limits.requests).take_while(|waiting| {
                bytes += waiting.request.size();
                bytes <= self.limits.bytes
            });
            fits.count()
        })
    }
}
