//! Noticing what other processes commit.

use crate::error::store_error;
use crate::head::Head;
use crate::patrol::{Patrol, Round};
use crate::read::Reader;
use eventcore::{EventStoreError, GlobalPosition};
use std::sync::Arc;
use std::time::Duration;

const SELECT_DATA_VERSION: &str = "pragma data_version";

type Connect = dyn Fn() -> Result<Reader, EventStoreError> + Send + Sync;

/// Asks SQLite every few milliseconds whether somebody committed, as long as somebody watches the log.
pub(crate) fn poller(
    interval: Duration,
    head: Arc<Head>,
    connect: impl Fn() -> Result<Reader, EventStoreError> + Send + Sync + 'static,
) -> Patrol {
    let connect: Arc<Connect> = Arc::new(connect);
    Patrol::new("eventcore-poll", interval, move || Poll {
        head: Arc::clone(&head),
        connect: Arc::clone(&connect),
        reader: None,
        seen: None,
    })
}

struct Poll {
    head: Arc<Head>,
    connect: Arc<Connect>,
    reader: Option<Reader>,
    seen: Option<i64>,
}

impl Round for Poll {
    fn is_needed(&self) -> bool {
        self.head.is_watched()
    }

    fn look(&mut self) {
        if let Err(error) = self.announce() {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for commits of other processes");
            // The numbers of two connections cannot be compared.
            (self.reader, self.seen) = (None, None);
        }
    }

    /// What is committed while nobody watches is found by the first look afterwards.
    fn rest(&mut self) {
        self.seen = None;
    }
}

impl Poll {
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
    use super::{Arc, Head, Poll, Reader, Round};
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
        let mut poll = Poll { head: Arc::clone(&head), connect: Arc::new(connect), reader: None, seen: None };
        poll.look();
        assert!(poll.reader.is_none(), "the head of no log was read");
        poll.look();
        let woken = tokio::select! {
            biased;
            changed = watch.changed() => changed.is_ok(),
            () = std::future::ready(()) => false,
        };
        assert!(woken, "nobody is told that the log reaches further");
    }
}
