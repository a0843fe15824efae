//! Appending and reading back.

use crate::support::{Home, append, claim, event, event_of, one, stream};
use eventcore::{
    AppendLimits, AppendRequest, EventFilter, EventMetadata, EventReader, EventStore, EventStoreError, ExpectedVersion,
    PageSize, Payload, ReadStreams, StreamPrefix, StreamVersion,
};
use eventcore_sqlite::{SqliteConfig, SqliteEventStore};

#[tokio::test]
async fn what_is_read_is_what_was_written() {
    let home = Home::new();
    let store = home.open().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let mut binary = event("");
    binary.payload = Payload::binary(bytes);
    let mut json = event(r#"{"z":1,"a":"\u0000","n":123456789012345678901234567890,"f":1.10}"#);
    json.metadata = EventMetadata::builder().value("k", "v").build().unwrap();
    let not_json = event("no json \u{1F600}");
    let written = [binary, json, not_json];
    let request =
        written.iter().cloned().fold(AppendRequest::builder(), |b, e| b.event(stream("s"), e)).build().unwrap();
    let appended = store.append(request).await.unwrap();
    store.close().await.unwrap();

    let store = home.open().await;
    let read = store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await.unwrap();
    assert_eq!(read.versions, [StreamVersion::try_new(3).unwrap()]);
    assert_eq!(read.events.len(), 3);
    for ((event, written), place) in read.events.iter().zip(&written).zip(&appended.events) {
        assert_eq!(event.payload(), &written.payload);
        assert_eq!(event.metadata(), &written.metadata);
        assert_eq!((event.id(), event.event_type()), (written.id, &written.event_type));
        assert_eq!((event.version(), event.position()), (place.version, place.position));
        assert_eq!(event.recorded_at(), appended.recorded_at);
    }
}

#[tokio::test]
async fn a_request_that_fails_does_not_fail_its_neighbours() {
    let home = Home::new();
    let limits = AppendLimits { max_event_bytes: 10, ..AppendLimits::default() };
    let (writer, index, _join) =
        SqliteEventStore::open_parts(home.path(), SqliteConfig::default().limits(limits)).await.unwrap();
    // All of them are queued before the writer's first group is done, so that they share the groups.
    let no_stream = |payload: &str| {
        AppendRequest::builder().expect(stream("s"), ExpectedVersion::NoStream).event(stream("s"), event(payload))
    };
    let (warm, first, conflict, large, second) = tokio::join!(
        writer.append(one("warm", "0")),
        writer.append(no_stream("1").build().unwrap()),
        writer.append(no_stream("2").build().unwrap()),
        writer.append(one("s", "more than ten bytes")),
        writer.append(one("s", "3")),
    );
    warm.unwrap();
    first.unwrap();
    let EventStoreError::Conflict(conflict) = conflict.unwrap_err() else { panic!("a conflict was expected") };
    assert_eq!(conflict.actual.get(), 1);
    let large = large.unwrap_err();
    assert!(matches!(large, EventStoreError::EventTooLarge { size: 19, limit: 10, .. }), "{large}");
    assert_eq!(second.unwrap().events[0].version.get(), 2);
    let page = index.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    let positions: Vec<_> = page.events.iter().map(|event| event.position().get()).collect();
    assert_eq!(positions, [1, 2, 3]);
}

#[tokio::test]
async fn a_command_is_executed_once() {
    let home = Home::new();
    let store = home.open().await;
    let request = |payload: &str| {
        let builder = AppendRequest::builder().command(claim("c"));
        builder.event(stream("a"), event(payload)).event(stream("b"), event(payload)).build().unwrap()
    };
    let first = store.append(request("1")).await.unwrap();
    let again = store.append(request("2")).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.events, first.events);
    let read = ReadStreams::new([stream("a")]).unwrap().with_receipt_of(Some(claim("c").command_id));
    let receipt = store.read_streams(read).await.unwrap().receipt.unwrap();
    assert_eq!(receipt.events, first.events);
    let to_decide = |command| ReadStreams::new([stream("a")]).unwrap().unless_executed(Some(claim(command).command_id));
    let known = store.read_streams(to_decide("c")).await.unwrap();
    assert_eq!((known.receipt, known.events.len()), (Some(receipt), 0), "its streams were read for nothing");
    let unknown = store.read_streams(to_decide("d")).await.unwrap();
    assert_eq!((unknown.receipt, unknown.events.len()), (None, 1));
    assert_eq!(store.head().await.unwrap().unwrap().get(), 2);

    let mut other = claim("c");
    other.fingerprint = eventcore::Fingerprint::of("Other", []);
    let reused = AppendRequest::builder().command(other).build().unwrap();
    assert!(matches!(store.append(reused).await, Err(EventStoreError::CommandIdReused { .. })));
}

