//! Following the log: the machine against a simulated log, the subscriptions on the memory store.

use eventcore::{
    AppendRequest, EventFilter, EventId, EventMetadata, EventStore, FeedEffect, FeedInput, FeedItem, FeedMachine,
    GlobalPosition, LogCursor, LossyCapacity, LossyError, NewEvent, PageSize, Payload, ProgressClosed, SchemaVersion,
    StartFrom, StreamId, subscribe, subscribe_lossy,
};
use eventcore_memory::MemoryEventStore;
use proptest::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chance {
    Fine,
    Fail,
    /// So many events are appended before the effect.
    Grow(u8),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![5 => Just(Chance::Fine), 1 => Just(Chance::Fail), 3 => (1_u8..9).prop_map(Chance::Grow)]
}

fn cursor(number: u64) -> LogCursor {
    // An id that belongs to the position, so that verifying is more than a formality.
    let uuid = uuid::Builder::from_unix_timestamp_millis(number, &[7; 10]).into_uuid();
    LogCursor { position: position(number), event_id: EventId::try_new(uuid).unwrap() }
}

fn position(number: u64) -> GlobalPosition {
    GlobalPosition::try_new(number).unwrap()
}

proptest! {
    #[test]
    fn every_wanted_event_once_and_in_order_whatever_happens(
        start in 0_u64..20, page in 1_usize..7, every in 1_u64..4, after in proptest::option::of(1_u64..20),
        chances in prop::collection::vec(chance(), 0..80),
    ) {
        // Every so-manieth event is wanted by the filter.
        let mut head = start;
        let after = after.filter(|after| *after <= start);
        let mut machine = after.map_or_else(|| FeedMachine::after(None), |after| FeedMachine::behind(cursor(after)));
        let mut seen = Vec::new();
        let mut live = false;
        let mut read_up_to = 0;
        let mut known = after.is_some();
        let mut failed = false;
        let mut chances = chances.into_iter();
        let mut effect = machine.step(FeedInput::Next);
        for _ in 0..10_000 {
            let chance = chances.next();
            if let Some(Chance::Grow(events)) = chance {
                head += u64::from(events);
            }
            let input = match effect {
                FeedEffect::Event(event) => { seen.push(event); FeedInput::Next }
                FeedEffect::CaughtUp => {
                    prop_assert!(!live, "caught up twice");
                    live = true;
                    FeedInput::Next
                }
                FeedEffect::FellBehind => {
                    prop_assert!(live, "fell behind without having caught up");
                    live = false;
                    FeedInput::Next
                }
                FeedEffect::Wait if chance.is_none() && read_up_to == head => break,
                _ if chance == Some(Chance::Fail) => { failed = known; FeedInput::Failed }
                FeedEffect::Wait => { prop_assert!(live); FeedInput::Woken }
                FeedEffect::Verify(c) => {
                    prop_assert_eq!(c, cursor(c.position.get()));
                    failed = false;
                    FeedInput::Verified
                }
                FeedEffect::Head => FeedInput::Head((head > 0).then(|| position(head))),
                FeedEffect::Read { after } => {
                    prop_assert!(!failed, "read from a server that was not verified");
                    read_up_to = head;
                    let wanted: Vec<u64> =
                        (after.map_or(0, GlobalPosition::get) + 1..=head).filter(|n| n % every == 0).take(page).collect();
                    let more = wanted.len() == page;
                    let end = if more { wanted.last().copied() } else { Some(head).filter(|head| *head > 0) };
                    let end = end.filter(|end| Some(position(*end)) > after);
                    known |= end.is_some();
                    FeedInput::Page(wanted, end.map(cursor), more)
                }
            };
            effect = machine.step(input);
        }
        prop_assert!(live, "never caught up");
        let expected: Vec<u64> = (after.unwrap_or(0) + 1..=head).filter(|n| n % every == 0).collect();
        prop_assert_eq!(seen, expected);
    }
}

async fn append(store: &MemoryEventStore, stream: &str, count: usize) -> GlobalPosition {
    let stream = StreamId::new(stream).unwrap();
    let request = (0..count).fold(AppendRequest::builder(), |request, _| {
        let event = NewEvent {
            id: EventId::generate(),
            event_type: "test.Happened".parse().unwrap(),
            schema_version: SchemaVersion::default(),
            payload: Payload::json("{}"),
            metadata: EventMetadata::empty(),
        };
        request.event(stream.clone(), event)
    });
    let appended = store.append(request.build().unwrap()).await.unwrap();
    appended.events.last().unwrap().position
}

async fn next_position<R>(feed: &mut eventcore::Subscription<R>) -> u64
where
    R: eventcore::EventReader + EventStore,
{
    loop {
        if let FeedItem::Event(event) = feed.next().await.unwrap() {
            return event.position().get();
        }
    }
}

