//! Queues that come and go, each with one at a time who serves it.

#[cfg(test)]
use loom::sync::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::PoisonError;
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};

/// Queues by key. A queue is there as long as somebody serves it.
#[derive(Debug)]
pub(super) struct Queues<K, V>(Mutex<HashMap<K, VecDeque<V>>>);

impl<K: Eq + Hash, V> Queues<K, V> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// Whether the queue is a new one, which the caller has to have served until [`take`](Self::take) gives nothing.
    #[must_use]
    pub(super) fn enter(&self, key: K, value: V) -> bool {
        let mut queues = self.queues();
        if let Some(queue) = queues.get_mut(&key) {
            queue.push_back(value);
            return false;
        }
        queues.insert(key, VecDeque::from([value]));
        true
    }

    /// As many from the front of a queue as fit together, at least one. `None` if there are none: the queue is gone then,
    /// and with it the duty to serve it.
    pub(super) fn take(&self, key: &K, fit: impl FnOnce(&mut dyn Iterator<Item = &V>) -> usize) -> Option<Vec<V>> {
        let mut queues = self.queues();
        let queue = queues.get_mut(key)?;
        let count = fit(&mut queue.iter()).max(1).min(queue.len());
        if count == 0 {
            // Under the same lock as the look into it, or whoever entered in between would wait for ever.
            queues.remove(key);
            return None;
        }
        Some(queue.drain(..count).collect())
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<K, VecDeque<V>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every interleaving of callers, each of whom serves the queue if that falls to him.
#[cfg(test)]
mod model {
    use super::Queues;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;
    use std::sync::Arc;

    struct World {
        queues: Queues<&'static str, usize>,
        served: AtomicUsize,
        serving: AtomicUsize,
    }

    impl World {
        fn call(&self, value: usize) {
            if !self.queues.enter("key", value) {
                return;
            }
            while let Some(values) = self.queues.take(&"key", |queue| queue.take(1).count()) {
                assert_eq!(self.serving.fetch_add(1, SeqCst), 0, "two serve one queue");
                for value in values {
                    self.served.fetch_add(value, SeqCst);
                }
                self.serving.fetch_sub(1, SeqCst);
            }
        }
    }

    #[test]
    fn whoever_enters_is_served_once_and_by_one() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let (served, serving) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let world = Arc::new(World { queues: Queues::new(), served, serving });
            let others: Vec<_> = [1, 10]
                .map(|value| {
                    let world = Arc::clone(&world);
                    thread::spawn(move || world.call(value))
                })
                .into_iter()
                .collect();
            world.call(100);
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(world.served.load(SeqCst), 111, "served in all");
            assert!(world.queues.queues().is_empty(), "a queue is left that nobody serves");
        });
    }
}
