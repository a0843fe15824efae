//! No room left.

use crate::support::{Home, append, event_of, one, stream};
use eventcore::{AppendRequest, EventFilter, EventReader, EventStore, EventStoreError, PageSize, ReadStreams};
use eventcore_sqlite::{SqliteConfig, SqliteEventStore};

#[tokio::test]
async fn a_full_store_writes_nothing_and_can_be_read() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().max_page_count(60)).await;
    let payload = "x".repeat(5_000);
    let mut written = 0;
    let error = loop {
        match append(&store, "s", &payload).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "60 pages of 4 KiB hold no 100 events of 5 KB");
    };
    assert!(matches!(error, EventStoreError::StorageFull { .. }), "{error:?}");
    assert!(written > 0);
    assert_eq!(store.head().await.unwrap().unwrap().get(), written);
    let read = store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await.unwrap();
    assert_eq!(read.events.len() as u64, written);
    // It is not poisoned: it says so again, and works as soon as there is room.
    assert!(matches!(append(&store, "s", &payload).await, Err(EventStoreError::StorageFull { .. })));
    store.close().await.unwrap();
    let store = home.open().await;
    assert_eq!(append(&store, "s", &payload).await.unwrap().events[0].position.get(), written + 1);
}

#[tokio::test]
async fn what_does_not_fit_does_not_fail_its_neighbours() {
    let home = Home::new();
    let config = SqliteConfig::default().max_page_count(60);
    let (writer, index, _join) = SqliteEventStore::open_parts(home.path(), config).await.unwrap();
    let large = "x".repeat(500_000);
    let (warm, before, large, after) = tokio::join!(
        writer.append(one("s", "0")),
        writer.append(one("s", "1")),
        writer.append(one("s", &large)),
        writer.append(one("s", "2")),
    );
    warm.unwrap();
    before.unwrap();
    assert!(matches!(large, Err(EventStoreError::StorageFull { .. })));
    after.unwrap();
    let page = index.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    let versions: Vec<_> = page.events.iter().map(|event| event.version().get()).collect();
    assert_eq!(versions, [1, 2, 3]);
}

#[tokio::test]
async fn what_was_named_first_in_an_append_that_did_not_fit_can_be_named_again() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().max_page_count(60)).await;
    let append = |payload: String| {
        let request = AppendRequest::builder().event(stream("new"), event_of("test.New", payload)).build().unwrap();
        store.append(request)
    };
    assert!(matches!(append("x".repeat(500_000)).await, Err(EventStoreError::StorageFull { .. })));
    append("1".to_owned()).await.unwrap();
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    let names: Vec<_> = page.events.iter().map(|e| (e.stream_id().as_str(), e.event_type().as_str())).collect();
    assert_eq!(names, [("new", "test.New")]);
}
