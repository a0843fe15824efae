//! What the strategies make is valid, and stores give it back.

use eventcore::{
    AppendRequest, EventReader, EventStore, EventType, ExpectedVersion, PageSize, ReadStreams, StreamId, StreamVersion,
};
use eventcore_memory::MemoryEventStore;
use eventcore_testing::strategies;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn json_texts_are_json(text in strategies::json_texts()) {
        prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn values_survive_their_text(
        stream in strategies::stream_ids(),
        id in strategies::event_ids(),
        time in strategies::timestamps(),
        metadata in strategies::metadata(),
    ) {
        prop_assert_eq!(&stream.as_str().parse::<StreamId>().unwrap(), &stream);
        prop_assert_eq!(id.to_string().parse::<eventcore::EventId>().unwrap(), id);
        prop_assert_eq!(eventcore::Timestamp::from_micros(time.as_micros()).unwrap(), time);
        let json = serde_json::to_string(&metadata).unwrap();
        prop_assert_eq!(serde_json::from_str::<eventcore::EventMetadata>(&json).unwrap(), metadata);
    }

    #[test]
    fn events_come_back_from_a_store(stream in strategies::stream_ids(), events in vec(strategies::new_events(), 1..6)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryEventStore::new();
            let request = events.iter().fold(AppendRequest::builder(), |request, event| request.event(stream.clone(), event.clone()));
            store.append(request.build().unwrap()).await.unwrap();
            let read = store.read_streams(ReadStreams::new([stream.clone()]).unwrap()).await.unwrap();
            let page = store.read_stream(&stream, StreamVersion::default(), PageSize::default()).await.unwrap();
            prop_assert_eq!(&read.events, &page.events);
            for (read, written) in read.events.iter().zip(&events) {
                prop_assert_eq!(read.payload(), &written.payload);
                prop_assert_eq!(read.metadata(), &written.metadata);
                prop_assert_eq!((read.id(), read.event_type()), (written.id, &written.event_type));
            }
            Ok(())
        })?;
    }

    #[test]
    fn expectations_are_of_every_kind(expected in vec(strategies::expected_versions(), 100), types in vec(strategies::event_types(), 20)) {
        prop_assert!(expected.contains(&ExpectedVersion::Any));
        prop_assert!(expected.iter().any(|e| matches!(e, ExpectedVersion::Exact(_))));
        let distinct: std::collections::BTreeSet<&EventType> = types.iter().collect();
        prop_assert!(distinct.len() > 5);
    }
}
