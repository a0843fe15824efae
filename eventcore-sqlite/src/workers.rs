//! Threads for work that blocks, each with a resource of its own, such as a connection.

use crate::queue::{Place, Queue};
use eventcore::EventStoreError;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot, watch};

/// A job that took longer waited for the disk, and those behind it should not wait one after the other.
const SLOW: Duration = Duration::from_micros(500);

/// What a thread works with.
pub(crate) trait Resource: 'static {
    /// The jobs that waited together are done. `false` if it is of no use any more.
    fn rest(&mut self) -> bool {
        true
    }
}

type Job<T> = Box<dyn FnOnce(&mut Worker<'_, T>) + Send>;

/// Some threads that share a bounded queue of jobs.
///
/// They end, without anybody waiting for them, when this is dropped and the queue is empty.
pub(crate) struct Workers<T> {
    shared: Arc<Shared<T>>,
    ended: watch::Receiver<()>,
}

struct Shared<T> {
    queue: Queue<Job<T>>,
    /// A permit for each job that may still be queued.
    room: Semaphore,
}

/// What one thread works with. It is made by the first job that needs it, and again after a job gave it up.
pub(crate) struct Worker<'a, T> {
    make: Arc<dyn Fn() -> Result<T, EventStoreError> + Send + Sync>,
    resource: Option<T>,
    place: Place<'a, Job<T>>,
}

impl<T: Resource> Workers<T> {
    pub(crate) fn start(
        name: &str,
        threads: usize,
        capacity: usize,
        make: impl Fn() -> Result<T, EventStoreError> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let make: Arc<dyn Fn() -> Result<T, EventStoreError> + Send + Sync> = Arc::new(make);
        let (alive, ended) = watch::channel(());
        let workers = Self { shared: Arc::new(Shared { queue: Queue::new(), room: Semaphore::new(capacity) }), ended };
        let alive = Arc::new(alive);
        for _ in 0..threads {
            let (make, shared, alive) = (Arc::clone(&make), Arc::clone(&workers.shared), Arc::clone(&alive));
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                Worker { make, resource: None, place: shared.queue.place() }.work(&shared.room);
                // Only when the resource is gone, which `work` took, has this thread ended for those who wait.
                drop(alive);
            })?;
        }
        Ok(workers)
    }

    /// Runs a job on one of the threads with its resource; waits for room in the queue, then for the answer.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> Result<R, EventStoreError> + Send + 'static,
    ) -> Result<R, EventStoreError> {
        self.run_with_worker(move |worker| job(worker.resource()?)).await
    }

    /// The same with the worker itself, for a job that takes long, or takes the resource away or puts it back.
    pub(crate) async fn run_with_worker<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker<'_, T>) -> Result<R, EventStoreError> + Send + 'static,
    ) -> Result<R, EventStoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |worker| {
            // Who asked may have stopped waiting; then the work is not done either.
            if !reply.is_closed() {
                // An answer that nobody waits for any more is dropped here, with what it holds.
                drop(reply.send(job(worker)));
            }
        });
        // Whoever takes the job out of the queue gives the permit back.
        self.shared.room.acquire().await.map_err(|_| EventStoreError::Closed)?.forget();
        if !self.shared.queue.push(job) {
            return Err(EventStoreError::Closed);
        }
        answer.await.unwrap_or_else(|_| Err(EventStoreError::storage("a job of the store panicked")))
    }

    /// Returns when all threads have ended, which they do after [`close`](Self::close).
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl<T> Workers<T> {
    /// Refuses new jobs. What is queued is still done.
    pub(crate) fn close(&self) {
        self.shared.queue.close();
        self.shared.room.close();
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T: Resource> Worker<'_, T> {
    fn work(mut self, room: &Semaphore) {
        while self.place.next_group() {
            let mut began = Instant::now();
            while let Some(job) = self.place.next_job() {
                room.add_permits(1);
                // A job that panics drops its answer, which its caller is told. Its thread goes on, or those who wait behind
                // it would wait for ever; what it worked with may be in any state.
                if catch_unwind(AssertUnwindSafe(|| job(&mut self))).is_err() {
                    self.resource = None;
                }
                let now = Instant::now();
                if now - began > SLOW {
                    self.place.was_slow();
                }
                began = now;
            }
            if self.resource.as_mut().is_some_and(|resource| !resource.rest()) {
                self.resource = None;
            }
        }
    }

    /// The resource, made if it is not there.
    pub(crate) fn resource(&mut self) -> Result<&mut T, EventStoreError> {
        let resource = self.take()?;
        Ok(self.resource.insert(resource))
    }

    /// The same for a job that takes long: other jobs do not wait for it, but are done by other threads.
    pub(crate) fn resource_for_long(&mut self) -> Result<&mut T, EventStoreError> {
        self.place.leave_duty();
        self.resource()
    }

    /// The resource, and what leaves other jobs to other threads once the job turns out to take long.
    pub(crate) fn resource_and_leave(&mut self) -> Result<(&mut T, impl FnMut()), EventStoreError> {
        let resource = self.take()?;
        let place = &mut self.place;
        Ok((self.resource.insert(resource), || place.leave_duty()))
    }

    /// The resource, taken away.
    pub(crate) fn take(&mut self) -> Result<T, EventStoreError> {
        self.resource.take().map_or_else(|| (self.make)(), Ok)
    }

    /// Puts the resource back.
    pub(crate) fn put(&mut self, resource: T) {
        self.resource = Some(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Job, Queue, Resource, Semaphore, Worker};
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    struct Numbered(usize);

    impl Resource for Numbered {}

    /// On one thread, but its locks are loom's.
    #[test]
    fn a_job_that_panics_costs_its_resource_and_not_those_behind_it() {
        loom::model(|| {
            let (made, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let queue: Queue<Job<Numbered>> = Queue::new();
            assert!(queue.push(Box::new(|worker| {
                worker.resource().unwrap();
                panic!("on purpose");
            })));
            let last = Arc::clone(&seen);
            assert!(queue.push(Box::new(move |worker| last.store(worker.resource().unwrap().0, Relaxed))));
            queue.close();
            let count = Arc::clone(&made);
            let make = Arc::new(move || Ok(Numbered(count.fetch_add(1, Relaxed) + 1)));
            Worker { make, resource: None, place: queue.place() }.work(&Semaphore::new(0));
            assert_eq!(seen.load(Relaxed), 2, "the job behind the panic has a new resource");
        });
    }
}
