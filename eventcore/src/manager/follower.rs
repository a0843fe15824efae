//! One projection of a manager: runs, fails, is started again.

use super::models::Parts;
use super::rebuild::RebuildWay;
use super::switch::Switch;
use super::tail::{SharedLog, Tail};
use super::{LiveConfig, ManagerError, ProjectionState};
use crate::{
    Activity, EventReader, GlobalPosition, Progress, ProjectionConfig, ProjectionError, ProjectionName, SharedError,
};
use async_trait::async_trait;
use std::any::Any;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A projection, whatever its type.
pub(super) struct Follower {
    pub(super) name: ProjectionName,
    pub(super) runner: Arc<dyn Runner>,
    record: Mutex<Record>,
    /// Counts the changes of the record, for those who wait.
    changes: watch::Sender<u64>,
    switch: Switch,
    restarts: AtomicU32,
}

struct Record {
    phase: Phase,
    /// The progress of the run under way, or of the one that is about to begin. Each run has its own, so that one that ends
    /// does not speak for the next.
    progress: Progress,
    last_error: Option<SharedError>,
    started: Option<Instant>,
    /// How many rebuilds were asked for, and how many of them have caught up or were overtaken by one that has.
    asked: u64,
    rebuilt: u64,
}

impl Record {
    /// Enters a phase that a new run follows.
    fn renew(&mut self, phase: Phase) {
        self.progress = Progress::default();
        self.phase = phase;
    }
}

#[derive(Debug, Clone)]
enum Phase {
    Stopped,
    Starting,
    Running {
        /// The run before failed; this one has still to show that it fares better.
        again: bool,
    },
    Restarting,
    Failed(SharedError),
}

/// Runs one projector of a certain type.
#[async_trait]
pub(super) trait Runner: Send + Sync {
    /// Runs until `stop`, or until it fails.
    async fn run(&self, session: Session) -> Result<(), Failure>;

    /// Whether pausing stops the run: a page with durable effects is not held open.
    fn stops_when_paused(&self) -> bool;

    /// The read model, once there is one that has caught up: the [`Parts`] of the projector's type.
    fn read_model(&self) -> Option<Box<dyn Any + Send>>;

    /// How the read model is made anew.
    fn rebuild_way(&self) -> RebuildWay;

    /// Replays one dead letter, or all. The projection must not be running.
    async fn replay(&self, name: &ProjectionName, one: Option<GlobalPosition>) -> Result<Replayed, ManagerError>;
}

/// What became of dead letters that were replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// How many events were applied; their letters are gone.
    pub replayed: u64,
    /// How many events failed again; their letters tell why.
    pub failed: u64,
}

/// What a run needs to know.
pub(super) struct Session {
    pub(super) config: LiveConfig,
    pub(super) progress: Progress,
    pub(super) stop: CancellationToken,
    pub(super) gate: watch::Receiver<bool>,
    pub(super) tail: Arc<Tail>,
}

impl Session {
    /// How to run a projection over `log`.
    pub(super) fn projection(&self, log: impl EventReader + Clone + 'static) -> ProjectionConfig {
        let tail = Arc::clone(&self.tail);
        let config = self.config.run().reading(move || SharedLog::new(log.clone(), Arc::clone(&tail)));
        config.shutdown(self.stop.clone()).progress(self.progress.clone())
    }
}

/// Why a run ended, and whether starting it again may help.
pub(super) struct Failure {
    pub(super) error: SharedError,
    pub(super) retry: bool,
}

impl Failure {
    pub(super) fn new<E: StdError + Send + Sync + 'static>(error: ProjectionError<E>) -> Self {
        Self { retry: error.retry_helps(), error: SharedError::new(error) }
    }
}

impl Follower {
    pub(super) fn new(name: ProjectionName, runner: Arc<dyn Runner>) -> Self {
        let record = Record {
            phase: Phase::Stopped,
            progress: Progress::default(),
            last_error: None,
            started: None,
            asked: 0,
            rebuilt: 0,
        };
        Self {
            name,
            switch: Switch::new(runner.stops_when_paused()),
            runner,
            record: Mutex::new(record),
            changes: watch::Sender::new(0),
            restarts: AtomicU32::new(0),
        }
    }

