//! Reads of streams: read-your-writes, one moment, one order.

use crate::Environment;
use crate::StoreLimits;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{EventReader, EventStore, EventStoreError, ExpectedVersion, ReadStreams, StreamPosition};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) async fn an_empty_store_has_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    ensure_eq!(store.head().await?, None, "head of an empty log");
    ensure_eq!(store.stream_version(&a).await?.get(), 0, "version of an unknown stream");
    ensure!(!store.stream_exists(&a).await?, "a stream without events exists");
    let read = read(&store, &[&a]).await?;
    ensure_eq!((read.events.len(), read.versions[0].get()), (0, 0), "events and version of an unknown stream");
    let page = store.read_stream(&a, version(0)?, page_size(10)?).await?;
    ensure_eq!((page.events.len(), page.more), (0, false), "events of an unknown stream, and whether there are more");
    Ok(())
}

pub(crate) async fn an_acknowledged_append_is_read_at_once(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    together((0..8).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            let own = stream(&format!("own-{writer}"))?;
            for round in 1..=10 {
                let appended = append(&store, &own, ExpectedVersion::Any, 1).await?;
                let place = &appended.events[0];
                ensure_eq!(store.stream_version(&own).await?.get(), round, "version after append {round}");
                ensure!(store.stream_exists(&own).await?, "the stream does not exist after an append");
                let read = read(&store, &[&own]).await?;
                ensure_eq!(read.events.last().map(|e| e.position()), Some(place.position), "last event of the stream");
                let page = store.read_stream(&own, version(round - 1)?, page_size(10)?).await?;
                ensure_eq!(page.events.len(), 1, "events of the stream after version {}", round - 1);
                ensure!(store.head().await? >= Some(place.position), "the head is before an acknowledged append");
            }
            Ok(())
        }
    }))
    .await?;
    Ok(())
}

pub(crate) async fn the_head_is_the_last_acknowledged_position(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for n in 0..5 {
        let appended = append(&store, &stream(&format!("s-{n}"))?, ExpectedVersion::Any, 2).await?;
        ensure_eq!(store.head().await?, appended.events.last().map(|e| e.position), "head after an append");
    }
    Ok(())
}

pub(crate) async fn streams_are_read_together_in_global_order(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = streams(&["c", "a", "b", "unread"])?;
    for n in 0..12 {
        let events = vec![(&names[n % 4], happened()?), (&names[(n + 1) % 4], happened()?)];
        store.append(request(&[], events)?).await?;
    }
    let wanted = [&names[0], &names[1], &names[2]];
    let seen = read(&store, &wanted).await?;
    ensure_eq!(seen.events.len(), 18, "events of three streams");
    let rising = seen.events.windows(2).all(|pair| pair[0].position() < pair[1].position());
    ensure!(rising, "events are not in global order");
    ensure!(seen.events.iter().all(|e| wanted.contains(&e.stream_id())), "an event of a stream not asked for");
    ensure_eq!(seen.versions.iter().map(|v| v.get()).collect::<Vec<_>>(), [6, 6, 6], "versions");
    Ok(())
}

pub(crate) async fn versions_come_in_the_order_of_the_request(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = streams(&["c", "a", "unknown", "b"])?;
    for (name, count) in [(&names[0], 3), (&names[1], 1), (&names[3], 2)] {
        append(&store, name, ExpectedVersion::Any, count).await?;
    }
    let read = read(&store, &names.iter().collect::<Vec<_>>()).await?;
    ensure_eq!(read.versions.iter().map(|v| v.get()).collect::<Vec<_>>(), [3, 1, 0, 2], "versions of c, a, unknown, b");
    Ok(())
}

pub(crate) async fn streams_are_read_after_given_versions(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = streams(&["a", "b", "c"])?;
    for name in &names {
        append(&store, name, ExpectedVersion::Any, 3).await?;
    }
    let after = [1, 3, 9].map(version).into_iter().zip(&names);
    let after = after.map(|(after, s)| Ok(StreamPosition { stream_id: s.clone(), after: after? }));
    let after = after.collect::<Checked<Vec<_>>>()?;
    let read = store.read_streams(ReadStreams::after(after)?).await?;
    let seen: Vec<_> = read.events.iter().map(|e| (e.stream_id(), e.version().get())).collect();
    ensure_eq!(seen, [(&names[0], 2), (&names[0], 3)], "events after versions 1, 3 and 9");
    ensure_eq!(read.versions.iter().map(|v| v.get()).collect::<Vec<_>>(), [3, 3, 3], "versions of the whole streams");
    Ok(())
}

