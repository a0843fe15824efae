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
            self.reader = None;
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
        if self.seen.replace(version) != Some(version) {
            // Also commits of this process end up here, and commits without events; those wake nobody.
            self.head.announce(reader.head()?.map_or(0, GlobalPosition::get));
        }
        Ok(())
    }
}
