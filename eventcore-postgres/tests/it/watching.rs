//! Followers that wait while nothing tells them.

use crate::fixtures::{Counted, Log, PATIENCE, append_to, event, stream};
use eventcore::{
    AppendRequest, EventFilter, EventReader, EventStore, ExpectedVersion, LossyCapacity, PageSize, ProjectionName,
    RecordedEvent, StreamState, watch, watch_durable, watch_lossy,
};
use eventcore_postgres::PostgresEventStore;
use sqlx::Connection;
use std::time::Duration;
use tokio::time::timeout;

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
        timeout(PATIENCE, watch.changed()).await.expect("nobody woke the follower").unwrap();
    }
    follower.close().await.unwrap();
    writer.close().await.unwrap();
    log.remove().await.unwrap();
}

/// How many connections show that they listen.
pub(crate) async fn listeners(log: &Log) -> i64 {
    log.number(
        "select count(*) from pg_locks where locktype = 'advisory' and classid = '@.events'::regclass::oid \
         and objid = 1 and objsubid = 2",
    )
    .await
}

pub(crate) async fn until_listeners(log: &Log, wanted: i64) {
    let reached = async {
        while listeners(log).await != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, reached).await.expect("another number of stores listens for good");
}

#[tokio::test]
async fn a_store_listens_while_somebody_follows_through_it() {
    let log = Log::new().unwrap();
    let (writer, follower) = (log.open().await.unwrap(), log.open().await.unwrap());
    let watch = follower.watch_log();
    until_listeners(&log, 1).await;
    // What wakes those who follow makes nobody listen who does not.
    writer.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    writer.wake_followers();
    // Longer than connecting takes, for whoever would listen now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!writer.health().await.unwrap().listening);
    assert!(follower.health().await.unwrap().listening);
    assert_eq!(listeners(&log).await, 1);
    drop(watch);
    until_listeners(&log, 0).await;
    // The connection that listened is still there, and shows nothing any more.
    let _watch = follower.watch_log();
    until_listeners(&log, 1).await;
    follower.close().await.unwrap();
    writer.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn who_follows_a_busy_log_looks_by_himself_until_it_is_calm() {
    let log = Log::new().unwrap();
    let writer = log.open().await.unwrap();
    // It never polls, so whatever it sees it was told of or looked for.
    let config = log.config().poll_interval(Duration::from_secs(3_600));
    let follower = PostgresEventStore::connect(&log.url, config).await.unwrap();
    let mut watch = follower.watch_log();
    until_listeners(&log, 1).await;
    let many = (0..100).fold(AppendRequest::builder(), |request, _| request.event(stream("a"), event()));
    let many = many.expect(stream("a"), ExpectedVersion::Any).build().unwrap();
    let told = format!("select pg_notify('eventcore_{}', n::text) from generate_series(1, 10) n", log.schema);
    let mut appended = 0;
    let looks = async {
        while listeners(&log).await > 0 {
            writer.append(many.clone()).await.unwrap();
            appended += 100;
            log.run(&told).await.unwrap();
        }
    };
    timeout(PATIENCE, looks).await.expect("it is told for good");
    let mut seen = 0;
    let mut after = None;
    while seen < appended {
        let page = follower.read_page(&EventFilter::all(), after, PageSize::default()).await.unwrap();
        after = page.position().or(after);
        seen += page.events.len();
        if seen < appended {
            timeout(PATIENCE, watch.changed()).await.expect("nobody woke the follower").unwrap();
        }
    }
    assert_eq!(seen, appended);
    until_listeners(&log, 1).await;
    follower.close().await.unwrap();
    writer.close().await.unwrap();
    log.remove().await.unwrap();
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Events(u64);

impl StreamState for Events {
    type Event = Counted;

    fn apply(&mut self, _: &RecordedEvent<Counted>) {
        self.0 += 1;
    }
}

#[tokio::test]
async fn who_waits_for_a_position_waits_for_the_commits_under_way_before_it() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    let watched = [stream("watched")];
    let mut pulled = watch::<Events, _>(store.clone(), watched.clone());
    let mut pushed = watch_lossy::<Events, _>(store.clone(), watched.clone(), LossyCapacity::default());
    let name = ProjectionName::new("waits").unwrap();
    let mut durable = watch_durable::<Events, _>(store.clone(), name, watched.clone()).await.unwrap();

    let mut connection = log.connection().await;
    let mut slow = connection.begin().await.unwrap();
    let before = store.append_in_transaction(&mut slow, append_to(&watched[0], ExpectedVersion::Any)).await.unwrap();
    let quick = store.append(append_to(&stream("elsewhere"), ExpectedVersion::Any)).await.unwrap();
    let position = quick.events[0].position;
    assert!(before.events[0].position < position);
    // However long one waits, none of them can answer now: what is to come before the position is not there.
    let a_while = Duration::from_millis(300);
    let early = tokio::join!(
        timeout(a_while, pulled.wait_for(position)),
        timeout(a_while, pushed.wait_for(position)),
        timeout(a_while, durable.wait_for(position)),
    );
    assert!(matches!(early, (Err(_), Err(_), Err(_))), "{early:?}");

    slow.commit().await.unwrap();
    let states = tokio::join!(
        timeout(PATIENCE, pulled.wait_for(position)),
        timeout(PATIENCE, pushed.wait_for(position)),
        timeout(PATIENCE, durable.wait_for(position)),
    );
    for watched in [states.0, states.1, states.2] {
        assert_eq!(watched.unwrap().unwrap().state, Some(Events(1)));
    }
    durable.release().await.unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
