//! What is stored is not what was written, or cannot be reached for now: it is named, and the store stays usable.

use crate::support::{Home, append, claim, stream};
use eventcore::{
    AppendRequest, Checkpoint, CheckpointError, CheckpointStore, Epoch, ErrorKind, EventFilter, EventReader,
    EventStore, EventStoreError, GlobalPosition, PageSize, ProjectionName, ReadStreams, StreamVersion, Timestamp,
};
use eventcore_sqlite::{SqliteConfig, SqliteEventStore};
use std::time::Duration;

#[tokio::test]
async fn a_damaged_event_is_named_and_the_others_can_be_read() {
    let damages = [
        ("schema_version = 0", "schema version"),
        ("content_type = 7", "content type"),
        ("id = x'00'", "id of an event"),
        ("id = randomblob(16)", "id of an event"),
        ("metadata = 'no json'", "metadata"),
        ("version = 0", "version 0"),
        ("type = 99", "99"),
        ("stream = 99", "99"),
        ("recorded_at = 9223372036854775807", "time"),
    ];
    for (damage, named) in damages {
        let home = Home::new();
        let store = home.open().await;
        append(&store, "s", "1").await.unwrap();
        append(&store, "other", "2").await.unwrap();
        let raw = home.raw();
        raw.execute_batch("drop trigger eventcore_events_update").unwrap();
        // SQLite's own damage would not ask for the types of columns either.
        raw.execute(&format!("update eventcore_events set {damage} where position = 1"), []).unwrap();

        let error = store.read_page(&EventFilter::all(), None, PageSize::default()).await.expect_err(damage);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage}: {error:?}");
        assert!(error.to_string().contains(named), "{damage}: {error}");
        let read = store.read_streams(ReadStreams::new([stream("other")]).unwrap()).await.unwrap();
        assert_eq!(read.events.len(), 1);
        append(&store, "other", "3").await.unwrap();
    }
}

#[tokio::test]
async fn a_receipt_without_its_events_is_not_believed() {
    let home = Home::new();
    let store = home.open().await;
    let request = || AppendRequest::builder().command(claim("c")).build().unwrap();
    store.append(request()).await.unwrap();
    let raw = home.raw();
    raw.execute_batch("drop trigger eventcore_receipts_update").unwrap();
    raw.execute_batch("update eventcore_receipts set first_position = 5, event_count = 2").unwrap();
    let error = store.append(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    // Nothing of it is kept, and the writer goes on.
    append(&store, "s", "1").await.unwrap();
}

#[tokio::test]
async fn a_damaged_checkpoint_is_told_and_can_be_reset() {
    let home = Home::new();
    let store = home.open().await;
    let name = ProjectionName::new("p").unwrap();
    let checkpoint = Checkpoint {
        name: name.clone(),
        cursor: None,
        filter: EventFilter::all().identity(),
        lineage: store.lineage(),
        updated_at: Timestamp::now(),
    };
    for damage in
        ["filter = 'x'", "position = 1", "position = 0, event_id = x'00'", "lineage = null", "updated_at = null"]
    {
        store.save_checkpoint(&checkpoint, Epoch::NONE).await.unwrap();
        home.raw().execute(&format!("update eventcore_checkpoints set {damage}"), []).unwrap();
        let error = store.load_checkpoint(&name).await.expect_err(damage);
        assert!(matches!(&error, CheckpointError::Corrupt { name: n, .. } if *n == name), "{damage}: {error:?}");
        assert!(store.list_checkpoints().await.is_err(), "{damage}");
        store.reset_checkpoint(&name, Epoch::NONE).await.unwrap();
        assert_eq!(store.load_checkpoint(&name).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_file_locked_by_another_program_is_unavailable_for_writing_only() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().busy_timeout(Duration::from_millis(10))).await;
    append(&store, "s", "1").await.unwrap();
    let raw = home.raw();
    raw.execute_batch("begin immediate").unwrap();
    let error = append(&store, "s", "2").await.unwrap_err();
    assert!(matches!(error, EventStoreError::Unavailable { .. }) && error.is_transient(), "{error:?}");
    assert_eq!(store.head().await.unwrap().unwrap().get(), 1);
    raw.execute_batch("rollback").unwrap();
    assert_eq!(append(&store, "s", "2").await.unwrap().events[0].position.get(), 2);
}

/// Positions and versions have no gaps, so a lost event is noticed by whoever reads across it.
#[tokio::test]
async fn a_lost_event_is_noticed() {
    let home = Home::new();
    let store = home.open().await;
    for payload in ["1", "2", "3"] {
        append(&store, "s", payload).await.unwrap();
    }
    let raw = home.raw();
    raw.execute_batch("drop trigger eventcore_events_delete; delete from eventcore_events where position = 2").unwrap();
    let corrupt = |error: EventStoreError| assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    let types = EventFilter::all().types(["test.Happened".parse().unwrap()]);
    for filter in [EventFilter::all(), types] {
        corrupt(store.read_page(&filter, None, PageSize::default()).await.unwrap_err());
    }
    corrupt(store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await.unwrap_err());
    corrupt(store.read_stream(&stream("s"), StreamVersion::default(), PageSize::default()).await.unwrap_err());
    // What lies behind it can be read.
    let page =
        store.read_page(&EventFilter::all(), GlobalPosition::try_new(2).ok(), PageSize::default()).await.unwrap();
    assert_eq!(page.events.len(), 1);
}

/// Neither readers nor the connection of projections, when they are opened later than the writer, see what it does not write.
async fn is_told_apart(store: &SqliteEventStore, what: &str) {
    let told = |error: EventStoreError| {
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
        assert!(error.to_string().contains("was removed, or replaced by another file or log"), "{what}: {error}");
    };
    told(store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await.expect_err(what));
    told(store.read_page(&EventFilter::all(), None, PageSize::default()).await.expect_err(what));
    told(store.prune_receipts(Timestamp::now()).await.expect_err(what));
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_replaced_under_an_open_store_is_told() {
    let other = Home::new();
    append(&other.open().await, "s", "\"of another log\"").await.unwrap();
    let backup = |home: &Home| {
        home.raw().execute("vacuum into ?1", [home.join("new.db").to_str().unwrap()]).unwrap();
    };
    for what in ["a backup", "another store", "nothing"] {
        let home = Home::new();
        let store = home.open().await;
        append(&store, "s", "1").await.unwrap();
        backup(&home);
        append(&store, "s", "2").await.unwrap();
        match what {
            "a backup" => std::fs::rename(home.join("new.db"), home.path()).unwrap(),
            "another store" => {
                backup(&other);
                std::fs::rename(other.join("new.db"), home.path()).unwrap();
            }
            _ => std::fs::remove_file(home.path()).unwrap(),
        }
        is_told_apart(&store, what).await;
    }
}

#[tokio::test]
async fn a_log_that_is_replaced_within_the_file_is_told() {
    let home = Home::new();
    let store = home.open().await;
    append(&store, "s", "1").await.unwrap();
    let raw = home.raw();
    raw.execute_batch("drop trigger eventcore_meta_update; update eventcore_meta set value = randomblob(16)").unwrap();
    is_told_apart(&store, "another lineage").await;
}
