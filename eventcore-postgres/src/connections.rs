//! Connections in steady use stay out of the pool for a moment, since the pool asks a connection whether it lives each time
//! that it comes back: a round trip for every statement.

use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A pool, and the few of its connections that are used again and again.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: PgPool,
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    state: Mutex<State>,
    limit: usize,
    added: Notify,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<(PoolConnection<Postgres>, Instant)>,
    /// Nothing is kept any more: the pool is about to wait for all of its connections.
    ended: bool,
}

impl Connections {
    /// How long a connection is kept without use. In that time it is used without a question whether it lives.
    const IDLE: Duration = Duration::from_secs(1);

    /// Keeps at most so many connections of the pool.
    pub(crate) fn new(pool: PgPool, limit: usize) -> Self {
        Self { pool, kept: Arc::new(Kept { limit, ..Kept::default() }) }
    }

    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A connection that was kept, else one of the pool.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let kept = self.kept().connections.pop();
        match kept {
            Some((connection, since)) if since.elapsed() < Self::IDLE => Ok(connection),
            // Too old: it goes back to the pool, which asks it.
            _ => self.pool.acquire().await,
        }
    }

    /// Keeps a connection whose last statement succeeded, or gives it back.
    pub(crate) fn keep(&self, connection: PoolConnection<Postgres>) {
        let mut kept = self.kept();
        if kept.connections.len() < self.kept.limit && !kept.ended {
            kept.connections.push((connection, Instant::now()));
            self.kept.added.notify_one();
        }
    }

    /// Gives back what is not used, until told to stop, and then everything.
    pub(crate) async fn give_back(self, stop: CancellationToken) {
        let idle = async {
            loop {
                self.kept.added.notified().await;
                while !self.kept().connections.is_empty() {
                    tokio::time::sleep(Self::IDLE).await;
                    self.kept().connections.retain(|(_, since)| since.elapsed() < Self::IDLE);
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(idle).await;
        let mut kept = self.kept();
        kept.ended = true;
        kept.connections.clear();
    }

    fn kept(&self) -> MutexGuard<'_, State> {
        self.kept.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
