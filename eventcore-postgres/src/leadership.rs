//! Leases: one leader per projection, replaced when its heart stops beating.

use crate::connections::Connections;
use crate::fault::store_error;
use crate::retry::{Patience, repeatable};
use crate::rows::{column, number, one};
use crate::{PostgresConfig, SchemaName};
use eventcore::{Epoch, EventStoreError, Leadership, LeadershipError, ProjectionName};
use sqlx::{AssertSqlSafe, Row};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The leases of one store. Its beats go over a connection of their own, so that a full pool costs no leadership.
#[derive(Debug)]
pub(crate) struct Leases {
    connections: Connections,
    schema: SchemaName,
    owner: Uuid,
    beat_interval: Duration,
    state: Mutex<State>,
    /// One acquisition at a time: a lease of this store's own, not yet noted, looks like one that was left over.
    acquiring: tokio::sync::Mutex<()>,
    /// There is something to beat for, or to give up.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<ProjectionName, Held>,
    /// Leaderships that were dropped, still to be given up on the server.
    dropped: Vec<(ProjectionName, Epoch)>,
    /// What other leaders' beats looked like, and since when: only this process's own clock counts.
    observed: HashMap<ProjectionName, Observed>,
}

#[derive(Debug)]
struct Held {
    epoch: Epoch,
    lost: CancellationToken,
    /// When the newest beat that succeeded was sent.
    beaten: Instant,
}

#[derive(Debug)]
struct Observed {
    epoch: i64,
    beat: i64,
    since: Instant,
}

/// The lease as it stands on the server.
struct Lease {
    owner: Option<Uuid>,
    epoch: i64,
    beat: i64,
}

/// Held by a [`Leadership`]. Dropping it only leaves a note.
struct Guard {
    leases: Arc<Leases>,
    name: ProjectionName,
    epoch: Epoch,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.leases.state();
        if state.forget(&self.name, self.epoch) {
            state.dropped.push((self.name.clone(), self.epoch));
            self.leases.changed.notify_one();
        }
    }
}

impl Leases {
    pub(crate) fn new(connections: Connections, config: &PostgresConfig) -> Self {
        Self {
            connections,
            schema: config.schema.clone(),
            owner: Uuid::now_v7(),
            beat_interval: config.beat_interval,
            state: Mutex::default(),
            acquiring: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) async fn acquire(self: &Arc<Self>, name: &ProjectionName) -> Result<Leadership, LeadershipError> {
        let busy = || LeadershipError::Busy { name: name.clone() };
        let _turn = self.acquiring.lock().await;
        if self.state().held.contains_key(name) {
            return Err(busy());
        }
        let lease = self.lease(name).await?;
        let (epoch, beat) = match &lease {
            None => (0, 0),
            Some(lease) if self.is_free(name, lease) => (lease.epoch, lease.beat),
            Some(_) => return Err(busy()),
        };
        let began = Instant::now();
        let epoch = self.take(name, epoch, beat).await?.ok_or_else(busy)?;
        let lost = CancellationToken::new();
        let mut state = self.state();
        state.observed.remove(name);
        state.held.insert(name.clone(), Held { epoch, lost: lost.clone(), beaten: began });
        self.changed.notify_one();
        drop(state);
        let guard = Guard { leases: Arc::clone(self), name: name.clone(), epoch };
        Ok(Leadership::new(name.clone(), epoch, lost, guard))
    }

    pub(crate) async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError> {
        let (name, epoch) = (leadership.name().clone(), leadership.epoch());
        // Forgotten first, so that the guard leaves no note.
        self.state().forget(&name, epoch);
        drop(leadership);
        self.give_up(&[(name, epoch)]).await.map_err(|error| LeadershipError::Store(store_error(error)))
    }

    async fn lease(&self, name: &ProjectionName) -> Result<Option<Lease>, EventStoreError> {
        let sql = format!("select owner, epoch, beat from {}.leases where name = $1", self.schema);
        let lease = || sqlx::query(AssertSqlSafe(sql.as_str())).bind(name.as_str());
        let rows = repeatable(&self.connections, self.patience(), lease).await?;
        let lease = |row| Ok(Lease { owner: column(row, 0)?, epoch: column(row, 1)?, beat: column(row, 2)? });
        rows.first().map(lease).transpose()
    }

    /// Whether nobody leads: it was given up, or its beat has stood still for long enough under this process's eyes.
    fn is_free(&self, name: &ProjectionName, lease: &Lease) -> bool {
        if lease.owner.is_none_or(|owner| owner == self.owner) {
            return true;
        }
        let mut state = self.state();
        let now = Instant::now();
        let same = |o: &&mut Observed| (o.epoch, o.beat) == (lease.epoch, lease.beat);
        match state.observed.get_mut(name).filter(same) {
            Some(observed) => now - observed.since >= self.beat_interval * PostgresConfig::TAKEN_AFTER_BEATS,
            None => {
                let observed = Observed { epoch: lease.epoch, beat: lease.beat, since: now };
                state.observed.insert(name.clone(), observed);
                false
            }
        }
    }

    async fn take(&self, name: &ProjectionName, epoch: i64, beat: i64) -> Result<Option<Epoch>, EventStoreError> {
        let sql = format!("select {}.take_lease($1, $2, $3, $4)", self.schema);
        // Not repeated: if the answer is lost, the lease is found to be this store's own at the next try.
        let mut connection = self.connections.acquire().await.map_err(store_error)?;
        let take = sqlx::query(AssertSqlSafe(sql)).bind(name.as_str()).bind(self.owner).bind(epoch).bind(beat);
        // All rows: an epoch counts when it is committed.
        let row = one(self.patience().rows(&mut connection, take).await.map_err(store_error)?)?;
        self.connections.keep(connection);
        let taken: Option<i64> = column(&row, 0)?;
        Ok(taken.map(|epoch| Epoch::new(u64::try_from(epoch).unwrap_or_default())))
    }

    /// Beats are short, and a connection that says nothing must not silence the next one too.
    fn patience(&self) -> Patience {
        Patience { retry_for: self.beat_interval, answer_within: self.beat_interval }
    }

    async fn give_up(&self, leases: &[(ProjectionName, Epoch)]) -> Result<(), sqlx::Error> {
        let sql = format!(
            "update {}.leases l set owner = null from unnest($1::text[], $2::bigint[]) g(name, epoch) \
             where l.name = g.name and l.epoch = g.epoch and l.owner = $3",
            self.schema
        );
        let (names, epochs) = columns(leases);
        let mut connection = self.connections.acquire().await?;
        let statement = sqlx::query(AssertSqlSafe(sql)).bind(names).bind(epochs).bind(self.owner);
        self.patience().rows(&mut connection, statement).await.map(drop)
    }

    /// One beat for all leaderships. Those that are no longer in force are told so.
    async fn beat(&self) -> Result<(), sqlx::Error> {
        let held: Vec<_> = self.state().held.iter().map(|(name, held)| (name.clone(), held.epoch)).collect();
        if held.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "update {}.leases l set beat = l.beat + 1 from unnest($1::text[], $2::bigint[]) h(name, epoch) \
             where l.name = h.name and l.epoch = h.epoch and l.owner = $3 returning l.name",
            self.schema
        );
        let (names, epochs) = columns(&held);
        let sent = Instant::now();
        let mut connection = self.connections.acquire().await?;
        let statement = sqlx::query(AssertSqlSafe(sql)).bind(names).bind(epochs).bind(self.owner);
        let rows = self.patience().rows(&mut connection, statement).await?;
        let beaten = rows.iter().map(|row| row.try_get::<&str, _>(0)).collect::<Result<HashSet<_>, _>>()?;
        let mut state = self.state();
        for (name, epoch) in held {
            let Some(lease) = state.held.get_mut(&name).filter(|lease| lease.epoch == epoch) else { continue };
            if beaten.contains(name.as_str()) {
                lease.beaten = sent;
            } else {
                tracing::warn!(name = name.as_str(), epoch = epoch.get(), "another instance leads by now");
                lease.lost.cancel();
                state.held.remove(&name);
            }
        }
        Ok(())
    }

