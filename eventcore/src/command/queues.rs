//! Where commands of one executor queue once they were in each other's way, instead of deciding in vain again and again.

use crate::StreamId;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as Queue, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

/// How long a turn is waited for in all. Whoever is before may have been left unpolled by his caller, for this very command
/// perhaps, or may be trying a store that is out of reach, one after the other.
const PATIENCE: Duration = Duration::from_secs(10);

/// A queue per stream on which a conflict arose, for as long as somebody stands in it. It keeps nobody from a stream whose
/// competitors are elsewhere: what makes an append safe are the versions that it expects.
#[derive(Debug, Default)]
pub(super) struct StreamQueues(Mutex<HashMap<StreamId, Arc<Queue<()>>>>);

impl StreamQueues {
    /// Queues up for those of the streams that have a queue, and for `contended`, which gets one. Returns when it is the
    /// caller's turn everywhere, or when that took too long; the turn ends when the answer is dropped.
    pub(super) async fn turn<'a>(
        &'a self,
        streams: impl Iterator<Item = &StreamId>,
        contended: Option<&StreamId>,
    ) -> Turn<'a> {
        let turn = Turn { queues: self, places: self.places(streams, contended) };
        // In a box, since mostly there is no queue, and the future of a command is to be small.
        if turn.places.is_empty() { turn } else { Box::pin(turn.come()).await }
    }

    fn places<'s>(&self, streams: impl Iterator<Item = &'s StreamId>, contended: Option<&StreamId>) -> Vec<Place> {
        let mut queues = self.queues();
        if queues.is_empty() && contended.is_none() {
            return Vec::new();
        }
        let streams: BTreeSet<&StreamId> = streams.collect();
        let place = |stream: &StreamId| {
            let queue = match contended == Some(stream) {
                true => Arc::clone(queues.entry(stream.clone()).or_default()),
                false => Arc::clone(queues.get(stream)?),
            };
            Some(Place { stream: stream.clone(), queue, held: None })
        };
        streams.into_iter().filter_map(place).collect()
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<Queue<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn, or the wait for it. Whoever gives up waiting leaves the queues too.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    queues: &'a StreamQueues,
    places: Vec<Place>,
}

impl Turn<'_> {
    /// Waits for it.
    async fn come(mut self) -> Self {
        let deadline = Instant::now() + PATIENCE;
        // One after the other in the order of their names, so that nobody waits for somebody who waits for him.
        for place in &mut self.places {
            let Ok(held) = timeout_at(deadline, Arc::clone(&place.queue).lock_owned()).await else {
                tracing::debug!(stream = %place.stream, "a turn did not come in time; going on without it");
                break;
            };
            place.held = Some(held);
        }
        self
    }
}

#[derive(Debug)]
struct Place {
    stream: StreamId,
    queue: Arc<Queue<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.places.is_empty() {
            return;
        }
        let left: Vec<StreamId> = self.places.drain(..).map(|place| place.stream).collect();
        let mut queues = self.queues.queues();
        for stream in left {
            // Places are only given out under this lock.
            if queues.get(&stream).is_some_and(|queue| Arc::strong_count(queue) == 1) {
                queues.remove(&stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn stream(name: &str) -> StreamId {
        StreamId::new(name).unwrap()
    }

    fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn a_queue_is_there_while_somebody_stands_in_it() {
        let (queues, hot, cold) = (StreamQueues::default(), stream("hot"), stream("cold"));
        let Poll::Ready(free) = poll(&mut pin!(queues.turn([&hot].into_iter(), None))) else {
            panic!("it has to wait")
        };
        assert!(free.places.is_empty(), "nobody was in anybody's way");

        let mut first = Box::pin(queues.turn([&hot, &cold].into_iter(), Some(&hot)));
        let Poll::Ready(first) = poll(&mut first) else { panic!("the first has to wait") };
        assert_eq!(first.places.len(), 1, "only the contended stream has a queue");
        let mut second = Box::pin(queues.turn([&cold, &hot].into_iter(), None));
        let mut third = Box::pin(queues.turn([&hot].into_iter(), None));
        assert!(poll(&mut second).is_pending() && poll(&mut third).is_pending());

        // Who gives up waiting is not waited for.
        drop(second);
        assert!(poll(&mut third).is_pending());
        drop(first);
        let Poll::Ready(third) = poll(&mut third) else { panic!("it was the third's turn") };
        assert_eq!(queues.queues().len(), 1);
        drop(third);
        assert!(queues.queues().is_empty(), "a queue outlived those who stood in it");
    }
}
