//! Following the log by position while others write: nothing missed, nothing twice, one order.

use crate::Environment;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    AppendedEvent, EventFilter, EventId, EventReader, EventStore, EventStoreError, ExpectedVersion, GlobalPosition,
    LogCursor, PageSize, Payload, RecordedEvent, StreamPrefix,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The types that the writers of this module write, in turns.
const TYPES: [&str; 3] = ["test.First", "test.Second", "test.Third"];

/// Many writers that append one to three events to own and shared streams, now and then in vain. Tells what was
/// acknowledged.
async fn write_much(store: &OpenStore) -> Checked<Vec<AppendedEvent>> {
    let written = together((0..8_usize).map(|writer| {
        let store = Arc::clone(store);
        async move {
            let own = stream(&format!("own-{writer}"))?;
            let shared = [stream("shared-0")?, stream("shared-1")?];
            let mut written = Vec::new();
            for round in 0..15 {
                let targets = [&own, &shared[round % 2], &shared[(round + writer) % 2]];
                let events = (0..=(writer + round) % 3).map(|n| Ok((targets[n], event(TYPES[(round + n) % 3], 0)?)));
                let events = events.collect::<Checked<_>>()?;
                written.extend(store.append(request(&[], events)?).await?.events);
                if round % 5 == 4 {
                    let refused = try_append(&store, &own, ExpectedVersion::NoStream).await?;
                    ensure!(refused.is_err(), "an append to a stream expected to have no events was accepted");
                }
                tokio::task::yield_now().await;
            }
            Ok(written)
        }
    }));
    let mut written: Vec<_> = written.await?.into_iter().flatten().collect();
    written.sort_by_key(|e| e.position);
    Ok(written)
}

/// Followers read pages while the writers write; then what each of them saw is compared with what was acknowledged.
async fn follow_writers(env: &Environment, filters: Vec<EventFilter>, limit: PageSize) -> Outcome {
    let store = env.fresh().await?;
    let (end, until) = watch::channel(None::<GlobalPosition>);
    let followers: Vec<_> = filters
        .into_iter()
        .map(|filter| {
            let (store, until) = (Arc::clone(&store), until.clone());
            tokio::spawn(async move {
                let mut follower = Follower::new(&store, &filter, limit);
                // The writers say where the log ends when they have written all of it.
                while until.borrow().is_none() || follower.position < *until.borrow() {
                    ensure!(until.has_changed().is_ok(), "the writers failed");
                    follower.turn().await?;
                }
                Ok((filter, follower.events))
            })
        })
        .collect();
    let written = write_much(&store).await?;
    end.send_replace(store.head().await?);
    for follower in followers {
        let (filter, seen) = follower.await??;
        compare(&filter, &seen, &written, &store).await?;
    }
    Ok(())
}

