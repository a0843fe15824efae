//! How far followers may look: one tail per process finds it out for all of them.

use crate::connections::Connections;
use crate::pace::Pace;
use crate::retry::{Patience, repeatable};
use crate::rows::{column, cursor, event_id, number, one};
use crate::{PostgresConfig, SchemaName};
use eventcore::{EventStoreError, GlobalPosition, LogCursor, LogSignal, LogWatch};
use sqlx::AssertSqlSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The horizon: everything up to it is visible, and nothing can appear below it any more.
#[derive(Debug)]
pub(crate) struct Tail {
    connections: Connections,
    sql: Arc<str>,
    patience: Patience,
    poll_interval: Duration,
    state: Mutex<State>,
    /// One refresh at a time; who waited for one that began late enough needs none of his own.
    refreshing: tokio::sync::Mutex<()>,
    /// The highest position known to be acknowledged, which readers of this process are entitled to see soon.
    acknowledged: AtomicU64,
    signal: LogSignal,
    wake: Notify,
    /// Whether somebody follows who wants to be told of appends of other processes.
    listen: watch::Sender<bool>,
}

#[derive(Debug)]
struct State {
    /// The last visible event at or below the horizon. Only a visible event is remembered: after a crash of the server
    /// the sequence may fall back below positions that were drawn in vain, but never below one that was committed.
    horizon: Option<LogCursor>,
    /// Whether appends are under way that hold the horizon back.
    held_back: bool,
    /// When the newest refresh began.
    refreshed: Option<Instant>,
    /// Since when what was found out before is not enough, as something was appended past this store.
    ask_after: Option<Instant>,
    /// The newest refresh that failed, and when. Who waited for it need not wait once more.
    failed: Option<(Instant, EventStoreError)>,
    /// Another history was found. It stays so: what this process knows belongs to the old one.
    diverged: Option<EventStoreError>,
    pace: Pace,
}

