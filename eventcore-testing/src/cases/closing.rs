//! Closing: what is queued is answered, what comes later is refused.

use super::checkpoints::checkpoint;
use crate::Environment;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_matches};
use eventcore::{
    CheckpointError, CheckpointStore, Epoch, EventFilter, EventReader, EventStore, EventStoreError, ExpectedVersion,
    LeadershipError, PageSize, ProjectorCoordinator, ReadStreams,
};
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn a_closed_store_says_so(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    store.close().await?;
    store.close().await?;
    let appended = try_append(&store, &a, ExpectedVersion::Any).await?;
    ensure_matches!(appended, Err(EventStoreError::Closed), "an append");
    let read = store.read_streams(ReadStreams::new([a.clone()])?).await;
    ensure_matches!(read, Err(EventStoreError::Closed), "a consistent read");
    ensure_matches!(store.stream_version(&a).await, Err(EventStoreError::Closed), "a version");
    ensure_matches!(store.head().await, Err(EventStoreError::Closed), "the head");
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await;
    ensure_matches!(page, Err(EventStoreError::Closed), "a page of the log");
    let page = store.read_stream(&a, version(0)?, PageSize::default()).await;
    ensure_matches!(page, Err(EventStoreError::Closed), "a page of a stream");
    let saved = checkpoint(&store, "balances", 1)?;
    let save = store.save_checkpoint(&saved, Epoch::NONE).await;
    ensure_matches!(save, Err(CheckpointError::Store(EventStoreError::Closed)), "saving a checkpoint");
    let load = store.load_checkpoint(&saved.name).await;
    ensure_matches!(load, Err(CheckpointError::Store(EventStoreError::Closed)), "loading a checkpoint");
    let lead = store.acquire(&saved.name).await;
    ensure_matches!(lead, Err(LeadershipError::Store(EventStoreError::Closed)), "leading");
    Ok(())
}

/// Whoever waits for something new finds out that nothing will come, without looking by himself.
pub(crate) async fn who_waits_is_woken_when_the_store_closes(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut watch = store.watch_log();
    store.close().await?;
    let woken = tokio::time::timeout(Duration::from_secs(120), watch.changed()).await;
    ensure!(woken.is_ok(), "a follower of a closed store goes on waiting");
    Ok(())
}

pub(crate) async fn appends_in_hand_are_answered_when_the_store_closes(env: &Environment) -> Outcome {
    for round in 0..5 {
        let store = env.fresh().await?;
        let closing = {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..round {
                    tokio::task::yield_now().await;
                }
                store.close().await
            })
        };
        let racers = (0..40).map(|n| {
            let store = Arc::clone(&store);
            async move { try_append(&store, &stream(&format!("s-{}", n % 7))?, ExpectedVersion::Any).await }
        });
        for answer in together(racers).await? {
            ensure_matches!(answer, Ok(_) | Err(EventStoreError::Closed), "an append while the store closes");
        }
        closing.await??;
        let late = try_append(&store, &stream("late")?, ExpectedVersion::Any).await?;
        ensure!(late.is_err(), "an append after the store was closed");
    }
    Ok(())
}
