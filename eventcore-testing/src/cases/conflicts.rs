//! Expected versions: no lost update, no write skew.

use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use crate::{ContractViolation, Environment};
use eventcore::{Appended, EventFilter, EventStore, EventStoreError, ExpectedVersion, StreamId, VersionConflict};
use std::collections::BTreeSet;
use std::sync::Arc;

type Answer = Result<Appended, EventStoreError>;

fn conflict(answer: Answer) -> Checked<VersionConflict> {
    match answer {
        Err(EventStoreError::Conflict(conflict)) => Ok(conflict),
        other => Err(ContractViolation::broken(format!("expected a conflict, found {other:?}"))),
    }
}

pub(crate) async fn a_conflict_names_stream_expected_and_actual(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    append(&store, &b, ExpectedVersion::Any, 3).await?;
    let events = vec![(&a, happened()?), (&b, happened()?)];
    let conflict = conflict(store.append(request(&[(&a, exactly(1)?), (&b, exactly(2)?)], events)?).await)?;
    let expected = VersionConflict { stream_id: b, expected: exactly(2)?, actual: version(3)? };
    ensure_eq!(conflict, expected, "the conflict");
    Ok(())
}

pub(crate) async fn of_several_conflicts_the_first_is_named(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let names = streams(&["z", "m", "a"])?;
    for name in &names {
        append(&store, name, ExpectedVersion::Any, 1).await?;
    }
    let expectations: Vec<_> = names.iter().map(|s| (s, ExpectedVersion::NoStream)).collect();
    let conflict = conflict(store.append(request(&expectations, vec![(&names[2], happened()?)])?).await)?;
    ensure_eq!(conflict.stream_id, names[0], "stream of the first expectation that was not met");
    Ok(())
}

pub(crate) async fn a_conflict_stores_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 2).await?;
    let before = (read(&store, &[&a]).await?, store.head().await?);
    conflict(try_append(&store, &a, exactly(1)?).await?)?;
    let after = (read(&store, &[&a]).await?, store.head().await?);
    ensure_eq!(after, before, "stream and head after a conflict");
    let appended = append(&store, &a, exactly(2)?, 1).await?;
    ensure_eq!(appended.events[0].version.get(), 3, "version of the next event");
    Ok(())
}

pub(crate) async fn an_exact_version_has_to_be_the_stream_s(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 2).await?;
    for wrong in [1, 3] {
        let conflict = conflict(try_append(&store, &a, exactly(wrong)?).await?)?;
        ensure_eq!(conflict.actual.get(), 2, "actual version, {wrong} expected");
    }
    ensure_eq!(append(&store, &a, exactly(2)?, 1).await?.events[0].version.get(), 3, "version of the third event");
    Ok(())
}

pub(crate) async fn exact_zero_means_no_stream(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, exactly(0)?, 1).await?;
    for expected in [exactly(0)?, ExpectedVersion::NoStream] {
        let conflict = conflict(try_append(&store, &a, expected).await?)?;
        let both = (conflict.expected, conflict.actual.get());
        ensure_eq!(both, (ExpectedVersion::NoStream, 1), "expected and actual version");
    }
    append(&store, &stream("b")?, ExpectedVersion::NoStream, 1).await?;
    Ok(())
}

pub(crate) async fn stream_exists_needs_an_event(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    let conflict = conflict(try_append(&store, &a, ExpectedVersion::StreamExists).await?)?;
    ensure_eq!((conflict.expected, conflict.actual.get()), (ExpectedVersion::StreamExists, 0), "the conflict");
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    append(&store, &a, ExpectedVersion::StreamExists, 1).await?;
    Ok(())
}

pub(crate) async fn streams_only_read_are_judged(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [read_only, written] = [stream("read-only")?, stream("written")?];
    append(&store, &read_only, ExpectedVersion::Any, 1).await?;
    let attempt = |expected| request(&[(&read_only, expected)], vec![(&written, happened()?)]);
    for expected in [ExpectedVersion::NoStream, exactly(2)?] {
        let conflict = conflict(store.append(attempt(expected)?).await)?;
        ensure_eq!(conflict.stream_id, read_only, "stream of the conflict");
    }
    ensure_eq!(store.stream_version(&written).await?.get(), 0, "version of the stream written by refused appends");
    store.append(attempt(exactly(1)?)?).await?;
    ensure_eq!(store.stream_version(&read_only).await?.get(), 1, "version of a stream that was only read");
    Ok(())
}

