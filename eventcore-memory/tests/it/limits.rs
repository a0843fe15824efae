//! The limits a store is made with.

use eventcore::{
    AppendLimits, AppendRequest, CommandClaim, CommandId, EventFilter, EventId, EventMetadata, EventReader, EventStore,
    EventStoreError, Fingerprint, NewEvent, PageSize, Payload, ReadStreams, SchemaVersion, StreamId,
};
use eventcore_memory::{MemoryConfig, MemoryEventStore};

fn event(bytes: usize) -> NewEvent {
    NewEvent {
        id: EventId::generate(),
        event_type: "test.Happened".parse().unwrap(),
        schema_version: SchemaVersion::default(),
        payload: Payload::binary(vec![0; bytes]),
        metadata: EventMetadata::empty(),
    }
}

async fn append(store: &MemoryEventStore, stream: &StreamId, bytes: usize) -> Result<(), EventStoreError> {
    let request = AppendRequest::builder().event(stream.clone(), event(bytes)).build().unwrap();
    store.append(request).await.map(drop)
}

#[tokio::test]
async fn a_read_over_the_limit_is_refused_and_smaller_ones_go_on() {
    let store = MemoryEventStore::with_config(MemoryConfig { max_read_events: 3, ..MemoryConfig::default() });
    let (one, two) = (StreamId::new("one").unwrap(), StreamId::new("two").unwrap());
    for _ in 0..2 {
        append(&store, &one, 1).await.unwrap();
        append(&store, &two, 1).await.unwrap();
    }
    let both = ReadStreams::new([one.clone(), two]).unwrap();
    assert!(matches!(store.read_streams(both).await, Err(EventStoreError::ReadTooLarge { limit: 3 })));
    assert_eq!(store.read_streams(ReadStreams::new([one]).unwrap()).await.unwrap().events.len(), 2);
}

#[tokio::test]
async fn a_command_that_was_executed_is_known_however_long_its_stream_has_become() {
    let store = MemoryEventStore::with_config(MemoryConfig { max_read_events: 1, ..MemoryConfig::default() });
    let (one, command_id) = (StreamId::new("one").unwrap(), CommandId::new("c").unwrap());
    let claim = CommandClaim { command_id: command_id.clone(), fingerprint: Fingerprint::of("test", [&one]) };
    let request = AppendRequest::builder().command(claim).event(one.clone(), event(1)).build().unwrap();
    store.append(request).await.unwrap();
    append(&store, &one, 1).await.unwrap();
    let streams = || ReadStreams::new([one.clone()]).unwrap();
    let read = store.read_streams(streams().unless_executed(Some(command_id.clone()))).await.unwrap();
    assert!(read.receipt.is_some());
    let whole = store.read_streams(streams().unless_executed(None).with_receipt_of(Some(command_id))).await;
    assert!(matches!(whole, Err(EventStoreError::ReadTooLarge { limit: 1 })));
}

#[tokio::test]
async fn size_limits_are_those_of_the_configuration() {
    let limits = AppendLimits { max_event_bytes: 10, ..AppendLimits::default() };
    let store = MemoryEventStore::with_config(MemoryConfig { limits, ..MemoryConfig::default() });
    let stream = StreamId::new("one").unwrap();
    append(&store, &stream, 10).await.unwrap();
    let refused = append(&store, &stream, 11).await;
    assert!(matches!(refused, Err(EventStoreError::EventTooLarge { size: 11, limit: 10, .. })), "{refused:?}");
    assert_eq!(store.stream_version(&stream).await.unwrap().get(), 1);
}

#[tokio::test]
async fn a_position_beyond_the_end_gives_an_empty_page() {
    let store = MemoryEventStore::new();
    append(&store, &StreamId::new("one").unwrap(), 1).await.unwrap();
    let beyond = Some(eventcore::GlobalPosition::try_new(i64::MAX as u64).unwrap());
    let page = store.read_page(&EventFilter::all(), beyond, PageSize::default()).await.unwrap();
    assert_eq!((page.events.len(), page.cursor, page.more), (0, None, false));
}
