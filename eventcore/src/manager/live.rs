//! Projections that run, and the handle to them.

use super::follower::{Follower, lock};
use super::tail::Tail;
use super::{LiveConfig, ManagerError, ProjectionState};
use crate::{Activity, Backend, EventReader, GlobalPosition, Progress, ProjectionName, SharedError};
use std::fmt;
use std::future::poll_fn;
use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How the live projections are doing, all together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LiveState {
    /// At least one reads history.
    CatchingUp,
    /// All have seen everything there was, as far as they run: paused ones and those led elsewhere do not count.
    Live,
    /// At least one cannot reach the store or was started again.
    Reconnecting,
    /// They were shut down.
    Stopped,
    /// At least one has failed for good, with this error. The others go on.
    Failed(SharedError),
}

/// The handle to live projections. Clones refer to the same; when the last one and the manager are dropped, they stop.
#[derive(Clone)]
pub struct LiveHandle {
    running: Arc<Running>,
}

/// The states of live projections, one after the other. See [`LiveHandle::states`].
pub struct LiveStates {
    running: Arc<Running>,
    shown: Option<Discriminant<LiveState>>,
}

impl LiveStates {
    /// The state at once, and then whenever it is another one; several changes between two calls are shown as one. `None`
    /// when the projections have ended and that was shown. Cancelling the call loses nothing.
    pub async fn next(&mut self) -> Option<LiveState> {
        loop {
            // Asked for before the look at the state, so that no change in between is slept over.
            let mut changes: Vec<_> =
                self.running.followers.iter().map(|follower| Box::pin(follower.state_changes())).collect();
            let mut ended = self.running.ended.clone();
            let has_ended = *ended.borrow_and_update();
            let state = self.running.state();
            if self.shown != Some(discriminant(&state)) {
                self.shown = Some(discriminant(&state));
                return Some(state);
            }
            if has_ended {
                return None;
            }
            let any =
                poll_fn(|context| match changes.iter_mut().any(|change| change.as_mut().poll(context).is_ready()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                });
            tokio::select! {
                // An error means that the task is gone, and with it all runs.
                _ = ended.changed() => {}
                () = any => {}
            }
        }
    }
}

impl fmt::Debug for LiveStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveStates").finish_non_exhaustive()
    }
}

/// One start of all projections, until they are shut down.
pub(super) struct Running {
    followers: Vec<Arc<Follower>>,
    /// Where a leader elsewhere saves how far it has come.
    checkpoints: Arc<dyn Backend>,
    stop: CancellationToken,
    ended: watch::Receiver<bool>,
    first_error: Arc<Mutex<Option<ManagerError>>>,
    _stop_on_drop: DropGuard,
}

impl Running {
    pub(super) fn start(
        followers: &[Arc<Follower>],
        config: LiveConfig,
        tail: &Arc<Tail>,
        log: impl Backend + Clone + 'static,
    ) -> Arc<Self> {
        let checkpoints = Arc::new(log.clone());
        // Before anybody reads, so that the first who has come to the end is joined there by the others.
        tail.open();
        let end_of_log = CancellationToken::new();
        let reader = tokio::spawn(read_end(Arc::clone(tail), log, end_of_log.clone()));
        let stop = CancellationToken::new();
        let (end, ended) = watch::channel(false);
        let first_error = Arc::new(Mutex::new(None));
        let runs: Vec<_> = followers
            .iter()
            .inspect(|follower| follower.starting())
            .map(|follower| tokio::spawn(Arc::clone(follower).supervise(config, Arc::clone(tail), stop.clone())))
            .collect();
        let errors = Arc::clone(&first_error);
        tokio::spawn(async move {
            for run in runs {
                if let Ok(Err(error)) = run.await {
                    lock(&errors).get_or_insert(error);
                }
            }
            end_of_log.cancel();
            // Only then may another start use the tail. An error means that the runtime shuts down.
            let _ = reader.await;
            end.send_replace(true);
        });
        let guard = stop.clone().drop_guard();
        Arc::new(Self { followers: followers.to_vec(), checkpoints, stop, ended, first_error, _stop_on_drop: guard })
    }