    /// The read model that serves.
    pub(super) fn parts<P: 'static>(&self) -> Option<Parts<P>> {
        self.runner.read_model()?.downcast::<Parts<P>>().ok().map(|parts| *parts)
    }

    pub(super) fn pause(&self) {
        self.switch.pause();
        self.changed();
    }

    pub(super) fn resume(&self) {
        self.switch.resume();
        self.changed();
    }

    /// Ends the run that is under way; the supervisor begins another one.
    ///
    /// # Errors
    /// [`ManagerError::Failed`] if it has failed for good, [`ManagerError::NotLive`] if it was stopped.
    pub(super) fn rebuild(&self) -> Result<(), ManagerError> {
        {
            let mut record = lock(&self.record);
            match &record.phase {
                Phase::Failed(source) => {
                    return Err(ManagerError::Failed { name: self.name.clone(), source: source.clone() });
                }
                Phase::Stopped => return Err(ManagerError::NotLive),
                Phase::Starting | Phase::Running { .. } | Phase::Restarting => {}
            }
            record.renew(Phase::Starting);
            record.asked += 1;
            self.switch.end_run();
        }
        self.changed();
        Ok(())
    }

    /// Whether the old read model serves while a new one is made.
    pub(super) fn is_rebuilding(&self) -> bool {
        let record = lock(&self.record);
        let runs = !matches!(record.phase, Phase::Failed(_) | Phase::Stopped);
        runs && record.asked > record.rebuilt && !record.progress.has_been_live()
    }

    /// Whether the run under way comes to a position; `false` if it ends or is paused before that.
    pub(super) async fn comes_to(&self, position: GlobalPosition) -> bool {
        let progress = self.progress();
        let mut changes = self.changes.subscribe();
        let arrives = progress.wait_for(position);
        tokio::pin!(arrives);
        loop {
            tokio::select! {
                biased;
                arrived = &mut arrives => return arrived.is_ok(),
                () = std::future::ready(()), if self.switch.is_paused() => return false,
                // An error means that this is gone, and the run with it.
                changed = changes.changed() => if changed.is_err() {
                    return false;
                },
            }
        }
    }

    /// Keeps a projection with durable effects from running until what this returns is dropped. Returns when no run is under
    /// way.
    pub(super) async fn hold(&self) -> Hold<'_> {
        self.switch.hold();
        let hold = Hold(self);
        let mut changes = self.changes.subscribe();
        self.changed();
        while self.switch.runs() {
            // An error means that this is gone, and with it every run.
            if changes.changed().await.is_err() {
                break;
            }
        }
        hold
    }

    /// A run is about to begin.
    pub(super) fn starting(&self) {
        self.renew(Phase::Starting);
    }

    pub(super) fn progress(&self) -> Progress {
        lock(&self.record).progress.clone()
    }

    /// Enters a phase that a new run follows.
    fn renew(&self, phase: Phase) {
        lock(&self.record).renew(phase);
        self.changed();
    }

    fn enter(&self, phase: Phase) {
        lock(&self.record).phase = phase;
        self.changed();
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Returns when `reached` answers well for the run that is then under way.
    ///
    /// # Errors
    /// [`ManagerError::Failed`] if it fails for good, [`ManagerError::NotLive`] if it is stopped, [`ManagerError::Paused`] if
    /// it is paused before that.
    pub(super) async fn wait<F>(&self, reached: impl Fn(Progress) -> F) -> Result<(), ManagerError>
    where
        F: Future<Output = bool>,
    {
        loop {
            let mut changes = self.changes.subscribe();
            match lock(&self.record).phase.clone() {
                Phase::Failed(source) => return Err(ManagerError::Failed { name: self.name.clone(), source }),
                Phase::Stopped => return Err(ManagerError::NotLive),
                Phase::Starting | Phase::Running { .. } | Phase::Restarting => {}
            }
            let this_run = async {
                if !reached(self.progress()).await {
                    // It ended first, and the phase is about to change.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                biased;
                () = this_run => return Ok(()),
                () = std::future::ready(()), if self.switch.is_paused() => {
                    return Err(ManagerError::Paused { name: self.name.clone() });
                }
                _ = changes.changed() => {}
            }
        }
    }

    pub(super) fn state(&self) -> ProjectionState {
        let (phase, progress) = {
            let record = lock(&self.record);
            (record.phase.clone(), record.progress.clone())
        };
        match (phase, progress.activity()) {
            (Phase::Failed(error), _) => ProjectionState::Failed(error),
            (Phase::Stopped, _) => ProjectionState::Stopped,
            (Phase::Restarting, _) => ProjectionState::Reconnecting,
            (Phase::Starting | Phase::Running { .. }, _) if self.switch.is_paused() => ProjectionState::Paused,
            (Phase::Running { again: true }, Activity::Idle) => ProjectionState::Reconnecting,
            (Phase::Running { .. }, Activity::Standby) => ProjectionState::Standby,
            (Phase::Running { .. }, Activity::Live) => ProjectionState::Live,
            (Phase::Running { .. }, Activity::Reconnecting) => ProjectionState::Reconnecting,
            (Phase::Starting | Phase::Running { .. }, _) => ProjectionState::CatchingUp,
        }
    }

    /// Returns when [`state`](Self::state) may be another one.
    pub(super) fn state_changes(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        // Subscribed here, so that nothing is missed between a look at the state and the first poll.
        let mut changes = self.changes.subscribe();
        let activity = self.progress().activity_changes();
        async move {
            let activity = async {
                if !activity.await {
                    // The run ended, and the phase is about to change.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                // An error means that the manager is gone, and everything with it.
                _ = changes.changed() => {}
                () = activity => {}
            }
        }
    }

    /// Events per second lately, or since the last start.
    pub(super) fn rate(&self) -> f64 {
        if let Some(rate) = self.progress().rate() {
            return rate;
        }
        let seconds = lock(&self.record).started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let (applied, _) = self.progress().counts();
        if seconds > 0.0 { applied as f64 / seconds } else { 0.0 }
    }

    pub(super) fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    pub(super) fn last_error(&self) -> Option<SharedError> {
        lock(&self.record).last_error.clone()
    }

    /// Runs until `stop`, starting again after failures as long as that may help.
    ///
    /// # Errors
    /// The error it failed with for good.
    pub(super) async fn supervise(
        self: Arc<Self>,
        config: LiveConfig,
        tail: Arc<Tail>,
        stop: CancellationToken,
    ) -> Result<(), ManagerError> {
        let mut failures = 0;
        while !stop.is_cancelled() {
            tokio::select! {
                () = self.switch.may_begin() => {}
                () = stop.cancelled() => break,
            }
            let Some(under_way) = self.switch.begin_run(&stop) else { continue };
            let run = under_way.token().clone();
            let (result, caught_up) = self.run_once(config, Arc::clone(&tail), run.clone(), failures > 0).await;
            // Before the phase changes, which those who wait for this are told of.
            drop(under_way);
            if caught_up {
                failures = 0;
            }
            if stop.is_cancelled() && result.is_ok() {
                break;
            }
            match result {
                // Told to: it was paused, or its read model is to be made anew.
                Ok(()) if run.is_cancelled() => {
                    self.renew(Phase::Starting);
                    continue;
                }
                // The run ended by itself: the feed came to an end.
                Ok(()) => {}
                Err(failure) => {
                    let error = failure.error;
                    tracing::warn!(projection = self.name.as_str(), %error, "failed");
                    lock(&self.record).last_error = Some(error.clone());
                    if !failure.retry || failures >= config.restarts() {
                        self.enter(Phase::Failed(error.clone()));
                        return Err(ManagerError::Failed { name: self.name.clone(), source: error });
                    }
                }
            }
            failures += 1;
            self.restarts.fetch_add(1, Ordering::Relaxed);
            self.renew(Phase::Restarting);
            tokio::select! {
                () = tokio::time::sleep(config.delay(failures, fastrand::f64())) => {}
                () = stop.cancelled() => {}
            }
        }
        self.enter(Phase::Stopped);
        Ok(())
    }

    /// One run on a task of its own, so that a panic of the projector ends only this run. Also tells whether it caught up.
    async fn run_once(
        &self,
        config: LiveConfig,
        tail: Arc<Tail>,
        stop: CancellationToken,
        again: bool,
    ) -> (Result<(), Failure>, bool) {
        let (progress, asked) = {
            let mut record = lock(&self.record);
            record.started = Some(Instant::now());
            record.phase = Phase::Running { again };
            (record.progress.clone(), record.asked)
        };
        self.changed();
        let session = Session { config, progress: progress.clone(), stop, gate: self.switch.gate(), tail };
        let runner = Arc::clone(&self.runner);
        let result = match tokio::spawn(async move { runner.run(session).await }).await {
            Ok(result) => result,
            Err(panic) => Err(Failure { error: SharedError::new(panic), retry: true }),
        };
        let caught_up = progress.has_been_live();
        if caught_up {
            lock(&self.record).rebuilt = asked;
        }
        (result, caught_up)
    }
}

/// A projection that does not run as long as this lives. It is not paused thereby: an operator's word stands beside it.
pub(super) struct Hold<'f>(&'f Follower);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.switch.release();
        self.0.changed();
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is replaced whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