impl Tail {
    const FIRST_DELAY: Duration = Duration::from_millis(1);
    const LONGEST_DELAY: Duration = Duration::from_millis(50);

    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        Self {
            connections,
            sql: statement(&config.schema),
            patience: Patience::of(config),
            poll_interval: config.poll_interval,
            state: Mutex::new(State {
                horizon: None,
                held_back: false,
                refreshed: None,
                ask_after: None,
                failed: None,
                diverged: None,
                pace: Pace::new(config.poll_interval),
            }),
            refreshing: tokio::sync::Mutex::default(),
            acknowledged: AtomicU64::new(0),
            signal: LogSignal::tended(),
            wake: Notify::new(),
            listen: watch::Sender::new(false),
        }
    }

    /// A follower's end of the signal. A tail that rested, as nobody followed, begins to poll: it is woken once the end is there.
    pub(crate) fn watch(&self) -> LogWatch {
        let watch = self.signal.watch();
        self.wake();
        watch
    }

    /// Says that an append up to this position was acknowledged.
    pub(crate) fn acknowledge(&self, position: Option<GlobalPosition>) {
        if let Some(position) = position {
            self.acknowledged.fetch_max(position.get(), Ordering::AcqRel);
        }
    }

    /// Says that something was appended nobody knows how far: whoever asks from now on is to see it. What was found out stays,
    /// since a look that is under way may have begun before and would make it seem young again.
    pub(crate) fn ask_again(&self) {
        self.state().ask_after = Some(Instant::now());
    }

    /// Says that this process appended. While nobody waits to be told, it costs nothing.
    pub(crate) fn appended(&self) {
        if self.signal.is_watched() {
            self.wake();
        }
    }

    /// Says that there may be something new.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Says that another process told of an append.
    pub(crate) fn heard(&self) {
        self.state().pace.heard(Instant::now());
        self.wake();
    }

    /// Whether appends of other processes are to be listened for: while somebody follows, unless the log is so busy that it
    /// is looked at all the time.
    pub(crate) fn listening(&self) -> watch::Receiver<bool> {
        self.listen.subscribe()
    }

    /// The horizon for a reader who has come as far as `after`.
    ///
    /// The one in memory does if there is something behind `after`; otherwise one that is no older than the poll interval,
    /// and that knows what this process has acknowledged or was told of. So a hundred readers at the end ask the server as
    /// often as one.
    pub(crate) async fn horizon(&self, after: Option<GlobalPosition>) -> Result<Option<LogCursor>, EventStoreError> {
        let now = Instant::now();
        {
            let state = self.state();
            if let Some(diverged) = &state.diverged {
                return Err(diverged.clone());
            }
            let position = state.horizon.map(|cursor| cursor.position);
            let acknowledged = self.acknowledged.load(Ordering::Acquire);
            let young = state.refreshed.is_some_and(|refreshed| now - refreshed < self.poll_interval);
            let complete = position.map_or(0, GlobalPosition::get) >= acknowledged && state.refreshed > state.ask_after;
            if complete && (young || position > after) {
                return Ok(state.horizon);
            }
        }
        self.refresh(now).await
    }

    /// Asks the server, unless somebody did so after `since`.
    async fn refresh(&self, since: Instant) -> Result<Option<LogCursor>, EventStoreError> {
        let turn = self.refreshing.lock().await;
        let known = {
            let state = self.state();
            if state.refreshed.is_some_and(|refreshed| refreshed > since) {
                return Ok(state.horizon);
            }
            if let Some((_, error)) = state.failed.as_ref().filter(|(at, _)| *at > since) {
                return Err(error.clone());
            }
            state.horizon
        };
        let began = Instant::now();
        let at = known.map(|cursor| number(cursor.position.get()));
        let ask = || sqlx::query(AssertSqlSafe(Arc::clone(&self.sql))).bind(at);
        let rows = repeatable(&self.connections, self.patience, ask).await;
        let row = one(rows.inspect_err(|error| self.state().failed = Some((Instant::now(), error.clone())))?)?;
        let (head, bound): (i64, i64) = (column(&row, 0)?, column(&row, 1)?);
        let found = match (column::<Option<i64>>(&row, 2)?, column::<Option<Uuid>>(&row, 3)?) {
            (Some(position), Some(id)) => Some(cursor(position, id)?),
            _ => None,
        };
        let standing = column::<Option<Uuid>>(&row, 4)?.map(event_id).transpose()?;
        let mut state = self.state();
        if let Some(known) = known
            && standing != Some(known.event_id)
        {
            let diverged =
                EventStoreError::LogDiverged { position: known.position, expected: known.event_id, found: standing };
            state.diverged = Some(diverged.clone());
            return Err(diverged);
        }
        // It never moves back, though a later registration may restore a lower bound.
        if found.map(|cursor| cursor.position) > state.horizon.map(|cursor| cursor.position) {
            state.horizon = found;
        }
        state.held_back = head > bound;
        state.refreshed = Some(began);
        let moved = state.horizon.map(|cursor| cursor.position) > known.map(|cursor| cursor.position);
        state.pace.looked(Instant::now(), began.elapsed(), u64::try_from(head).unwrap_or_default(), moved);
        drop(turn);
        Ok(state.horizon)
    }

    /// Wakes followers when the horizon moves, until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_looking()).await;
        // They are to find the store closed.
        self.signal.notify();
    }

    async fn keep_looking(&self) {
        let mut told = None;
        // The pause while appends hold the horizon back, and that after a failure, however busy the log was.
        let (mut delay, mut failed) = (None, None);
        loop {
            let watched = self.signal.is_watched();
            let (listening, pause) = {
                let state = self.state();
                (state.pace.is_listening(), failed.unwrap_or_else(|| state.pace.pause(delay)))
            };
            let listen = watched && listening;
            self.listen.send_if_modified(|before| std::mem::replace(before, listen) != listen);
            let woken = tokio::select! {
                () = self.wake.notified() => true,
                () = tokio::time::sleep(pause), if watched => false,
            };
            // Who only reads pages asks for himself. After the last one who followed it comes here once more, and rests.
            if !self.signal.is_watched() {
                continue;
            }
            match self.refresh(Instant::now()).await {
                Ok(horizon) => {
                    failed = None;
                    if horizon != told {
                        told = horizon;
                        self.signal.notify();
                    }
                    // Appends under way may end without a word, so look again soon, then less and less often.
                    let shorter = delay.filter(|_| !woken).map_or(Self::FIRST_DELAY, |delay| delay * 2);
                    delay = self.state().held_back.then(|| shorter.min(Self::LONGEST_DELAY));
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the log could not be followed");
                    // Followers are to see it themselves.
                    self.signal.notify();
                    failed = Some(self.poll_interval.max(Self::LONGEST_DELAY));
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn statement(schema: &SchemaName) -> Arc<str> {
    format!("select head, bound, position, event_id, known_id from {schema}.horizon($1)").into()
}
