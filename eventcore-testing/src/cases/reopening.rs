//! What outlives a store that is closed and opened again.

use super::checkpoints::checkpoint;
use super::dead_letters::letter;
use crate::Environment;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_eq};
use eventcore::{
    Appended, CheckpointStore, DeadLetterStore, EventFilter, EventReader, EventStore, ExpectedVersion, PageSize,
    ProjectorCoordinator,
};
use std::sync::Arc;

pub(crate) async fn events_receipts_and_versions_outlive_the_store(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let store = place.open().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    let claim = claim("command", &[&a])?;
    let first = store.append(command(&claim, &[], vec![(&a, happened()?), (&b, happened()?)])?).await?;
    append(&store, &b, ExpectedVersion::Any, 3).await?;
    let (head, lineage) = (store.head().await?, store.lineage());
    let log = follow(&store, &EventFilter::all(), PageSize::default(), head).await?;
    store.close().await?;
    drop(store);

    let store = place.open().await?;
    ensure_eq!((store.head().await?, store.lineage()), (head, lineage), "head and identity of the log");
    let again = follow(&store, &EventFilter::all(), PageSize::default(), head).await?;
    ensure_eq!(again, log, "the log");
    ensure_eq!(store.stream_version(&b).await?.get(), 4, "version of a stream");
    let replay = store.append(command(&claim, &[(&a, ExpectedVersion::NoStream)], vec![(&a, happened()?)])?).await?;
    ensure_eq!(replay, Appended { replayed: true, ..first }, "answer to a replay");
    let next = append(&store, &b, exactly(4)?, 1).await?;
    ensure!(Some(next.events[0].position) > head, "position {} after the head {head:?}", next.events[0].position);
    Ok(())
}

pub(crate) async fn checkpoints_and_epochs_outlive_the_store(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let store = place.open().await?;
    let leader = store.acquire(&name("balances")?).await?;
    let saved = checkpoint(&store, "balances", 3)?;
    store.save_checkpoint(&saved, leader.epoch()).await?;
    let old = leader.epoch();
    store.release(leader).await?;
    let before = store.list_checkpoints().await?;
    store.close().await?;
    drop(store);

    let store = place.open().await?;
    ensure_eq!(store.list_checkpoints().await?, before, "checkpoints");
    store.save_checkpoint(&saved, old).await?;
    let leader = store.acquire(&saved.name).await?;
    ensure!(leader.epoch() > old, "epoch {} after {old}", leader.epoch());
    Ok(())
}

pub(crate) async fn dead_letters_outlive_the_store(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let store = place.open().await?;
    for position in [3, 30] {
        store.park_dead_letter(&letter("balances", position)?, None).await?;
    }
    let before = store.dead_letters(None, None, PageSize::default()).await?;
    ensure_eq!(before.len(), 2, "dead letters");
    store.close().await?;
    drop(store);
    let store = place.open().await?;
    ensure_eq!(store.dead_letters(None, None, PageSize::default()).await?, before, "dead letters");
    Ok(())
}

pub(crate) async fn every_append_acknowledged_before_closing_is_there(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let store = place.open().await?;
    let racers = (0..40).map(|n| {
        let store = Arc::clone(&store);
        async move {
            let answer = try_append(&store, &stream(&format!("s-{}", n % 7))?, ExpectedVersion::Any).await?;
            if n == 20 {
                store.close().await?;
            }
            Ok(answer.ok())
        }
    });
    let mut acknowledged: Vec<_> = together(racers).await?.into_iter().flatten().flat_map(|a| a.events).collect();
    acknowledged.sort_by_key(|e| e.position);
    drop(store);

    let store = place.open().await?;
    let log = follow(&store, &EventFilter::all(), PageSize::default(), store.head().await?).await?;
    let stored: Vec<_> = log.iter().map(|e| (e.stream_id(), e.version(), e.position())).collect();
    let answered: Vec<_> = acknowledged.iter().map(|e| (&e.stream_id, e.version, e.position)).collect();
    ensure_eq!(stored, answered, "events stored and events acknowledged");
    Ok(())
}