pub(crate) async fn two_appends_expecting_one_version_one_wins(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    for round in 0..30 {
        let expected = exactly(round)?;
        let racers = (0..4).map(|_| {
            let (store, a) = (Arc::clone(&store), a.clone());
            async move { try_append(&store, &a, expected).await }
        });
        let (won, lost): (Vec<_>, Vec<_>) = together(racers).await?.into_iter().partition(Result::is_ok);
        ensure_eq!(won.len(), 1, "winners of 4 appends expecting version {round}");
        for answer in lost {
            let expected =
                VersionConflict { stream_id: a.clone(), expected: expected.normalized(), actual: version(round + 1)? };
            ensure_eq!(conflict(answer)?, expected, "what a loser is told");
        }
        ensure_eq!(store.stream_version(&a).await?.get(), round + 1, "version after round {round}");
    }
    Ok(())
}

pub(crate) async fn increments_under_contention_lose_none(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let counter = stream("counter")?;
    together((0..6).map(|_| {
        let (store, counter) = (Arc::clone(&store), counter.clone());
        async move {
            for _ in 0..10 {
                increment(&store, &counter).await?;
            }
            Ok(())
        }
    }))
    .await?;
    let numbers = read(&store, &[&counter]).await?.events.iter().map(number_in).collect::<Checked<Vec<_>>>()?;
    ensure_eq!(numbers, (1..=60).collect::<Vec<_>>(), "counts after 60 increments, each one more than what it read");
    Ok(())
}

/// Reads the last count, appends one more; again if somebody else was faster.
async fn increment(store: &OpenStore, counter: &StreamId) -> Outcome {
    loop {
        let seen = read(store, &[counter]).await?;
        let last = seen.events.last().map_or(Ok(0), number_in)?;
        let expected = ExpectedVersion::Exact(seen.versions[0]);
        let next = request(&[(counter, expected)], vec![(counter, event(HAPPENED, last + 1)?)])?;
        match store.append(next).await {
            Ok(_) => return Ok(()),
            Err(EventStoreError::Conflict(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) async fn reading_one_and_writing_the_other_cannot_both_commit(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for round in 0..40 {
        let [a, b] = [stream(&format!("a-{round}"))?, stream(&format!("b-{round}"))?];
        let crossing = [(a.clone(), b.clone()), (b, a)].map(|(written, read_only)| {
            let store = Arc::clone(&store);
            async move {
                let expected = [(&read_only, ExpectedVersion::NoStream), (&written, ExpectedVersion::NoStream)];
                let answer = store.append(request(&expected, vec![(&written, happened()?)])?).await;
                Ok((answer, read_only))
            }
        });
        let (won, lost): (Vec<_>, Vec<_>) =
            together(crossing).await?.into_iter().partition(|(answer, _)| answer.is_ok());
        ensure_eq!(won.len(), 1, "commits of (read b, write a) beside (read a, write b) in round {round}");
        for (answer, read_only) in lost {
            ensure_eq!(conflict(answer)?.stream_id, read_only, "stream of the conflict: the one only read");
        }
    }
    Ok(())
}

pub(crate) async fn racing_any_appends_all_land_with_distinct_versions(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    for round in 0..5 {
        let racers = (0..20).map(|_| {
            let (store, a) = (Arc::clone(&store), a.clone());
            async move { Ok(try_append(&store, &a, ExpectedVersion::Any).await??.events) }
        });
        let places: Vec<_> = together(racers).await?.into_iter().flatten().collect();
        let versions: BTreeSet<_> = places.iter().map(|e| e.version.get()).collect();
        let expected: BTreeSet<_> = (round * 20 + 1..=round * 20 + 20).collect();
        ensure_eq!(versions, expected, "versions of 20 racing appends");
        let mut by_version = places;
        by_version.sort_by_key(|e| e.version);
        let rising = by_version.windows(2).all(|pair| pair[0].position < pair[1].position);
        ensure!(rising, "position order does not contain the order within the stream");
    }
    let log = follow(&store, &EventFilter::all(), page_size(50)?, store.head().await?).await?;
    ensure_eq!(log.len(), 100, "events in the log");
    Ok(())
}

pub(crate) async fn a_refused_append_does_not_harm_those_beside_it(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let taken = stream("taken")?;
    append(&store, &taken, ExpectedVersion::Any, 1).await?;
    let racers = (0..40).map(|n| {
        let (store, taken) = (Arc::clone(&store), taken.clone());
        async move {
            let own = stream(&format!("own-{n}"))?;
            let expected = if n % 2 == 0 { ExpectedVersion::NoStream } else { ExpectedVersion::StreamExists };
            let events = vec![(&own, happened()?)];
            Ok((n, store.append(request(&[(&taken, expected)], events)?).await))
        }
    });
    for (n, answer) in together(racers).await? {
        if n % 2 == 0 {
            ensure_matches!(answer, Err(EventStoreError::Conflict(_)), "answer to append {n}, which is to conflict");
        } else {
            ensure_matches!(answer, Ok(_), "answer to append {n}, which is to be accepted");
        }
        let version = store.stream_version(&stream(&format!("own-{n}"))?).await?;
        ensure_eq!(version.get(), n % 2, "version of stream own-{n}");
    }
    Ok(())
}
