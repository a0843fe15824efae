//! Waking followers in other processes, on connections of their own.

use crate::retry::Patience;
use crate::tail::Tail;
use crate::{PostgresConfig, SchemaName};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgPool};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Tells other processes about appends, and hears of theirs.
#[derive(Debug)]
pub(crate) struct Notifier {
    pool: PgPool,
    schema: SchemaName,
    on: bool,
    patience: Patience,
    appended: Notify,
    /// When it was found that nobody else listens.
    alone_since: Mutex<Option<Instant>>,
    /// The server's process that listens for this store, or 0; nothing is sent for its sake.
    own_listener: AtomicI32,
    listening: AtomicBool,
}

impl Notifier {
    /// Appends in this time are one notification.
    const COALESCE: Duration = Duration::from_millis(5);
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
            alone_since: Mutex::default(),
            own_listener: AtomicI32::new(0),
            listening: AtomicBool::new(false),
        }
    }

    /// Says that there is something to tell. Never waits, and wakes nobody while there is nobody to be told.
    pub(crate) fn appended(&self) {
        if self.on && !self.is_alone() {
            self.appended.notify_one();
        }
    }

    fn is_alone(&self) -> bool {
        self.alone_since().is_some_and(|since| since.elapsed() < Self::ALONE)
    }

    fn alone_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.alone_since.lock().unwrap_or_else(PoisonError::into_inner)
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
        // Who listens holds a lock to show it, so that nothing is sent for nobody. `classid` is not that of the horizon. To
        // notify is to commit, in one order, and no disk is worth waiting for with that.
        let sql: Arc<str> = format!(
            "select pg_notify($1, ''), set_config('synchronous_commit', 'off', true) \
             from (select from pg_catalog.pg_locks l where l.locktype = 'advisory' \
             and l.classid = '{0}.events'::regclass::oid and l.objid = 1 and l.objsubid = 2 and l.pid <> $2 \
             and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database()) limit 1) l",
            self.schema
        )
        .into();
        let mut sent: Option<Instant> = None;
        while stop.run_until_cancelled(self.appended.notified()).await.is_some() {
            if self.is_alone() {
                continue;
            }
            let coalesced = sent.map(|sent| tokio::time::sleep_until(sent + Self::COALESCE));
            if let Some(coalesced) = coalesced
                && stop.run_until_cancelled(coalesced).await.is_none()
            {
                return;
            }
            let asked = Instant::now();
            sent = Some(asked);
            let query = sqlx::query(AssertSqlSafe(Arc::clone(&sql)))
                .bind(self.channel())
                .bind(self.own_listener.load(Ordering::Relaxed));
            // Beats go over the same connection: one that says nothing must not silence them.
            let told = async {
                let mut connection = self.pool.acquire().await?;
                self.patience.rows(&mut connection, query).await
            };
            match stop.run_until_cancelled(told).await {
                None => return,
                Some(Ok(told)) => *self.alone_since() = told.is_empty().then_some(asked),
                // They poll, so it costs them a poll interval at most.
                Some(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "nobody was notified"),
            }
        }
    }

    /// Listens while the tail wants to be told, until told to stop, and connects again by itself.
    pub(crate) async fn listen(self: Arc<Self>, tail: Arc<Tail>, stop: CancellationToken) {
        if !self.on {
            return;
        }
        let mut wanted = tail.listening();
        let mut delay = Self::FIRST_DELAY;
        loop {
            match stop.run_until_cancelled(wanted.wait_for(|wanted| *wanted)).await {
                Some(Ok(_)) => {}
                None | Some(Err(_)) => return,
            }
            let ended = stop.run_until_cancelled(self.listen_once(&tail, &mut wanted, &mut delay)).await;
            self.listening.store(false, Ordering::Relaxed);
            self.own_listener.store(0, Ordering::Relaxed);
            match ended {
                None => return,
                Some(Ok(())) => continue,
                Some(Err(error)) => tracing::debug!(error = &error as &dyn std::error::Error, "listening again soon"),
            }
            if stop.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                return;
            }
            delay = (delay * 2).min(Self::LONGEST_DELAY);
        }
    }

    /// Listens on one connection until it breaks, or until nobody wants to be told.
    async fn listen_once(
        &self,
        tail: &Tail,
        wanted: &mut watch::Receiver<bool>,
        delay: &mut Duration,
    ) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.eager_reconnect(false);
        listener.listen(&self.channel()).await?;
        let pid: i32 = sqlx::query_scalar(self.shown("lock")).fetch_one(&mut listener).await?;
        self.own_listener.store(pid, Ordering::Relaxed);
        self.listening.store(true, Ordering::Relaxed);
        *delay = Self::FIRST_DELAY;
        // What was said while nobody listened.
        tail.wake();
        loop {
            tokio::select! {
                told = listener.try_recv() => match told? {
                    Some(_) => tail.heard(),
                    None => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionAborted).into()),
                },
                _ = wanted.wait_for(|wanted| !*wanted) => break,
            }
        }
        // First nobody is to send anything any more: given back, the connection ceases to listen, and would go on showing it. If
        // this fails, notifications are sent for nobody as long as the connection lives, and nothing else is lost.
        let _: i32 = sqlx::query_scalar(self.shown("unlock")).fetch_one(&mut listener).await?;
        Ok(())
    }

    /// Takes or releases the lock that shows that this connection listens; tells its process.
    fn shown(&self, change: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(format!(
            "select pg_backend_pid() from (select pg_advisory_{change}_shared('{}.events'::regclass::oid::bigint::bit(32)::integer, 1)) l",
            self.schema
        ))
    }

    fn channel(&self) -> String {
        format!("eventcore_{}", self.schema)
    }
}
