//! Noticing what other processes commit.

use crate::error::store_error;
use crate::head::Head;
use crate::read::Reader;
use eventcore::{EventStoreError, GlobalPosition};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;
use tokio::sync::watch;

const SELECT_DATA_VERSION: &str = "pragma data_version";

type Connect = dyn Fn() -> Result<Reader, EventStoreError> + Send + Sync;

/// A thread that asks SQLite every few milliseconds whether somebody committed, as long as somebody watches the log.
///
/// It begins with the first watcher, sleeps while there is none, and ends when this is dropped.
pub(crate) struct Poller {
    interval: Duration,
    head: Arc<Head>,
    connect: Arc<Connect>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<Running>>,
}

struct Running {
    thread: Thread,
    /// Its sender is gone when the thread has ended.
    ended: watch::Receiver<()>,
}

impl Poller {
    pub(crate) fn new(
        interval: Duration,
        head: Arc<Head>,
        connect: impl Fn() -> Result<Reader, EventStoreError> + Send + Sync + 'static,
    ) -> Self {
        Self { interval, head, connect: Arc::new(connect), stop: Arc::default(), thread: Mutex::default() }
    }

    /// Lets the thread see that there is a watcher.
    pub(crate) fn wake(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.load(Ordering::Acquire) {
            return;
        }
        match &*thread {
            Some(running) => running.thread.unpark(),
            None => match self.start() {
                Ok(running) => *thread = Some(running),
                // Followers poll by themselves too, only less often.
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no thread to watch the file"),
            },
        }
    }

    /// Tells the thread to end, without waiting for it.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        self.stop.store(true, Ordering::Release);
        if let Some(running) = &*thread {
            running.thread.unpark();
        }
    }

    /// Returns when the thread has ended, which it does after [`stop`](Self::stop).
    pub(crate) async fn ended(&self) {
        let ended =
            self.thread.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.ended.clone());
        if let Some(mut ended) = ended {
            while ended.changed().await.is_ok() {}
        }
    }

    fn start(&self) -> std::io::Result<Running> {
        let (alive, ended) = watch::channel(());
        let poll = Poll {
            interval: self.interval,
            head: Arc::clone(&self.head),
            connect: Arc::clone(&self.connect),
            stop: Arc::clone(&self.stop),
        };
        let thread: JoinHandle<()> =
            std::thread::Builder::new().name("eventcore-poll".to_owned()).spawn(move || {
                poll.run();
                drop(alive);
            })?;
        Ok(Running { thread: thread.thread().clone(), ended })
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Poll {
    interval: Duration,
    head: Arc<Head>,
    connect: Arc<Connect>,
    stop: Arc<AtomicBool>,
}

impl Poll {
    fn run(&self) {
        let mut reader = None;
        let mut seen = None;
        while !self.stop.load(Ordering::Acquire) {
            if !self.head.is_watched() {
                // What is committed while nobody watches is found by the first look afterwards.
                seen = None;
                std::thread::park();
                continue;
            }
            if let Err(error) = self.look(&mut reader, &mut seen) {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for commits of other processes");
                reader = None;
            }
            std::thread::park_timeout(self.interval);
        }
    }

    /// Announces the end of the log if anybody committed since the last look.
    fn look(&self, reader: &mut Option<Reader>, seen: &mut Option<i64>) -> Result<(), EventStoreError> {
        let reader = match reader {
            Some(reader) => reader,
            None => reader.insert((self.connect)()?),
        };
        let version = reader
            .connection
            .prepare_cached(SELECT_DATA_VERSION)
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map_err(store_error)?;
        if seen.replace(version) != Some(version) {
            // Also commits of this process end up here, and commits without events; those wake nobody.
            self.head.announce(reader.head()?.map_or(0, GlobalPosition::get));
        }
        Ok(())
    }
}