async fn compare(
    filter: &EventFilter,
    seen: &[RecordedEvent],
    written: &[AppendedEvent],
    store: &OpenStore,
) -> Outcome {
    let log = follow(store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    let places: Vec<_> = log.iter().map(|e| (e.position(), e.stream_id(), e.version())).collect();
    let acknowledged: Vec<_> = written.iter().map(|e| (e.position, &e.stream_id, e.version)).collect();
    ensure!(
        places == acknowledged,
        "the log of {} events is not the {} acknowledged",
        places.len(),
        acknowledged.len()
    );

    let wanted: BTreeSet<_> =
        log.iter().filter(|e| filter.matches(e.stream_id(), e.event_type())).map(RecordedEvent::position).collect();
    let once: BTreeSet<_> = seen.iter().map(RecordedEvent::position).collect();
    let missed = wanted.difference(&once).count();
    let duplicated = seen.len() - once.len();
    let unordered = seen.windows(2).filter(|pair| pair[0].position() >= pair[1].position()).count();
    ensure_eq!(
        (missed, duplicated, unordered),
        (0, 0, 0),
        "events missed, duplicated, out of order of {}",
        wanted.len()
    );
    ensure_eq!(once.len(), wanted.len(), "events that a follower saw");
    Ok(())
}

pub(crate) async fn followers_with_pages_of_one_see_every_event_once(env: &Environment) -> Outcome {
    follow_writers(env, vec![EventFilter::all(); 3], page_size(1)?).await
}

pub(crate) async fn followers_with_pages_of_seven_see_every_event_once(env: &Environment) -> Outcome {
    follow_writers(env, vec![EventFilter::all(); 4], page_size(7)?).await
}

pub(crate) async fn followers_with_pages_of_a_thousand_see_every_event_once(env: &Environment) -> Outcome {
    follow_writers(env, vec![EventFilter::all(); 4], page_size(1_000)?).await
}

pub(crate) async fn followers_with_filters_see_every_wanted_event_once(env: &Environment) -> Outcome {
    let first = || TYPES[0].parse();
    let filters = vec![
        EventFilter::all().types([first()?]),
        EventFilter::all().types([first()?, TYPES[2].parse()?]),
        EventFilter::all().streams([stream("shared-0")?, stream("own-3")?]),
        EventFilter::all().stream_prefix(StreamPrefix::new("shared-")?),
        EventFilter::all().stream_prefix(StreamPrefix::new("own-")?).types([first()?]),
        EventFilter::all().streams([stream("shared-1")?]).types([first()?]),
        EventFilter::all().types(["test.Never".parse()?]),
    ];
    follow_writers(env, filters.clone(), page_size(3)?).await?;
    follow_writers(env, filters, page_size(1_000)?).await
}

pub(crate) async fn a_cursor_moves_over_unwanted_events(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 20).await?;
    let head = store.head().await?;
    for filter in [EventFilter::all().types(["test.Never".parse()?]), EventFilter::all().streams([stream("b")?])] {
        // A follower of nothing still arrives at the end, and the event there is named.
        let mut position = None;
        while position < head {
            let page = store.read_page(&filter, position, page_size(7)?).await?;
            ensure!(page.events.is_empty(), "an unwanted event");
            if let Some(cursor) = page.cursor {
                store.verify_cursor(&cursor).await?;
                position = Some(cursor.position);
            }
            tokio::task::yield_now().await;
        }
        ensure_eq!(position, head, "position at the end of the log");
    }
    Ok(())
}

pub(crate) async fn the_cursor_names_the_event_it_stands_at(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    append(&store, &stream("a")?, ExpectedVersion::Any, 9).await?;
    let log = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    let mut position = None;
    for pair in log.chunks(2) {
        let page = store.read_page(&EventFilter::all(), position, page_size(2)?).await?;
        ensure_eq!(page.events, pair, "events of the page after {position:?}");
        let expected = pair.last().map(|e| LogCursor { position: e.position(), event_id: e.id() });
        ensure_eq!(page.cursor, expected, "cursor of the page after {position:?}");
        position = page.position();
    }
    Ok(())
}

pub(crate) async fn the_page_at_the_end_is_empty_without_cursor(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let empty = store.read_page(&EventFilter::all(), None, page_size(5)?).await?;
    ensure_eq!((empty.events.len(), empty.cursor, empty.more), (0, None, false), "page of an empty log");
    append(&store, &stream("a")?, ExpectedVersion::Any, 3).await?;
    let head = store.head().await?;
    follow(&store, &EventFilter::all(), page_size(5)?, head).await?;
    let last = store.read_page(&EventFilter::all(), head, page_size(5)?).await?;
    ensure_eq!((last.events.len(), last.cursor, last.more), (0, None, false), "page after the end of the log");
    Ok(())
}

pub(crate) async fn a_position_between_events_is_a_place_to_begin(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    append(&store, &stream("a")?, ExpectedVersion::Any, 6).await?;
    let log = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    for (index, event) in log.iter().enumerate() {
        let page = store.read_page(&EventFilter::all(), Some(event.position()), page_size(100)?).await?;
        ensure_eq!(page.events, log[index + 1..], "events after position {}", event.position());
    }
    Ok(())
}

