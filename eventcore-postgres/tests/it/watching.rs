//! Followers that wait while nothing tells them.

use crate::fixtures::{Log, PATIENCE, append_to, stream};
use eventcore::{EventFilter, EventReader, EventStore, ExpectedVersion, PageSize};
use eventcore_postgres::PostgresEventStore;

#[tokio::test]
async fn who_begins_to_wait_at_an_idle_store_without_notifications_is_woken_by_polling() {
    let log = Log::new().unwrap();
    let writer = log.open().await.unwrap();
    let follower = PostgresEventStore::connect(&log.url, log.config().notifications(false)).await.unwrap();
    // Nobody has asked for the log yet, and the tail had time to come to rest.
    follower.stream_version(&stream("a")).await.unwrap();
    let mut watch = follower.watch_log();
    assert!(follower.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap().events.is_empty());
    writer.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    // A look that failed wakes it too, so it may find nothing yet.
    while follower.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap().events.is_empty() {
        tokio::time::timeout(PATIENCE, watch.changed()).await.expect("nobody woke the follower").unwrap();
    }
    follower.close().await.unwrap();
    writer.close().await.unwrap();
    log.remove().await.unwrap();
}
