//! Atomic appends, their versions and positions.

use crate::Environment;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_eq};
use eventcore::{AppendRequest, EventFilter, EventReader, EventStore, ExpectedVersion, PageSize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) async fn events_stand_in_the_order_of_the_request(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    append(&store, &b, ExpectedVersion::NoStream, 1).await?;
    let order = [&a, &b, &a, &a, &b];
    let events = (0..).zip(order).map(|(n, s)| Ok((s, event(HAPPENED, n)?))).collect::<Checked<_>>();
    let appended = store.append(request(&[], events?)?).await?;

    let read = read(&store, &[&a, &b]).await?.events.split_off(1);
    let numbers = read.iter().map(number_in).collect::<Checked<Vec<_>>>()?;
    ensure_eq!(numbers, [0, 1, 2, 3, 4], "numbers of the events in global order");
    let versions: Vec<_> = read.iter().map(|e| (e.stream_id(), e.version().get())).collect();
    ensure_eq!(versions, [(&a, 1), (&b, 2), (&a, 2), (&a, 3), (&b, 3)], "streams and versions in global order");
    let rising = read.windows(2).all(|pair| pair[0].position() < pair[1].position());
    ensure!(rising, "positions do not rise in the order of the request");
    let answered: Vec<_> = appended.events.iter().map(|e| (&e.stream_id, e.version, e.position)).collect();
    let stored: Vec<_> = read.iter().map(|e| (e.stream_id(), e.version(), e.position())).collect();
    ensure_eq!(answered, stored, "streams, versions and positions answered");
    ensure!(!appended.replayed, "an append without command is no replay");
    Ok(())
}

pub(crate) async fn an_append_over_several_streams_is_all_or_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = streams(&["a", "b", "c"])?;
    append(&store, &names[2], ExpectedVersion::NoStream, 1).await?;
    let head = store.head().await?;
    let events = names.iter().map(|s| Ok((s, happened()?))).collect::<Checked<_>>()?;
    let refused = store.append(request(&[(&names[2], ExpectedVersion::NoStream)], events)?).await;
    ensure!(refused.is_err(), "an append to a stream that has events, expected to have none, was accepted");
    ensure_eq!(store.stream_version(&names[0]).await?.get(), 0, "version of the first stream of a refused append");
    ensure_eq!(store.stream_version(&names[1]).await?.get(), 0, "version of the second stream of a refused append");
    ensure_eq!(store.stream_version(&names[2]).await?.get(), 1, "version of the conflicting stream");
    ensure_eq!(store.head().await?, head, "head after a refused append");
    ensure_eq!(follow(&store, &EventFilter::all(), page_size(10)?, head).await?.len(), 1, "events in the log");
    Ok(())
}

pub(crate) async fn no_reader_sees_half_an_append(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    let done = Arc::new(AtomicBool::new(false));
    let writers = {
        let (store, a, b, done) = (Arc::clone(&store), a.clone(), b.clone(), Arc::clone(&done));
        async move {
            let result = async {
                for _ in 0..60 {
                    let events = vec![(&a, happened()?), (&b, happened()?), (&a, happened()?), (&b, happened()?)];
                    store.append(request(&[], events)?).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            };
            let result = result.await;
            done.store(true, Ordering::Release);
            result
        }
    };
    let streams_reader = {
        let (store, a, b, done) = (Arc::clone(&store), a.clone(), b.clone(), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Acquire) {
                let seen = read(&store, &[&a, &b]).await?;
                ensure_eq!(seen.versions[0], seen.versions[1], "versions of two streams always written together");
                ensure_eq!(seen.events.len() % 4, 0, "events of a half append in a read of {}", seen.events.len());
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    };
    let log_reader = {
        let (store, a, b) = (Arc::clone(&store), a.clone(), b.clone());
        async move {
            while !done.load(Ordering::Acquire) {
                // A page may end within an append, but not before all of it is there.
                let page = store.read_page(&EventFilter::all(), None, page_size(10_000)?).await?.events.len();
                let there = read(&store, &[&a, &b]).await?.events.len();
                let whole = page.next_multiple_of(4);
                ensure!(there >= whole, "a page showed {page} events of appends of four, but {there} are there");
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    };
    let tasks: [std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>; 3] =
        [Box::pin(writers), Box::pin(streams_reader), Box::pin(log_reader)];
    together(tasks).await?;
    Ok(())
}

pub(crate) async fn an_append_after_another_stands_after_it(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut last = None;
    for round in 0..20 {
        let name = stream(&format!("stream-{}", round % 3))?;
        let racing = Arc::clone(&store);
        let noise = tokio::spawn(async move { append(&racing, &stream("noise")?, ExpectedVersion::Any, 2).await });
        let place = append(&store, &name, ExpectedVersion::Any, 1).await?.events[0].position;
        ensure!(Some(place) > last, "position {place} was given after {last:?} had been answered");
        last = Some(place);
        noise.await??;
    }
    Ok(())
}

pub(crate) async fn positions_begin_at_one_without_gaps(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    together((0..8).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            let [own, shared] = [stream(&format!("own-{writer}"))?, stream("shared")?];
            for _ in 0..5 {
                append(&store, &own, ExpectedVersion::Any, 2).await?;
                // A refused append leaves no gap either.
                let refused = try_append(&store, &own, ExpectedVersion::NoStream).await?;
                ensure!(refused.is_err(), "an append to a stream expected to have no events was accepted");
                append(&store, &shared, ExpectedVersion::Any, 1).await?;
            }
            Ok(())
        }
    }))
    .await?;
    let events = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    let positions: Vec<_> = events.iter().map(|e| e.position().get()).collect();
    ensure_eq!(positions, (1..=120).collect::<Vec<_>>(), "positions of 120 events");
    Ok(())
}

pub(crate) async fn a_thousand_streams_in_one_append(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = (0..AppendRequest::MAX_STREAMS).map(|n| stream(&format!("stream-{n}"))).collect::<Checked<Vec<_>>>()?;
    let events = names.iter().map(|s| Ok((s, happened()?))).collect::<Checked<_>>()?;
    let expectations: Vec<_> = names.iter().map(|s| (s, ExpectedVersion::NoStream)).collect();
    let appended = store.append(request(&expectations, events)?).await?;
    let order: Vec<_> = appended.events.iter().map(|e| &e.stream_id).collect();
    ensure_eq!(order, names.iter().collect::<Vec<_>>(), "streams in the order of the request");
    let read = read(&store, &names.iter().collect::<Vec<_>>()).await?;
    ensure_eq!(read.events.len(), names.len(), "events read back");
    ensure!(read.versions.iter().all(|v| v.get() == 1), "a stream is not at version 1");
    Ok(())
}

pub(crate) async fn all_events_of_an_append_share_the_time_answered(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let name = stream("a")?;
    let appended = append(&store, &name, ExpectedVersion::Any, 3).await?;
    for event in read(&store, &[&name]).await?.events {
        ensure_eq!(event.recorded_at(), appended.recorded_at, "time of the event, to the microsecond");
    }
    let page = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    ensure!(page.iter().all(|e| e.recorded_at() == appended.recorded_at), "a page tells another time");
    Ok(())
}
