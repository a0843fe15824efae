//! A thread that looks at something again and again, as long as somebody needs it.

#[cfg(test)]
use loom::{
    sync::{Mutex, MutexGuard, atomic::AtomicBool},
    thread::{self, Thread},
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
#[cfg(not(test))]
use std::{
    sync::{Mutex, MutexGuard, atomic::AtomicBool},
    thread::{self, Thread},
};
use tokio::sync::watch;

/// What the thread does.
pub(crate) trait Round: Send + 'static {
    /// Whether anybody needs it now.
    fn is_needed(&self) -> bool;

    /// Looks once.
    fn look(&mut self);

    /// Nobody needs it until the next look.
    fn rest(&mut self);
}

/// The thread begins when it is first woken, sleeps while nobody needs it, and ends when this is dropped.
pub(crate) struct Patrol {
    name: &'static str,
    interval: Duration,
    begin: Box<dyn Fn() -> Box<dyn Round> + Send + Sync>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<Running>>,
}

struct Running {
    thread: Thread,
    /// Its sender is gone when the thread has ended.
    ended: watch::Receiver<()>,
}

impl Patrol {
    pub(crate) fn new<R: Round>(
        name: &'static str,
        interval: Duration,
        begin: impl Fn() -> R + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            interval,
            begin: Box::new(move || Box::new(begin())),
            stop: Arc::new(AtomicBool::new(false)),
            thread: Mutex::new(None),
        }
    }

    /// Lets the thread see that it is needed. Whoever needs it says so first.
    pub(crate) fn wake(&self) {
        let mut thread = self.thread();
        // Under the lock, so that none is started behind the back of `stop`.
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
        let thread = self.thread();
        // Before it is woken, or it would go back to sleep for ever.
        self.stop.store(true, Ordering::Release);
        if let Some(running) = &*thread {
            running.thread.unpark();
        }
    }

    /// Returns when the thread has ended, which it does after [`stop`](Self::stop).
    pub(crate) async fn ended(&self) {
        let ended = self.thread().as_ref().map(|running| running.ended.clone());
        if let Some(mut ended) = ended {
            while ended.changed().await.is_ok() {}
        }
    }

    fn start(&self) -> std::io::Result<Running> {
        let (alive, ended) = watch::channel(());
        let (mut round, stop, interval) = ((self.begin)(), Arc::clone(&self.stop), self.interval);
        let thread = thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                if round.is_needed() {
                    round.look();
                    sleep(interval);
                } else {
                    round.rest();
                    // A wake-up since the question above is kept, and ends this at once.
                    thread::park();
                }
            }
            drop(round);
            drop(alive);
        })?;
        Ok(Running { thread: thread.thread().clone(), ended })
    }

    fn thread(&self) -> MutexGuard<'_, Option<Running>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Patrol {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(not(test))]
fn sleep(interval: Duration) {
    thread::park_timeout(interval);
}

/// In a model time passes when nobody else has anything to do.
#[cfg(test)]
fn sleep(_: Duration) {
    thread::yield_now();
}

/// Every interleaving of the thread with those who wake and stop it. A thread that sleeps on although it is needed, or was
/// told to end, is a deadlock, which loom reports.
#[cfg(test)]
mod model {
    use super::{Patrol, Round};
    use loom::sync::Notify;
    use loom::sync::atomic::AtomicBool;
    use loom::thread;
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    struct Look {
        needed: Arc<AtomicBool>,
        looked: Arc<Notify>,
    }

    impl Round for Look {
        fn is_needed(&self) -> bool {
            // Only waking orders it.
            self.needed.load(Relaxed)
        }

        fn look(&mut self) {
            self.looked.notify();
        }

        fn rest(&mut self) {}
    }

    fn model(check: impl Fn(&Arc<AtomicBool>, &Arc<Notify>, Arc<Patrol>) + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        // More than three would take minutes and have shown nothing more.
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let (needed, looked) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
            let patrol = Patrol::new("model", Duration::ZERO, {
                let (needed, looked) = (Arc::clone(&needed), Arc::clone(&looked));
                move || Look { needed: Arc::clone(&needed), looked: Arc::clone(&looked) }
            });
            let patrol = Arc::new(patrol);
            check(&needed, &looked, Arc::clone(&patrol));
            // Never dropped, which would stop it once more: who closes a store waits for the thread before that.
            std::mem::forget(patrol);
        });
    }

    #[test]
    fn whoever_needs_a_look_gets_one() {
        model(|needed, looked, patrol| {
            // The thread begins, and may be anywhere between its question and its sleep.
            patrol.wake();
            needed.store(true, Relaxed);
            patrol.wake();
            looked.wait();
            patrol.stop();
        });
    }

    #[test]
    fn the_thread_ends_whoever_wakes_it_meanwhile() {
        model(|_, _, patrol| {
            let waking = thread::spawn({
                let patrol = Arc::clone(&patrol);
                move || patrol.wake()
            });
            patrol.stop();
            waking.join().unwrap();
        });
    }
}