    /// Returns when another instance, which leads a projection while this run of it stands by, has come to a position.
    async fn leader_comes_to(&self, position: GlobalPosition, name: &ProjectionName, progress: &Progress) {
        const LOOK: Duration = Duration::from_millis(100);
        while progress.wait_until(Activity::Standby).await.is_ok() {
            // What the store cannot tell now, it is asked again.
            let checkpoint = self.checkpoints.load_checkpoint(name).await.ok().flatten();
            if checkpoint.and_then(|checkpoint| checkpoint.cursor).is_some_and(|cursor| cursor.position >= position) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        // The run has ended.
        std::future::pending().await
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    fn state(&self) -> LiveState {
        if self.has_ended() {
            let failed = lock(&self.first_error).clone();
            return failed.map_or(LiveState::Stopped, |error| LiveState::Failed(SharedError::new(error)));
        }
        let states: Vec<_> = self.followers.iter().map(|follower| follower.state()).collect();
        let failed = states.iter().find_map(|state| match state {
            ProjectionState::Failed(error) => Some(LiveState::Failed(error.clone())),
            _ => None,
        });
        let any = |wanted: fn(&ProjectionState) -> bool| states.iter().any(wanted);
        failed.unwrap_or_else(|| {
            if any(|state| matches!(state, ProjectionState::Reconnecting)) {
                LiveState::Reconnecting
            } else if any(|state| matches!(state, ProjectionState::CatchingUp | ProjectionState::Stopped)) {
                LiveState::CatchingUp
            } else {
                LiveState::Live
            }
        })
    }
}

/// Reads the end of the log for all, until told to stop; begins again if the store panics.
async fn read_end(tail: Arc<Tail>, log: impl EventReader + Clone + 'static, stop: CancellationToken) {
    loop {
        let (tail, log, stop_it) = (Arc::clone(&tail), log.clone(), stop.clone());
        if tokio::spawn(async move { tail.follow(&log, &stop_it).await }).await.is_ok() {
            return;
        }
        tracing::error!(
            "reading the end of the log panicked; the projections read by themselves until it is tried again"
        );
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return,
        }
    }
}

impl LiveHandle {
    pub(super) const fn new(running: Arc<Running>) -> Self {
        Self { running }
    }

    /// How the projections are doing, all together. An adapter may try for a while by itself before it says that the store
    /// cannot be reached; see its configuration.
    #[must_use]
    pub fn state(&self) -> LiveState {
        self.running.state()
    }

    /// Shows the state, and then every other one that follows: for health checks and displays.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use eventcore::{Event, InMemory, LiveState, ProjectionManager, Projector, RecordedEvent};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize, Event)]
    /// # #[event(namespace = "bank")]
    /// # enum BankEvent { Deposited { cents: u64 } }
    /// # #[derive(Clone, Default)]
    /// # struct Total(u64);
    /// # impl Projector for Total {
    /// #     type Event = BankEvent;
    /// #     type Error = std::convert::Infallible;
    /// #     type Context = InMemory;
    /// #     fn name(&self) -> &str { "total" }
    /// #     async fn apply(&mut self, _: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> { Ok(()) }
    /// # }
    /// # let store = eventcore_memory::MemoryEventStore::new();
    /// # let manager = ProjectionManager::builder(store.clone()).register(Total::default)?.build();
    /// let live = manager.start_live()?;
    /// let mut states = live.states();
    /// tokio::spawn(async move { live.shutdown().await });
    /// while let Some(state) = states.next().await {
    ///     println!("{state:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn states(&self) -> LiveStates {
        LiveStates { running: Arc::clone(&self.running), shown: None }
    }

    /// Whether all projections have seen everything there was. It goes back to `false` when one falls behind, or when the
    /// store cannot be reached.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        matches!(self.state(), LiveState::Live)
    }

    /// Returns when every projection has caught up once, as far as it runs here. As for [`LiveState::Live`], paused ones do
    /// not count, and neither do those that another instance leads ([`ProjectionState::Standby`]): how far that one has come
    /// is not known here.
    ///
    /// # Errors
    /// [`ManagerError::Failed`] if one of them fails for good, [`ManagerError::NotLive`] if they are shut down meanwhile.
    pub async fn wait_until_caught_up(&self) -> Result<(), ManagerError> {
        for follower in &self.running.followers {
            let caught_up = |activity| matches!(activity, Activity::Live | Activity::Standby);
            match follower.wait(|progress| async move { progress.wait_until_any(caught_up).await.is_ok() }).await {
                Err(ManagerError::Paused { .. }) => {}
                waited => waited?,
            }
        }
        Ok(())
    }

    /// Returns when every projection is done with `position`: what was written there can be read from each.
    ///
    /// For a projection that another instance leads, this is when its stored checkpoint is there, which is looked at every
    /// 100 ms.
    ///
    /// # Errors
    /// [`ManagerError::Paused`] if one of them is paused and has not come so far, [`ManagerError::Failed`] if one fails for
    /// good, [`ManagerError::NotLive`] if they are shut down meanwhile.
    pub async fn wait_for(&self, position: GlobalPosition) -> Result<(), ManagerError> {
        for follower in &self.running.followers {
            let arrives = |progress: Progress| async move {
                tokio::select! {
                    arrived = progress.wait_for(position) => arrived.is_ok(),
                    () = self.running.leader_comes_to(position, &follower.name, &progress) => true,
                }
            };
            follower.wait(arrives).await?;
        }
        Ok(())
    }

    /// Stops all projections: the event in hand is finished, checkpoints are saved. Any number of callers may wait for it;
    /// then they can be started again.
    ///
    /// # Errors
    /// The first error that a projection failed with.
    pub async fn shutdown(&self) -> Result<(), ManagerError> {
        self.running.stop.cancel();
        let mut ended = self.running.ended.clone();
        // An error means that the task is gone, and with it all runs.
        let _ = ended.wait_for(|ended| *ended).await;
        lock(&self.running.first_error).clone().map_or(Ok(()), Err)
    }
}