pub(crate) async fn another_history_is_noticed(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    append(&store, &stream("a")?, ExpectedVersion::Any, 2).await?;
    let log = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    for event in &log {
        store.verify_cursor(&LogCursor { position: event.position(), event_id: event.id() }).await?;
    }
    let (position, expected) = (log[0].position(), EventId::generate());
    let other = store.verify_cursor(&LogCursor { position, event_id: expected }).await;
    let (found, at) = (log[0].id(), position);
    ensure_matches!(
        other,
        Err(EventStoreError::LogDiverged { position, expected: e, found: Some(f) }) if *position == at && *e == expected && *f == found,
        "a cursor with another event"
    );
    let beyond = GlobalPosition::try_new(log[1].position().get() + 1_000)?;
    let none = store.verify_cursor(&LogCursor { position: beyond, event_id: log[1].id() }).await;
    ensure_matches!(none, Err(EventStoreError::LogDiverged { found: None, .. }), "a cursor beyond the end of the log");
    Ok(())
}

pub(crate) async fn every_log_has_an_identity_of_its_own(env: &Environment) -> Outcome {
    let [one, two] = [env.fresh().await?, env.fresh().await?];
    ensure!(one.lineage() != two.lineage(), "two logs have one identity");
    ensure_eq!(one.lineage(), one.lineage(), "identity of a log, asked for twice");
    Ok(())
}

pub(crate) async fn an_append_wakes_those_who_wait(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for round in 0..10 {
        let waiting = (0..3).map(|_| {
            let mut watch = store.watch_log();
            tokio::spawn(async move { watch.changed().await })
        });
        let waiting: Vec<_> = waiting.collect();
        append(&store, &stream("a")?, ExpectedVersion::Any, 1).await?;
        for follower in waiting {
            let woken = tokio::time::timeout(Duration::from_secs(120), follower).await;
            ensure!(woken.is_ok(), "a follower was not woken by append {round}");
        }
    }
    Ok(())
}

pub(crate) async fn an_append_before_the_wait_is_not_slept_over(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut watch = store.watch_log();
    append(&store, &stream("a")?, ExpectedVersion::Any, 1).await?;
    let woken = tokio::time::timeout(Duration::from_secs(120), watch.changed()).await;
    ensure_matches!(woken, Ok(Ok(())), "a watch made before an append, waited on after it");
    Ok(())
}

pub(crate) async fn large_events_fill_a_page_early(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let name = stream("large-1")?;
    let mut written = Vec::new();
    for number in 0..12_u8 {
        let large = event_with(HAPPENED, Payload::binary(vec![number; 900_000]))?;
        written.push(large.id);
        store.append(request(&[], vec![(&name, large)])?).await?;
    }
    let take = |page: &[RecordedEvent], more: bool, seen: &mut Vec<EventId>, how: &str| -> Outcome {
        let before_the_last: usize = page.iter().rev().skip(1).map(RecordedEvent::size).sum();
        ensure!(before_the_last < PageSize::FULL_BYTES, "{how}: a page went on at {before_the_last} bytes");
        seen.extend(page.iter().map(RecordedEvent::id));
        ensure!(more || seen.len() == written.len(), "{how}: a page that was cut does not say that there is more");
        Ok(())
    };
    let filters = [
        EventFilter::all(),
        EventFilter::all().types([HAPPENED.parse()?]),
        EventFilter::all().streams([name.clone()]),
        EventFilter::all().stream_prefix(StreamPrefix::new("large-")?),
    ];
    let all = page_size(1_000)?;
    for filter in filters {
        let how = format!("{filter:?}");
        let (mut seen, mut after) = (Vec::new(), None);
        while seen.len() < written.len() {
            let page = store.read_page(&filter, after, all).await?;
            ensure!(page.cursor.is_some(), "{how}: {} of {} events, and no page after them", seen.len(), written.len());
            take(&page.events, page.more, &mut seen, &how)?;
            after = page.position();
        }
        ensure_eq!(seen, written, "{how}: events page by page");
    }
    let (mut seen, mut after) = (Vec::new(), version(0)?);
    while seen.len() < written.len() {
        let page = store.read_stream(&name, after, all).await?;
        take(&page.events, page.more, &mut seen, "a stream")?;
        after = page.events.last().map_or(after, RecordedEvent::version);
    }
    ensure_eq!(seen, written, "events of the stream page by page");
    Ok(())
}
