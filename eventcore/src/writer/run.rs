//! The writer's loop, on a task or on a thread of its own.

use super::handle::Queued;
use super::{GroupAppender, GroupFailure, Verdict, WriterHandle, WriterJoin, let_callers_come};
use crate::validation::check_range;
use crate::{EventStoreError, SharedError, ValidationError};
use nutype::nutype;
use tokio::sync::{mpsc, oneshot, watch};

fn check_capacity(value: &u32) -> Result<(), ValidationError> {
    check_range("QueueCapacity", u64::from(*value), 1, 1_000_000)
}

/// How many requests may wait for the writer; when it is full, callers wait. 1 to 1,000,000, by default 1,024.
#[nutype(
    validate(with = check_capacity, error = ValidationError),
    default = 1_024,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct QueueCapacity(u32);

/// Runs the writer as a task of the current tokio runtime.
#[must_use]
pub fn spawn_writer<A: GroupAppender>(appender: A, capacity: QueueCapacity) -> (WriterHandle, WriterJoin) {
    let (handle, join, writer) = Writer::new(appender, capacity);
    tokio::spawn(writer.run());
    (handle, join)
}

/// Runs the writer on a thread of its own, for an appender that blocks.
///
/// # Errors
/// What the system says if it gives no thread.
pub fn spawn_writer_thread<A: GroupAppender>(
    appender: A,
    capacity: QueueCapacity,
    name: &str,
) -> std::io::Result<(WriterHandle, WriterJoin)> {
    let (handle, join, writer) = Writer::new(appender, capacity);
    // With a clock, since an appender may give up waiting for something.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(writer.run()))?;
    Ok((handle, join))
}

struct Writer<A> {
    appender: A,
    queue: mpsc::Receiver<Queued>,
    closing: watch::Receiver<bool>,
    ended: watch::Sender<bool>,
    poison: Option<SharedError>,
}

impl<A: GroupAppender> Writer<A> {
    fn new(appender: A, capacity: QueueCapacity) -> (WriterHandle, WriterJoin, Self) {
        let (sender, queue) = mpsc::channel(capacity.into_inner() as usize);
        let (close, closing) = watch::channel(false);
        let (ended, join) = watch::channel(false);
        let writer = Self { appender, queue, closing, ended, poison: None };
        (WriterHandle::new(sender, close), WriterJoin::new(join), writer)
    }

    async fn run(mut self) {
        let mut held_over = None;
        while let Some(first) = self.next(held_over.take()).await {
            let most = self.appender.limits().requests;
            let_callers_come(most, || self.queue.len()).await;
            let (requests, replies, rest) = self.gather(first);
            held_over = rest;
            let verdicts = self.judge(&requests).await;
            for (reply, verdict) in replies.into_iter().zip(verdicts) {
                if let Err(verdict) = reply.send(verdict) {
                    tracing::debug!(?verdict, "nobody waits for the answer to this append");
                }
            }
        }
        let Self { appender, ended, .. } = self;
        drop(appender);
        ended.send_replace(true);
    }

    /// The next request; `None` when all handles are gone, or the writer was closed, and the queue is empty.
    async fn next(&mut self, held_over: Option<Queued>) -> Option<Queued> {
        if held_over.is_some() {
            return held_over;
        }
        let queue = &mut self.queue;
        let closing = &mut self.closing;
        let closed = async { closing.wait_for(|closing| *closing).await.map(drop) };
        let closed = tokio::select! {
            biased;
            queued = queue.recv() => return queued,
            closed = closed => closed,
        };
        if closed.is_ok() {
            queue.close();
        }
        queue.recv().await
    }

    /// What is waiting behind `first`, up to the limits; what no longer fits is held over.
    fn gather(&mut self, first: Queued) -> (Vec<crate::AppendRequest>, Vec<oneshot::Sender<Verdict>>, Option<Queued>) {
        let limits = self.appender.limits();
        let mut bytes = first.request.size();
        let mut requests = vec![first.request];
        let mut replies = vec![first.reply];
        while requests.len() < limits.requests {
            let Ok(queued) = self.queue.try_recv() else { break };
            bytes += queued.request.size();
            if bytes > limits.bytes {
                return (requests, replies, Some(queued));
            }
            requests.push(queued.request);
            replies.push(queued.reply);
        }
        (requests, replies, None)
    }

    async fn judge(&mut self, group: &[crate::AppendRequest]) -> Vec<Verdict> {
        if let Some(source) = &self.poison {
            return all(group, &EventStoreError::Poisoned { source: source.clone() });
        }
        match self.appender.append_group(group).await {
            Ok(verdicts) if verdicts.len() == group.len() => verdicts,
            Ok(verdicts) => {
                let what = format!("the appender gave {} verdicts for {} requests", verdicts.len(), group.len());
                self.poison(group, EventStoreError::storage(what))
            }
            Err(GroupFailure::Nothing(error)) => {
                tracing::warn!(requests = group.len(), error = &error as &dyn std::error::Error, "group not written");
                all(group, &error)
            }
            Err(GroupFailure::Unknown(error)) => self.poison(group, error),
        }
    }

    /// After this group, whose outcome nobody knows, nothing more is written.
    fn poison(&mut self, group: &[crate::AppendRequest], error: EventStoreError) -> Vec<Verdict> {
        tracing::error!(requests = group.len(), error = &error as &dyn std::error::Error, "writer poisoned");
        let source = SharedError::new(error);
        self.poison = Some(source.clone());
        all(group, &EventStoreError::OutcomeUnknown { source })
    }
}

fn all(group: &[crate::AppendRequest], error: &EventStoreError) -> Vec<Verdict> {
    group.iter().map(|_| Err(error.clone())).collect()
}
