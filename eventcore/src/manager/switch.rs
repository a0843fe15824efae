//! Lets others pause a projection, or end the run that is under way.

#[cfg(test)]
use loom::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The switch of one projection. Whoever uses it does not know whether a run is just beginning or ending.
pub(super) struct Switch {
    /// Open unless the projection is paused.
    gate: watch::Sender<bool>,
    /// Whether pausing ends a run: a page with durable effects is not held open.
    ends_when_paused: bool,
    /// Ends the run under way, or the last one.
    run: Mutex<CancellationToken>,
}

impl Switch {
    pub(super) fn new(ends_when_paused: bool) -> Self {
        Self { gate: watch::Sender::new(true), ends_when_paused, run: Mutex::new(CancellationToken::new()) }
    }

    pub(super) fn is_paused(&self) -> bool {
        !*self.gate.borrow()
    }

    /// Shows whether the projection is paused.
    pub(super) fn gate(&self) -> watch::Receiver<bool> {
        self.gate.subscribe()
    }

    pub(super) fn pause(&self) {
        // Both under the lock: a run that begins sees the one, or is ended by the other.
        let run = self.run();
        self.gate.send_replace(false);
        if self.ends_when_paused {
            run.cancel();
        }
    }

    pub(super) fn resume(&self) {
        self.gate.send_replace(true);
    }

    /// Ends the run under way.
    pub(super) fn end_run(&self) {
        self.run().cancel();
    }

    /// A run begins: the token that ends it, also when `stop` is cancelled.
    pub(super) fn begin_run(&self, stop: &CancellationToken) -> CancellationToken {
        let token = stop.child_token();
        let mut run = self.run();
        *run = token.clone();
        // Paused since the gate was looked at: who did so has ended the run before this one.
        if self.ends_when_paused && self.is_paused() {
            token.cancel();
        }
        token
    }

    /// Returns when a run may begin.
    pub(super) async fn may_begin(&self) {
        if self.ends_when_paused {
            // An error means that this is gone, and then nobody waits.
            let _ = self.gate().wait_for(|open| *open).await;
        }
    }

    fn run(&self) -> MutexGuard<'_, CancellationToken> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every interleaving of a run that begins with somebody who uses the switch.
#[cfg(test)]
mod model {
    use super::Switch;
    use loom::thread;
    use std::sync::Arc;
    use tokio_util::sync::CancellationToken;

    #[test]
    fn a_run_that_begins_while_its_projection_is_paused_is_ended() {
        loom::model(|| {
            let switch = Arc::new(Switch::new(true));
            let pausing = thread::spawn({
                let switch = Arc::clone(&switch);
                move || switch.pause()
            });
            // As the supervisor does: it looks at the gate, and then the run begins.
            let begun = (!switch.is_paused()).then(|| switch.begin_run(&CancellationToken::new()));
            pausing.join().unwrap();
            assert!(begun.is_none_or(|run| run.is_cancelled()), "the run goes on though its projection is paused");
        });
    }

    #[test]
    fn a_run_is_ended_once_and_the_next_one_is_not() {
        loom::model(|| {
            let switch = Arc::new(Switch::new(true));
            let stop = CancellationToken::new();
            let first = switch.begin_run(&stop);
            let ending = thread::spawn({
                let switch = Arc::clone(&switch);
                move || switch.end_run()
            });
            let second = switch.begin_run(&stop);
            ending.join().unwrap();
            assert!(first.is_cancelled() != second.is_cancelled(), "one of the two runs is ended");
            assert!(!switch.begin_run(&stop).is_cancelled(), "a later run was ended beforehand");
            stop.cancel();
            assert!(second.is_cancelled());
        });
    }
}
