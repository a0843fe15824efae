//! Waking followers in other processes, on connections of their own.

use crate::retry::Patience;
use crate::tail::Tail;
use crate::{PostgresConfig, SchemaName};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgPool};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Tells other processes about appends, and hears of theirs.
#[derive(Debug)]
pub(crate) struct Notifier {
    pool: PgPool,
    schema: SchemaName,
    on: bool,
    patience: Patience,
    appended: Notify,
    /// What this store's notifications carry, so that it knows them again.
    id: String,
    /// When a notification of another store was last heard. One of its own may say less than there is to tell by then.
    heard: watch::Sender<Option<Instant>>,
    /// The server's process that listens for this store; nothing is sent for its sake.
    own_listener: AtomicI32,
    listening: AtomicBool,
}

impl Notifier {
    /// Appends in this time are one notification, whichever process they come from.
    const COALESCE: Duration = Duration::from_millis(5);
    /// A notification of another store that is heard later than this most likely woke everybody after the append. One that
    /// is heard sooner may have reached others before it. Whoever is overlooked polls.
    const SKEW: Duration = Duration::from_millis(2);
    /// How long it is taken for granted that nobody else listens. A listener polls, so it does not depend on it.
    const ALONE: Duration = Duration::from_secs(1);
    const FIRST_DELAY: Duration = Duration::from_millis(100);
    const LONGEST_DELAY: Duration = Duration::from_secs(5);

    pub(crate) fn new(pool: PgPool, config: &PostgresConfig) -> Self {
        Self {
            pool,
            schema: config.schema.clone(),
            on: config.notifications,
            patience: Patience { retry_for: Duration::ZERO, answer_within: config.beat_interval / 2 },
            appended: Notify::new(),
            id: Uuid::now_v7().to_string(),
            heard: watch::Sender::new(None),
            own_listener: AtomicI32::new(0),
            listening: AtomicBool::new(false),
        }
    }

    /// Says that there is something to tell. Never waits.
    pub(crate) fn appended(&self) {
        if self.on {
            self.appended.notify_one();
        }
    }

    /// Whether notifications of other processes are heard right now.
    pub(crate) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    /// Sends notifications until told to stop.
    pub(crate) async fn send(self: Arc<Self>, stop: CancellationToken) {
        if !self.on {
            return;
        }
        // Who listens holds a lock to show it, so that nothing is sent for nobody. `classid` is not that of the horizon.
        let sql: Arc<str> = format!(
            "select pg_notify($1, $3) from (select from pg_catalog.pg_locks l where l.locktype = 'advisory' \
             and l.classid = '{0}.events'::regclass::oid and l.objid = 1 and l.objsubid = 2 and l.pid <> $2 \
             and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database()) limit 1) l",
            self.schema
        )
        .into();
        let mut alone_since: Option<Instant> = None;
        let mut sent = None;
        while stop.run_until_cancelled(self.appended.notified()).await.is_some() {
            if alone_since.is_some_and(|since| since.elapsed() < Self::ALONE) {
                continue;
            }
            match stop.run_until_cancelled(self.is_spoken_for(sent)).await {
                None => return,
                Some(true) => continue,
                Some(false) => sent = Some(Instant::now()),
            }
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&sql)))
                .bind(self.channel())
                .bind(self.own_listener.load(Ordering::Relaxed))
                .bind(self.id.as_str());
            // Beats go over the same connection: one that says nothing must not silence them.
            let told = async {
                let mut connection = self.pool.acquire().await?;
                self.patience.rows(&mut connection, query).await
            };
            match stop.run_until_cancelled(told).await {
                None => return,
                Some(Ok(told)) => alone_since = told.is_empty().then(Instant::now),
                // They poll, so it costs them a poll interval at most.
                Some(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "nobody was notified"),
            }
        }
    }

    /// Whether another process tells what there is to tell. If everybody was woken a moment ago, this waits until they may be
    /// woken again; of all who wait so, whose time is up first speaks for all of them. So a fleet of writers sends hardly
    /// more than one of them does, and each notification wakes every listener of the database.
    async fn is_spoken_for(&self, sent: Option<Instant>) -> bool {
        let appended = Instant::now();
        let mut heard = self.heard.subscribe();
        let last = sent.max(*heard.borrow_and_update());
        let Some(last) = last.filter(|last| last.elapsed() < Self::COALESCE) else { return false };
        let later = async {
            let after = |at: &Option<Instant>| at.is_some_and(|at| at > appended + Self::SKEW);
            heard.wait_for(after).await.is_ok()
        };
        tokio::select! {
            spoken_for = later => spoken_for,
            () = tokio::time::sleep_until(last + Self::COALESCE.mul_f64(1.0 + fastrand::f64())) => false,
        }
    }

    /// Listens until told to stop, and connects again by itself.
    pub(crate) async fn listen(self: Arc<Self>, tail: Arc<Tail>, stop: CancellationToken) {
        if !self.on {
            return;
        }
        let mut delay = Self::FIRST_DELAY;
        loop {
            let ended = stop.run_until_cancelled(self.listen_once(&tail, &mut delay)).await;
            self.listening.store(false, Ordering::Relaxed);
            match ended {
                None => return,
                Some(error) => tracing::debug!(error = &error as &dyn std::error::Error, "listening again soon"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
            delay = (delay * 2).min(Self::LONGEST_DELAY);
        }
    }

    /// Listens on one connection until it breaks.
    async fn listen_once(&self, tail: &Tail, delay: &mut Duration) -> sqlx::Error {
        let listening = async {
            let mut listener = PgListener::connect_with(&self.pool).await?;
            listener.eager_reconnect(false);
            listener.listen(&self.channel()).await?;
            let lock = format!(
                "select pg_backend_pid() from (select pg_advisory_lock_shared('{}.events'::regclass::oid::bigint::bit(32)::integer, 1)) l",
                self.schema
            );
            let pid: i32 = sqlx::query_scalar(AssertSqlSafe(lock)).fetch_one(&mut listener).await?;
            self.own_listener.store(pid, Ordering::Relaxed);
            self.listening.store(true, Ordering::Relaxed);
            *delay = Self::FIRST_DELAY;
            // What was said while nobody listened.
            tail.wake();
            while let Some(told) = listener.try_recv().await? {
                if told.payload() != self.id {
                    self.heard.send_replace(Some(Instant::now()));
                }
                tail.wake();
            }
            Ok(())
        };
        match listening.await {
            Err(error) => error,
            Ok(()) => sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()),
        }
    }

    fn channel(&self) -> String {
        format!("eventcore_{}", self.schema)
    }
}
