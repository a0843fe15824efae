//! How far a follower has come, for those who wait for it.

use crate::{GlobalPosition, Timestamp};
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;

/// How far a follower has come. Clones show the same.
///
/// A caller that appended something waits for its position, and then reads from the follower what it wrote.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use eventcore::{GlobalPosition, Progress};
///
/// let progress = Progress::default();
/// let seven = GlobalPosition::try_new(7)?;
/// let waiting = tokio::spawn({
///     let progress = progress.clone();
///     async move { progress.wait_for(seven).await }
/// });
/// progress.advance(seven);
/// waiting.await.unwrap()?;
/// assert_eq!(progress.position(), Some(seven));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<State>>);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    position: Option<GlobalPosition>,
    /// When the last event was recorded that the follower is done with, or the first one that it read.
    as_of: Option<Timestamp>,
    /// Events per second, lately; `None` until that was measured.
    rate: Option<f64>,
    activity: Activity,
    applied: u64,
    skipped: u64,
    parked: u64,
    has_been_live: bool,
    ended: bool,
}

/// What a follower is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activity {
    /// It has not begun, or has ended.
    #[default]
    Idle,
    /// Another instance leads; it waits to take over.
    Standby,
    /// It reads history.
    CatchingUp,
    /// It has seen everything there was, and waits for more.
    Live,
    /// The store cannot be reached or failed; it tries again.
    Reconnecting,
}

/// The follower ended before it did what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the follower has ended")]
pub struct FollowerEnded;

/// The follower ended before it reached the position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the follower ended at {reached:?} before it reached position {wanted}")]
pub struct ProgressClosed {
    /// The position waited for.
    pub wanted: GlobalPosition,
    /// How far the follower had come.
    pub reached: Option<GlobalPosition>,
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }
}

impl Progress {
    /// The last position that the follower is done with.
    #[must_use]
    pub fn position(&self) -> Option<GlobalPosition> {
        self.0.borrow().position
    }

    /// What the follower is doing.
    #[must_use]
    pub fn activity(&self) -> Activity {
        self.0.borrow().activity
    }

    /// How many events it applied in this run, and how many it skipped because they failed.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.applied, state.skipped)
    }

    /// How many events became dead letters in this run.
    #[must_use]
    pub fn parked(&self) -> u64 {
        self.0.borrow().parked
    }

    /// Returns when the follower does `activity`.
    ///
    /// # Errors
    /// [`FollowerEnded`] if it ended before that.
    pub async fn wait_until(&self, activity: Activity) -> Result<(), FollowerEnded> {
        self.wait_until_any(|doing| doing == activity).await
    }

    pub(crate) async fn wait_until_any(&self, wanted: impl Fn(Activity) -> bool) -> Result<(), FollowerEnded> {
        let mut state = self.0.subscribe();
        let state = state.wait_for(|state| state.ended || wanted(state.activity)).await;
        let reached = state.is_ok_and(|state| wanted(state.activity));
        if reached { Ok(()) } else { Err(FollowerEnded) }
    }

    /// Returns when the follower does something else than now; `false` if it ended instead.
    pub(crate) fn activity_changes(&self) -> impl Future<Output = bool> + Send + 'static + use<> {
        let mut state = self.0.subscribe();
        let now = state.borrow().activity;
        async move { state.wait_for(|state| state.ended || state.activity != now).await.is_ok_and(|state| !state.ended) }
    }

    /// Returns when the follower is done with `position` and everything before it.
    ///
    /// # Errors
    /// [`ProgressClosed`] if the follower ended before that.
    pub async fn wait_for(&self, position: GlobalPosition) -> Result<(), ProgressClosed> {
        let mut state = self.0.subscribe();
        let reached = |state: &State| state.ended || state.position >= Some(position);
        let state = state.wait_for(reached).await.map_or_else(|_| State::default(), |state| *state);
        if state.position >= Some(position) {
            return Ok(());
        }
        Err(ProgressClosed { wanted: position, reached: state.position })
    }

    /// The follower is done with everything up to `position`. It never goes back by this call.
    pub fn advance(&self, position: GlobalPosition) {
        self.0.send_if_modified(|state| {
            let news = state.position < Some(position);
            if news {
                state.position = Some(position);
            }
            news
        });
    }

    /// Whether the follower has caught up once in this run.
    pub(crate) fn has_been_live(&self) -> bool {
        self.0.borrow().has_been_live
    }

    /// A follower begins.
    pub(crate) fn restart(&self) {
        self.0.send_replace(State::default());
    }

    /// The follower does something else now.
    pub(crate) fn enter(&self, activity: Activity) {
        self.0.send_if_modified(|state| {
            state.has_been_live |= activity == Activity::Live;
            std::mem::replace(&mut state.activity, activity) != activity
        });
    }

    /// So many events were applied, skipped and parked by now.
    pub(crate) fn count(&self, applied: u64, skipped: u64, parked: u64) {
        self.0.send_if_modified(|state| {
            let news = (state.applied, state.skipped, state.parked) != (applied, skipped, parked);
            (state.applied, state.skipped, state.parked) = (applied, skipped, parked);
            news
        });
    }

    /// When the last event was recorded that the follower is done with.
    pub(crate) fn as_of(&self) -> Option<Timestamp> {
        self.0.borrow().as_of
    }

    /// How many events it applied per second, lately.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.0.borrow().rate
    }

    /// What nobody waits for: who looks, sees it.
    pub(crate) fn note(&self, as_of: Option<Timestamp>, rate: Option<f64>) {
        self.0.send_if_modified(|state| {
            state.as_of = as_of.or(state.as_of);
            state.rate = rate.or(state.rate);
            false
        });
    }

    /// Shows what another follower does, as long as it runs.
    pub(crate) async fn mirror(&self, from: &Self) {
        let mut changes = from.0.subscribe();
        loop {
            let seen = *changes.borrow_and_update();
            if seen.ended {
                return;
            }
            self.0.send_modify(|state| {
                state.position = state.position.max(seen.position);
                (state.applied, state.skipped, state.parked) = (seen.applied, seen.skipped, seen.parked);
                state.activity = seen.activity;
                state.has_been_live |= seen.has_been_live;
                (state.as_of, state.rate) = (seen.as_of.or(state.as_of), seen.rate.or(state.rate));
            });
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// However the follower ends, those who wait for it are told.
    pub(crate) const fn end_on_drop(&self) -> EndOnDrop<'_> {
        EndOnDrop(self)
    }

    /// The follower has ended.
    pub(crate) fn end(&self) {
        self.0.send_modify(|state| {
            state.ended = true;
            state.activity = Activity::Idle;
            state.rate = Some(0.0);
        });
    }
}

/// Ends a follower when it is dropped.
pub(crate) struct EndOnDrop<'a>(&'a Progress);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
