//! Limits: what is refused, and what goes on beside it.

use crate::fixtures::*;
use crate::violation::{ensure_eq, ensure_matches};
use crate::{Environment, StoreLimits};
use eventcore::{
    AppendLimits, EventFilter, EventMetadata, EventStore, EventStoreError, ExpectedVersion, NewEvent, Payload,
};
use std::sync::Arc;

fn limits(max_event_bytes: usize, max_append_bytes: usize) -> StoreLimits {
    StoreLimits { append: AppendLimits { max_event_bytes, max_append_bytes }, ..StoreLimits::default() }
}

pub(crate) async fn an_oversized_event_is_refused_by_name(env: &Environment) -> Outcome {
    let store = env.fresh_with(limits(100, 1_000)).await?;
    let a = stream("a")?;
    let sized = |bytes| event_with("test.Large", Payload::binary(vec![1; bytes]));
    let refused = store.append(request(&[], vec![(&a, sized(10)?), (&a, sized(101)?)])?).await;
    ensure_matches!(
        refused,
        Err(EventStoreError::EventTooLarge { stream_id, event_type, size: 101, limit: 100 })
            if *stream_id == a && event_type.as_str() == "test.Large",
        "an event of 101 bytes, 100 allowed"
    );
    ensure_eq!(store.stream_version(&a).await?.get(), 0, "version after an oversized append");
    store.append(request(&[], vec![(&a, sized(100)?)])?).await?;
    ensure_eq!(store.stream_version(&a).await?.get(), 1, "version after an event of exactly the limit");
    Ok(())
}

pub(crate) async fn metadata_counts_towards_the_size(env: &Environment) -> Outcome {
    let store = env.fresh_with(limits(100, 1_000)).await?;
    let a = stream("a")?;
    let metadata = EventMetadata::builder().value("k", "v".repeat(95)).build()?;
    let refused = store.append(request(&[], vec![(&a, NewEvent { metadata, ..happened()? })])?).await;
    ensure_matches!(refused, Err(EventStoreError::EventTooLarge { .. }), "metadata over the limit of the event");
    Ok(())
}

pub(crate) async fn an_oversized_append_is_refused_whole(env: &Environment) -> Outcome {
    let store = env.fresh_with(limits(100, 250)).await?;
    let a = stream("a")?;
    let sized = |count: usize| (0..count).map(|_| Ok((&a, event_with(HAPPENED, Payload::binary(vec![1; 100]))?)));
    let three = sized(3).collect::<Checked<_>>()?;
    let refused = store.append(request(&[], three)?).await;
    ensure_matches!(refused, Err(EventStoreError::AppendTooLarge { size: 300, limit: 250 }), "300 bytes, 250 allowed");
    ensure_eq!(store.head().await?, None, "head after an oversized append");
    let two = sized(2).collect::<Checked<_>>()?;
    ensure_eq!(store.append(request(&[], two)?).await?.events.len(), 2, "events of an append within the limit");
    Ok(())
}

pub(crate) async fn oversized_events_do_not_harm_those_beside_them(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let racers = (0..30).map(|n| {
        let store = Arc::clone(&store);
        async move {
            let own = stream(&format!("own-{n}"))?;
            let bytes = if n % 3 == 0 { 1024 * 1024 + 1 } else { 10 };
            let events = vec![(&own, event_with(HAPPENED, Payload::binary(vec![1; bytes]))?)];
            Ok((n, store.append(request(&[], events)?).await))
        }
    });
    for (n, answer) in together(racers).await? {
        if n % 3 == 0 {
            ensure_matches!(answer, Err(EventStoreError::EventTooLarge { .. }), "answer to oversized append {n}");
        } else {
            ensure_matches!(answer, Ok(_), "answer to append {n}");
        }
    }
    let log = follow(&store, &EventFilter::all(), page_size(100)?, store.head().await?).await?;
    ensure_eq!(log.len(), 20, "events of the 20 appends within the limit");
    append(&store, &stream("after")?, ExpectedVersion::NoStream, 1).await?;
    Ok(())
}

pub(crate) async fn ten_thousand_events_in_one_append(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    let events = (0..10_000).map(|n| Ok((if n % 2 == 0 { &a } else { &b }, event(HAPPENED, n)?)));
    let events = events.collect::<Checked<_>>()?;
    ensure_eq!(store.append(request(&[], events)?).await?.events.len(), 10_000, "events answered");
    let log = follow(&store, &EventFilter::all(), page_size(10_000)?, store.head().await?).await?;
    let numbers = log.iter().map(number_in).collect::<Checked<Vec<_>>>()?;
    ensure_eq!(numbers.len(), 10_000, "events in the log");
    ensure_eq!(
        numbers.iter().zip(0..).filter(|(found, expected)| **found != *expected).count(),
        0,
        "events out of order"
    );
    Ok(())
}