pub(crate) async fn a_read_of_several_streams_is_of_one_moment(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let accounts = Arc::new(streams(&["account-0", "account-1", "account-2", "account-3"])?);
    let writing = Arc::new(AtomicUsize::new(4));
    let writers = (0..4_usize).map(|writer| {
        let (store, accounts, writing) = (Arc::clone(&store), Arc::clone(&accounts), Arc::clone(&writing));
        Box::pin(async move {
            let result = async {
                for round in 0..40 {
                    let [from, to] = [&accounts[(writer + round) % 4], &accounts[(writer + round * 3 + 1) % 4]];
                    let amount = (round + 1) as i64;
                    let events = vec![(from, event(HAPPENED, -amount)?), (to, event(HAPPENED, amount)?)];
                    store.append(request(&[], events)?).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            };
            let result = result.await;
            writing.fetch_sub(1, Ordering::AcqRel);
            result
        }) as Pin<Box<dyn Future<Output = Outcome> + Send>>
    });
    let readers = (0..3).map(|_| {
        let (store, accounts, writing) = (Arc::clone(&store), Arc::clone(&accounts), Arc::clone(&writing));
        Box::pin(async move {
            while writing.load(Ordering::Acquire) > 0 {
                let seen = read(&store, &accounts.iter().collect::<Vec<_>>()).await?;
                let sum = seen.events.iter().map(number_in).sum::<Checked<i64>>()?;
                ensure_eq!(sum, 0, "sum of all accounts while money moves between them");
                let total: u64 = seen.versions.iter().map(|v| v.get()).sum();
                ensure_eq!(total, seen.events.len() as u64, "versions and events of one read");
                tokio::task::yield_now().await;
            }
            Ok(())
        }) as Pin<Box<dyn Future<Output = Outcome> + Send>>
    });
    together(writers.chain(readers).collect::<Vec<_>>()).await?;
    Ok(())
}

pub(crate) async fn a_stream_is_read_page_by_page(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, other] = [stream("a")?, stream("other")?];
    for _ in 0..5 {
        append(&store, &a, ExpectedVersion::Any, 2).await?;
        append(&store, &other, ExpectedVersion::Any, 1).await?;
    }
    for limit in [1, 3, 10, 100] {
        let (mut after, mut versions) = (version(0)?, Vec::new());
        loop {
            let page = store.read_stream(&a, after, page_size(limit)?).await?;
            ensure!(page.events.len() <= limit as usize, "{} events on a page of {limit}", page.events.len());
            ensure!(page.more || page.events.len() < limit as usize, "a full page that says there is no more");
            ensure!(page.events.iter().all(|e| e.stream_id() == &a), "an event of another stream");
            versions.extend(page.events.iter().map(|e| e.version().get()));
            let Some(last) = page.events.last() else { break };
            after = last.version();
            ensure!(versions.len() <= 10, "more events than the stream has");
        }
        ensure_eq!(versions, (1..=10).collect::<Vec<_>>(), "versions in pages of {limit}");
    }
    ensure_eq!(store.read_stream(&a, version(99)?, page_size(5)?).await?.events.len(), 0, "events after version 99");
    Ok(())
}

pub(crate) async fn a_read_over_the_limit_is_refused_whole(env: &Environment) -> Outcome {
    let store = env.fresh_with(StoreLimits { max_read_events: 10, ..StoreLimits::default() }).await?;
    let [a, b] = [stream("a")?, stream("b")?];
    append(&store, &a, ExpectedVersion::Any, 10).await?;
    append(&store, &b, ExpectedVersion::Any, 1).await?;
    let both = store.read_streams(ReadStreams::new([a.clone(), b.clone()])?).await;
    ensure_matches!(both, Err(EventStoreError::ReadTooLarge { limit: 10 }), "a read of 11 events, 10 allowed");
    ensure_eq!(read(&store, &[&a]).await?.events.len(), 10, "events of a read within the limit");
    let tail = [(a, 5), (b, 0)].map(|(stream_id, after)| Ok(StreamPosition { stream_id, after: version(after)? }));
    let tail = tail.into_iter().collect::<Checked<Vec<_>>>()?;
    ensure_eq!(store.read_streams(ReadStreams::after(tail)?).await?.events.len(), 6, "events after version 5");
    Ok(())
}