    /// Whoever could not beat for too long no longer knows that he leads.
    fn doubt(&self) {
        let limit = self.beat_interval * PostgresConfig::LOST_AFTER_BEATS;
        self.state().held.retain(|name, lease| {
            let sure = lease.beaten.elapsed() < limit;
            if !sure {
                tracing::warn!(name = name.as_str(), "no beat got through; stepping down");
                lease.lost.cancel();
            }
            sure
        });
    }

    /// Gives up what was dropped, and beats; tells whether both came through.
    async fn work(&self, dropped: &[(ProjectionName, Epoch)]) -> bool {
        let work = async {
            if !dropped.is_empty() {
                self.give_up(dropped).await?;
            }
            self.beat().await
        };
        let mut work = std::pin::pin!(work);
        // A beat that hangs must not keep its leaders from doubting.
        let worked = loop {
            tokio::select! {
                worked = &mut work => break worked,
                () = tokio::time::sleep(self.beat_interval / 2) => self.doubt(),
            }
        };
        if let Err(error) = &worked {
            tracing::debug!(error = error as &dyn std::error::Error, "a beat failed");
        }
        worked.is_ok()
    }

    /// Beats, and gives up what was dropped, until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let dropped = std::mem::take(&mut self.state().dropped);
            let worked = self.work(&dropped).await;
            if !worked {
                // What was given up already is given up once more without harm.
                self.state().dropped.extend(dropped);
            }
            self.doubt();
            // What was abandoned during the last beat is still given up.
            if stop.is_cancelled() && (!worked || self.state().dropped.is_empty()) {
                return;
            }
            let idle = {
                let state = self.state();
                state.held.is_empty() && state.dropped.is_empty()
            };
            let pause = if worked { self.beat_interval } else { self.beat_interval / 5 };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(pause), if !idle => {}
            }
        }
    }

    /// Ends all leaderships, as their holders are about to find the store closed.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        for (name, lease) in std::mem::take(&mut state.held) {
            lease.lost.cancel();
            state.dropped.push((name, lease.epoch));
        }
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets a leadership that is held here; `false` if it is not.
    fn forget(&mut self, name: &ProjectionName, epoch: Epoch) -> bool {
        let ours = self.held.get(name).is_some_and(|lease| lease.epoch == epoch);
        if ours {
            self.held.remove(name);
        }
        ours
    }
}

fn columns(leases: &[(ProjectionName, Epoch)]) -> (Vec<&str>, Vec<i64>) {
    leases.iter().map(|(name, epoch)| (name.as_str(), number(epoch.get()))).unzip()
}
