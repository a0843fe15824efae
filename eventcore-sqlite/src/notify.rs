//! Noticing what other processes commit.

use crate::error::store_error;
use crate::head::Head;
use crate::patrol::{Patrol, Round};
use crate::read::Reader;
use crate::still::StillLog;
use eventcore::{EventStoreError, GlobalPosition};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SELECT_DATA_VERSION: &str = "pragma data_version";

type Connect = dyn Fn() -> Result<Reader, EventStoreError> + Send + Sync;

/// Looks every few milliseconds whether somebody committed to the store at `path`, as long as somebody watches the log.
pub(crate) fn poller(
    path: &Path,
    interval: Duration,
    head: Arc<Head>,
    connect: impl Fn() -> Result<Reader, EventStoreError> + Send + Sync + 'static,
) -> Patrol {
    let (path, connect): (_, Arc<Connect>) = (path.to_owned(), Arc::new(connect));
    Patrol::new("eventcore-poll", interval, move || Poll::new(&path, Arc::clone(&head), Arc::clone(&connect)))
}

struct Poll {
    head: Arc<Head>,
    connect: Arc<Connect>,
    log: StillLog,
    reader: Option<Reader>,
    /// The number that SQLite gives to what is committed, when it was last asked for it.
    seen: Option<i64>,
}

impl Round for Poll {
    fn is_needed(&self) -> bool {
        self.head.is_watched()
    }

    fn look(&mut self) {
        self.look_at(Instant::now());
    }

    /// What is committed while nobody watches is found by the first look afterwards.
    fn rest(&mut self) {
        self.seen = None;
    }
}

impl Poll {
    fn new(path: &Path, head: Arc<Head>, connect: Arc<Connect>) -> Self {
        Self { head, connect, log: StillLog::of(path), reader: None, seen: None }
    }

    fn look_at(&mut self, now: Instant) {
        if self.log.is_still(now) && self.seen.is_some() {
            return;
        }
        if let Err(error) = self.announce() {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for commits of other processes");
            // The numbers of two connections cannot be compared.
            (self.reader, self.seen) = (None, None);
        }
    }

    /// Announces the end of the log if anybody committed since the last look.
    fn announce(&mut self) -> Result<(), EventStoreError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert((self.connect)()?),
        };
        let version = reader
            .connection
            .prepare_cached(SELECT_DATA_VERSION)
            .and_then(|mut select| select.query_row([], |row| row.get(0)))
            .map_err(store_error)?;
        if self.seen != Some(version) {
            // Also commits of this process end up here, and commits without events; those wake nobody.
            self.head.announce(reader.head()?.map_or(0, GlobalPosition::get));
            // Only now: a commit whose head could not be read was not announced.
            self.seen = Some(version);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Arc, Duration, Head, Instant, Path, Poll, Reader, Round};
    use eventcore::LogWatch;
    use rusqlite::Connection;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[tokio::test]
    async fn the_look_after_a_failed_one_announces_what_that_one_did_not() {
        let head = Arc::new(Head::at(0));
        let failed = AtomicBool::new(false);
        // Two connections that tell the same number; the first one has no log to read.
        let connect = move || {
            let connection = Connection::open_in_memory().unwrap();
            if failed.swap(true, Ordering::Relaxed) {
                let log = "create table eventcore_events (position integer); insert into eventcore_events values (5)";
                connection.execute_batch(log).unwrap();
            }
            Ok(Reader::new(connection))
        };
        let mut watch = head.watch();
        let mut poll = Poll::new(Path::new("/nowhere"), Arc::clone(&head), Arc::new(connect));
        poll.look();
        assert!(poll.reader.is_none(), "the head of no log was read");
        poll.look();
        assert!(is_woken(&mut watch).await, "nobody is told that the log reaches further");
    }

    /// After a checkpoint the log is written from its beginning, and keeps its size: only its time tells of a commit.
    #[cfg(unix)]
    #[tokio::test]
    async fn the_first_look_after_a_commit_announces_it_however_still_the_log_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("any.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch("pragma journal_mode = wal; create table eventcore_events (position integer primary key)")
            .unwrap();
        let rows = "with recursive n (n) as (select 1 union all select n + 1 from n where n < 5000) \
                    insert into eventcore_events select n from n";
        other.execute_batch(rows).unwrap();
        other.query_row("pragma wal_checkpoint", [], |row| row.get::<_, i64>(0)).unwrap();
        let log = std::fs::File::options().append(true).open(directory.path().join("any.db-wal")).unwrap();
        log.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let size = log.metadata().unwrap().len();
        let head = Arc::new(Head::at(5_000));
        let connect = {
            let path = path.clone();
            move || Ok(Reader::new(Connection::open(&path).unwrap()))
        };
        let mut poll = Poll::new(&path, Arc::clone(&head), Arc::new(connect));
        let mut watch = head.watch();
        let began = Instant::now();
        poll.look_at(began);
        for second in 1..=10 {
            poll.look_at(began + Duration::from_secs(second));
        }
        let quiet = began + Duration::from_millis(10_020);
        assert!(poll.log.is_still(quiet), "nothing has happened for seconds");
        other.execute("insert into eventcore_events values (5001)", []).unwrap();
        assert_eq!(log.metadata().unwrap().len(), size);
        poll.look_at(quiet + Duration::from_millis(20));
        assert!(is_woken(&mut watch).await, "nobody is told of the commit");
    }

    async fn is_woken(watch: &mut LogWatch) -> bool {
        tokio::select! {
            biased;
            changed = watch.changed() => changed.is_ok(),
            () = std::future::ready(()) => false,
        }
    }
}