#[tokio::test]
async fn history_then_live_then_behind_and_live_again() {
    let store = MemoryEventStore::new();
    append(&store, "a", 3).await;
    let mut feed = subscribe(&store, EventFilter::all(), StartFrom::Beginning).page_size(PageSize::try_new(2).unwrap());
    let mut kinds = Vec::new();
    for _ in 0..4 {
        kinds.push(kind(feed.next().await.unwrap()));
    }
    append(&store, "a", 1).await;
    kinds.push(kind(feed.next().await.unwrap()));
    append(&store, "a", 3).await;
    for _ in 0..5 {
        kinds.push(kind(feed.next().await.unwrap()));
    }
    assert_eq!(kinds, ["1", "2", "3", "live", "4", "behind", "5", "6", "7", "live"]);
}

fn kind(item: FeedItem) -> String {
    match item {
        FeedItem::Event(event) => event.position().to_string(),
        FeedItem::CaughtUp => "live".to_owned(),
        FeedItem::FellBehind => "behind".to_owned(),
    }
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_told() {
    let store = MemoryEventStore::new();
    append(&store, "a", 3).await;
    let mut from_end = subscribe(&store, EventFilter::all(), StartFrom::End);
    assert_eq!(from_end.next().await.unwrap(), FeedItem::CaughtUp);
    append(&store, "a", 1).await;
    assert_eq!(next_position(&mut from_end).await, 4);
    let mut after = subscribe(&store, EventFilter::all(), StartFrom::After(position(2)));
    assert_eq!(next_position(&mut after).await, 3);
    let mut foreign = subscribe(&store, EventFilter::all(), StartFrom::Cursor(cursor(2)));
    let error = foreign.next().await.unwrap_err();
    let diverged =
        eventcore::EventStoreError::LogDiverged { position: position(2), expected: cursor(2).event_id, found: None };
    assert_eq!(
        std::mem::discriminant(&diverged),
        match &error {
            eventcore::FeedError::Store(error) => std::mem::discriminant(error),
            other => panic!("{other:?}"),
        }
    );
}

#[tokio::test]
async fn a_call_that_is_cancelled_loses_nothing() {
    let store = MemoryEventStore::new();
    let mut feed = subscribe(&store, EventFilter::all(), StartFrom::Beginning);
    let mut seen = Vec::new();
    for round in 1..=20 {
        // The call is dropped at whatever point it waits.
        for _ in 0..3 {
            tokio::select! {
                biased;
                item = feed.next() => if let FeedItem::Event(event) = item.unwrap() { seen.push(event.position().get()) },
                () = tokio::task::yield_now() => {}
            }
        }
        append(&store, "a", round % 3 + 1).await;
    }
    let head = store.head().await.unwrap().unwrap().get();
    while seen.last() != Some(&head) {
        seen.push(next_position(&mut feed).await);
    }
    assert_eq!(seen, (1..=head).collect::<Vec<_>>());
}

#[tokio::test]
async fn who_waits_for_a_position_is_told_when_the_consumer_is_done_with_it() {
    let store = MemoryEventStore::new();
    let mut feed = subscribe(&store, EventFilter::all().streams(["a".parse().unwrap()]), StartFrom::Beginning);
    let progress = feed.progress();
    append(&store, "a", 1).await;
    let unwanted = append(&store, "b", 1).await;
    assert_eq!(next_position(&mut feed).await, 1);
    assert_eq!(progress.position(), None, "the event is still in hand");
    assert_eq!(feed.next().await.unwrap(), FeedItem::CaughtUp);
    progress.wait_for(unwanted).await.unwrap();
    drop(feed);
    let never = position(9);
    assert_eq!(progress.wait_for(never).await, Err(ProgressClosed { wanted: never, reached: Some(unwanted) }));
}

#[tokio::test]
async fn a_lossy_subscription_says_what_it_lost_and_when_it_ends() {
    let store = MemoryEventStore::new();
    append(&store, "a", 1).await;
    let capacity = LossyCapacity::try_new(4).unwrap();
    let mut lossy = subscribe_lossy(store.clone(), EventFilter::all(), capacity).await.unwrap();
    append(&store, "a", 1).await;
    assert_eq!(lossy.next().await.unwrap().position().get(), 2);
    append(&store, "a", 10).await;
    // The last event of the burst arrives in the end; what was dropped before it is counted.
    let (mut last, mut seen, mut lost) = (2, 0, 0);
    while last < 12 {
        match lossy.next().await {
            Ok(event) => {
                last = event.position().get();
                seen += 1;
            }
            Err(LossyError::Lagged(events)) => lost += events,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(seen + lost, 10);
    assert!(seen <= 4 && lost >= 6, "{seen} seen, {lost} lost");
    store.close().await.unwrap();
    assert!(matches!(lossy.next().await, Err(LossyError::Closed { source: None })));
}
