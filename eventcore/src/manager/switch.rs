//! Lets others pause a projection, hold it for a while, or end the run that is under way.

#[cfg(test)]
use loom::sync::{Mutex, MutexGuard};
use std::sync::PoisonError;
#[cfg(not(test))]
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The switch of one projection. Whoever uses it does not know whether a run is just beginning or ending.
pub(super) struct Switch {
    /// Open unless the projection is paused or held.
    gate: watch::Sender<bool>,
    /// Whether pausing ends a run: a page with durable effects is not held open.
    ends_when_paused: bool,
    state: Mutex<State>,
}

struct State {
    /// Somebody has paused the projection.
    paused: bool,
    /// How many keep it from running for a while, paused or not.
    holds: u32,
    /// Whether a run is under way.
    runs: bool,
    /// Ends the run under way, or the last one.
    run: CancellationToken,
}

impl State {
    const fn is_open(&self) -> bool {
        !self.paused && self.holds == 0
    }
}

/// A run of the projection: it is under way as long as this lives.
pub(super) struct Run<'s> {
    switch: &'s Switch,
    token: CancellationToken,
}

impl Run<'_> {
    /// Ends the run.
    pub(super) const fn token(&self) -> &CancellationToken {
        &self.token
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.switch.state().runs = false;
    }
}

impl Switch {
    pub(super) fn new(ends_when_paused: bool) -> Self {
        let state = State { paused: false, holds: 0, runs: false, run: CancellationToken::new() };
        Self { gate: watch::Sender::new(true), ends_when_paused, state: Mutex::new(state) }
    }

    /// Whether somebody has paused the projection. One that is held is not paused.
    pub(super) fn is_paused(&self) -> bool {
        self.state().paused
    }

    /// Whether a run is under way. Once this is not so, none begins while the projection is paused or held, if pausing ends
    /// runs.
    pub(super) fn runs(&self) -> bool {
        self.state().runs
    }

    /// Shows whether the projection may go on.
    pub(super) fn gate(&self) -> watch::Receiver<bool> {
        self.gate.subscribe()
    }

    pub(super) fn pause(&self) {
        self.set(|state| state.paused = true);
    }

    pub(super) fn resume(&self) {
        self.set(|state| state.paused = false);
    }

    /// Keeps the projection from running, until [`release`](Self::release) was called as often as this.
    pub(super) fn hold(&self) {
        self.set(|state| state.holds = state.holds.saturating_add(1));
    }

    pub(super) fn release(&self) {
        self.set(|state| state.holds = state.holds.saturating_sub(1));
    }

    /// Ends the run under way.
    pub(super) fn end_run(&self) {
        self.state().run.cancel();
    }

    /// A run begins, and is ended also when `stop` is cancelled. `None` if it may not begin after all.
    pub(super) fn begin_run(&self, stop: &CancellationToken) -> Option<Run<'_>> {
        let mut state = self.state();
        // Closed since the gate was looked at.
        if self.ends_when_paused && !state.is_open() {
            return None;
        }
        let token = stop.child_token();
        (state.run, state.runs) = (token.clone(), true);
        Some(Run { switch: self, token })
    }

    /// Returns when a run may begin.
    pub(super) async fn may_begin(&self) {
        if self.ends_when_paused {
            // An error means that this is gone, and then nobody waits.
            let _ = self.gate().wait_for(|open| *open).await;
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        // All under the lock: a run that begins sees that the gate is closed, or is ended here.
        let mut state = self.state();
        change(&mut state);
        self.gate.send_replace(state.is_open());
        if self.ends_when_paused && !state.is_open() {
            state.run.cancel();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Every interleaving of a run that begins with somebody who uses the switch.
#[cfg(test)]
mod model {
    use super::Switch;
    use loom::sync::atomic::{AtomicBool, Ordering};
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
            let stop = CancellationToken::new();
            let begun = if switch.is_paused() { None } else { switch.begin_run(&stop) };
            pausing.join().unwrap();
            let goes_on = begun.is_some_and(|run| !run.token().is_cancelled());
            assert!(!goes_on, "the run goes on though its projection is paused");
        });
    }

    #[test]
    fn who_holds_a_projection_and_sees_no_run_is_alone() {
        loom::model(|| {
            let (switch, runs) = (Arc::new(Switch::new(true)), Arc::new(AtomicBool::new(false)));
            let holding = thread::spawn({
                let (switch, runs) = (Arc::clone(&switch), Arc::clone(&runs));
                move || {
                    switch.hold();
                    if !switch.runs() {
                        assert!(!runs.load(Ordering::SeqCst), "a run beside the one who holds its projection");
                    }
                    switch.release();
                }
            });
            // As the supervisor does.
            if let Some(run) = switch.begin_run(&CancellationToken::new()) {
                runs.store(true, Ordering::SeqCst);
                runs.store(false, Ordering::SeqCst);
                drop(run);
            }
            holding.join().unwrap();
            assert!(switch.begin_run(&CancellationToken::new()).is_some(), "nobody holds it any more");
        });
    }

    #[test]
    fn a_projection_is_held_until_the_last_one_lets_it_go_and_paused_apart_from_that() {
        loom::model(|| {
            let (switch, stop) = (Switch::new(true), CancellationToken::new());
            let run = switch.begin_run(&stop).unwrap();
            switch.hold();
            assert!(run.token().is_cancelled() && switch.runs() && !switch.is_paused());
            drop(run);
            switch.hold();
            switch.release();
            assert!(switch.begin_run(&stop).is_none(), "the other one still holds it");
            switch.resume();
            assert!(switch.begin_run(&stop).is_none(), "it was held, not paused");
            switch.pause();
            switch.release();
            assert!(switch.begin_run(&stop).is_none(), "paused meanwhile, it stays so");
            switch.resume();
            assert!(switch.begin_run(&stop).is_some_and(|run| !run.token().is_cancelled()));
        });
    }

    #[test]
    fn a_run_is_ended_once_and_the_next_one_is_not() {
        loom::model(|| {
            let switch = Arc::new(Switch::new(true));
            let stop = CancellationToken::new();
            let begin = || switch.begin_run(&stop).unwrap().token().clone();
            let first = begin();
            let ending = thread::spawn({
                let switch = Arc::clone(&switch);
                move || switch.end_run()
            });
            let second = begin();
            ending.join().unwrap();
            assert!(first.is_cancelled() != second.is_cancelled(), "one of the two runs is ended");
            assert!(!begin().is_cancelled(), "a later run was ended beforehand");
            stop.cancel();
            assert!(second.is_cancelled());
        });
    }
}
