//! Threads for work that blocks, each with a resource of its own, such as a connection.

use eventcore::EventStoreError;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

type Job<T> = Box<dyn FnOnce(&mut Worker<T>) + Send>;

/// Some threads that share a bounded queue of jobs.
///
/// They end, without anybody waiting for them, when this is dropped and the queue is empty.
pub(crate) struct Workers<T> {
    queue: Mutex<Option<mpsc::Sender<Job<T>>>>,
    ended: watch::Receiver<()>,
}

/// What one thread works with. It is made by the first job that needs it, and again after a job gave it up.
pub(crate) struct Worker<T> {
    make: Arc<dyn Fn() -> Result<T, EventStoreError> + Send + Sync>,
    resource: Option<T>,
}

impl<T: 'static> Workers<T> {
    pub(crate) fn start(
        name: &str,
        threads: usize,
        capacity: usize,
        make: impl Fn() -> Result<T, EventStoreError> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let make: Arc<dyn Fn() -> Result<T, EventStoreError> + Send + Sync> = Arc::new(make);
        let (queue, jobs) = mpsc::channel(capacity);
        let jobs = Arc::new(Mutex::new(jobs));
        let (alive, ended) = watch::channel(());
        let alive = Arc::new(alive);
        for _ in 0..threads {
            let (make, jobs, alive) = (Arc::clone(&make), Arc::clone(&jobs), Arc::clone(&alive));
            std::thread::Builder::new().name(name.to_owned()).spawn(move || {
                Worker { make, resource: None }.work(&jobs);
                // Only when the resource is gone, which `work` took, has this thread ended for those who wait.
                drop(alive);
            })?;
        }
        Ok(Self { queue: Mutex::new(Some(queue)), ended })
    }

    /// Runs a job on one of the threads with its resource; waits for room in the queue, then for the answer.
    pub(crate) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> Result<R, EventStoreError> + Send + 'static,
    ) -> Result<R, EventStoreError> {
        self.run_with_worker(move |worker| job(worker.resource()?)).await
    }

    /// The same with the worker itself, for a job that takes the resource away or puts it back.
    pub(crate) async fn run_with_worker<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker<T>) -> Result<R, EventStoreError> + Send + 'static,
    ) -> Result<R, EventStoreError> {
        let queue = self.queue().ok_or(EventStoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job: Job<T> = Box::new(move |worker| {
            // Who asked may have stopped waiting; then the work is not done either.
            if !reply.is_closed() {
                // An answer that nobody waits for any more is dropped here, with what it holds.
                drop(reply.send(job(worker)));
            }
        });
        queue.send(job).await.map_err(|_| EventStoreError::Closed)?;
        drop(queue);
        answer.await.unwrap_or_else(|_| Err(EventStoreError::storage("a thread of the store ended unexpectedly")))
    }

    /// Refuses new jobs. What is queued is still done.
    pub(crate) fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Returns when all threads have ended, which they do after [`close`](Self::close).
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    fn queue(&self) -> Option<mpsc::Sender<Job<T>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<T> Worker<T> {
    fn work(mut self, jobs: &Mutex<mpsc::Receiver<Job<T>>>) {
        loop {
            // One thread waits for a job, the others for their turn to wait.
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
            match job {
                Some(job) => job(&mut self),
                None => return,
            }
        }
    }

    /// The resource, made if it is not there.
    pub(crate) fn resource(&mut self) -> Result<&mut T, EventStoreError> {
        let resource = self.take()?;
        Ok(self.resource.insert(resource))
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