#[tokio::test]
async fn pages_hold_what_their_filter_wants_whatever_their_size() {
    let home = Home::new();
    let store = home.open().await;
    let names = ["a_1", "a%2", "a-3", "b_1", "A_1"];
    let types = ["t.One", "t.Two", "t.Rare"];
    for n in 0..600_usize {
        let event_type = types[if n % 97 == 0 { 2 } else { n % 2 }];
        let request = AppendRequest::builder().event(stream(names[n % 5]), event_of(event_type, n.to_string()));
        store.append(request.build().unwrap()).await.unwrap();
    }
    let all = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    assert_eq!(all.events.len(), 600);
    let filters = [
        EventFilter::all(),
        EventFilter::all().types(["t.Rare".parse().unwrap()]),
        EventFilter::all().types(["t.Rare".parse().unwrap(), "t.One".parse().unwrap()]),
        EventFilter::all().types(["t.Missing".parse().unwrap()]),
        EventFilter::all().types([]),
        EventFilter::all().streams([stream("b_1")]),
        EventFilter::all().streams([stream("b_1"), stream("a-3"), stream("missing")]),
        EventFilter::all().streams([stream("b_1"), stream("A_1")]).types(["t.Rare".parse().unwrap()]),
        EventFilter::all().stream_prefix(StreamPrefix::new("a").unwrap()),
        EventFilter::all().stream_prefix(StreamPrefix::new("a_").unwrap()),
        EventFilter::all().stream_prefix(StreamPrefix::new("a%").unwrap()).types(["t.Two".parse().unwrap()]),
    ];
    for filter in &filters {
        let wanted: Vec<_> = all.events.iter().filter(|e| filter.matches(e.stream_id(), e.event_type())).collect();
        for size in [1, 2, 3, 7, 100, 599, 600, 1_000] {
            let size = PageSize::try_new(size).unwrap();
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let page = store.read_page(filter, after, size).await.unwrap();
                assert!(page.events.len() <= size.get());
                found.extend(page.events);
                let Some(cursor) = page.cursor else { break };
                store.verify_cursor(&cursor).await.unwrap();
                after = Some(cursor.position);
                if !page.more {
                    assert_eq!(cursor.position.get(), 600, "the last page looks to the end of the log");
                    break;
                }
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{filter:?} in pages of {size}");
        }
    }
}

#[tokio::test]
async fn a_read_beyond_its_limit_is_refused() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().max_read_events(2)).await;
    for n in 0..3 {
        append(&store, "s", &n.to_string()).await.unwrap();
    }
    let whole = store.read_streams(ReadStreams::new([stream("s")]).unwrap()).await;
    assert!(matches!(whole, Err(EventStoreError::ReadTooLarge { limit: 2 })));
    let after = eventcore::StreamPosition { stream_id: stream("s"), after: StreamVersion::try_new(1).unwrap() };
    let rest = store.read_streams(ReadStreams::after([after]).unwrap()).await.unwrap();
    assert_eq!(rest.events.len(), 2);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let home = Home::new();
    let store = home.open().await;
    append(&store, "s", "1").await.unwrap();
    store.head().await.unwrap();
    drop(store.watch_log());
    let wal = home.join("store.db-wal");
    assert!(wal.exists());
    store.close().await.unwrap();
    store.close().await.unwrap();
    assert!(!wal.exists(), "everything is in the file itself");
    assert!(matches!(append(&store, "s", "2").await, Err(EventStoreError::Closed)));
    assert!(matches!(store.head().await, Err(EventStoreError::Closed)));
    assert!(matches!(store.prune_receipts(eventcore::Timestamp::now()).await, Err(EventStoreError::Closed)));
}

#[tokio::test]
async fn a_store_that_is_dropped_finishes_its_queue() {
    let home = Home::new();
    let (writer, index, join) = SqliteEventStore::open_parts(home.path(), SqliteConfig::default()).await.unwrap();
    for n in 0..100 {
        // Polled once, an append is in the queue; then nobody waits for its answer any more.
        tokio::select! {
            biased;
            appended = writer.append(one("s", &n.to_string())) => drop(appended.unwrap()),
            () = std::future::ready(()) => {}
        }
    }
    drop(writer);
    join.join().await.unwrap();
    assert_eq!(index.head().await.unwrap().unwrap().get(), 100);
}
