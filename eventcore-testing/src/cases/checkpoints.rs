//! Checkpoints, fenced by epochs.

use crate::Environment;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, Epoch, EventFilter, EventId, EventReader, GlobalPosition, LineageId,
    LogCursor, ProjectorCoordinator, StreamPrefix, Timestamp,
};
use std::sync::Arc;
use tokio::task::JoinSet;

/// A checkpoint of a follower called `name` at `position`.
pub(crate) fn checkpoint(store: &(impl EventReader + ?Sized), name_of: &str, position: u64) -> Checked<Checkpoint> {
    Ok(Checkpoint {
        name: name(name_of)?,
        cursor: Some(LogCursor { position: GlobalPosition::try_new(position)?, event_id: EventId::generate() }),
        filter: EventFilter::all().identity(),
        lineage: store.lineage(),
        updated_at: Timestamp::from_micros(0)?,
    })
}

/// Whether the checkpoint stored for a follower is `expected`, apart from its time, which is the store's.
async fn is_stored(store: &OpenStore, expected: &Checkpoint) -> Outcome {
    let stored = store.load_checkpoint(&expected.name).await?;
    let found = stored.map(|stored| Checkpoint { updated_at: expected.updated_at, ..stored });
    ensure_eq!(found.as_ref(), Some(expected), "the checkpoint of {}", expected.name);
    Ok(())
}

pub(crate) async fn a_checkpoint_comes_back_as_saved(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let filters = [
        EventFilter::all(),
        EventFilter::all().types(["test.\"One\"".parse()?, "тест".parse()?]),
        EventFilter::all().stream_prefix(StreamPrefix::new("a_%")?).types([]),
    ];
    for (filter, n) in filters.into_iter().zip(1..) {
        let mut expected = checkpoint(&store, &format!("follower {n} 'é' _%"), n)?;
        expected.filter = filter.identity();
        expected.filter.default_types = ["test.\"One\"".parse()?, "тест".parse()?].into();
        store.save_checkpoint(&expected, Epoch::NONE).await?;
        is_stored(&store, &expected).await?;
    }
    let high = checkpoint(&store, "far", i64::MAX as u64)?;
    store.save_checkpoint(&high, Epoch::NONE).await?;
    is_stored(&store, &high).await?;
    let mut at_the_beginning = checkpoint(&store, "none", 1)?;
    at_the_beginning.cursor = None;
    store.save_checkpoint(&at_the_beginning, Epoch::NONE).await?;
    is_stored(&store, &at_the_beginning).await
}

pub(crate) async fn who_never_saved_has_no_checkpoint(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    ensure_eq!(store.load_checkpoint(&name("unknown")?).await?, None, "checkpoint of an unknown follower");
    ensure_eq!(store.list_checkpoints().await?, [], "all checkpoints of an empty store");
    let leader = store.acquire(&name("leader")?).await?;
    ensure_eq!(store.load_checkpoint(leader.name()).await?, None, "checkpoint of a leader that saved none");
    ensure_eq!(store.list_checkpoints().await?, [], "all checkpoints, while one leads that saved none");
    Ok(())
}

pub(crate) async fn a_later_checkpoint_replaces_the_earlier(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for position in [1, 5, 3] {
        // Also backwards: a follower that begins again does so on purpose.
        let expected = checkpoint(&store, "follower", position)?;
        store.save_checkpoint(&expected, Epoch::NONE).await?;
        is_stored(&store, &expected).await?;
    }
    ensure_eq!(store.list_checkpoints().await?.len(), 1, "checkpoints of one follower");
    Ok(())
}

pub(crate) async fn the_store_says_when_a_checkpoint_was_saved(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut saved = checkpoint(&store, "follower", 1)?;
    saved.updated_at = Timestamp::from_micros(123)?;
    store.save_checkpoint(&saved, Epoch::NONE).await?;
    let stored = store.load_checkpoint(&saved.name).await?.map(|c| c.updated_at);
    ensure!(stored > Some(Timestamp::from_micros(1_000_000_000_000_000)?), "time of the checkpoint: {stored:?}");
    Ok(())
}

pub(crate) async fn a_checkpoint_of_another_log_is_told(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut foreign = checkpoint(&store, "follower", 1)?;
    foreign.lineage = LineageId::generate();
    store.save_checkpoint(&foreign, Epoch::NONE).await?;
    is_stored(&store, &foreign).await
}

pub(crate) async fn checkpoints_are_listed_by_name(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for name in ["b", "a", "C", "ä", "aa", "a b", "a_", "Z"] {
        store.save_checkpoint(&checkpoint(&store, name, 1)?, Epoch::NONE).await?;
    }
    let names: Vec<_> = store.list_checkpoints().await?.into_iter().map(|c| c.name.to_string()).collect();
    ensure_eq!(names, ["C", "Z", "a", "a b", "a_", "aa", "b", "ä"], "names in the order of their bytes");
    Ok(())
}

pub(crate) async fn a_reset_checkpoint_is_gone_and_its_epoch_stays(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let leader = store.acquire(&name("follower")?).await?;
    let [mine, other] = [checkpoint(&store, "follower", 4)?, checkpoint(&store, "other", 5)?];
    store.save_checkpoint(&mine, leader.epoch()).await?;
    store.save_checkpoint(&other, Epoch::NONE).await?;
    let fenced = store.reset_checkpoint(&mine.name, Epoch::NONE).await;
    ensure_matches!(fenced, Err(CheckpointError::Fenced { .. }), "a reset with an old epoch");
    is_stored(&store, &mine).await?;

    store.reset_checkpoint(&mine.name, leader.epoch()).await?;
    ensure_eq!(store.load_checkpoint(&mine.name).await?, None, "a checkpoint after its reset");
    is_stored(&store, &other).await?;
    let fenced = store.save_checkpoint(&mine, Epoch::NONE).await;
    ensure_matches!(fenced, Err(CheckpointError::Fenced { .. }), "an old epoch after a reset");
    store.save_checkpoint(&mine, leader.epoch()).await?;
    is_stored(&store, &mine).await
}

pub(crate) async fn only_the_epoch_in_force_may_save(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let saved = checkpoint(&store, "follower", 7)?;
    let later = checkpoint(&store, "follower", 8)?;
    store.save_checkpoint(&saved, Epoch::NONE).await?;
    let first = store.acquire(&saved.name).await?;
    let old = first.epoch();
    store.save_checkpoint(&saved, old).await?;
    store.release(first).await?;
    let second = eventually_acquired(&store, "follower").await?;
    for wrong in [Epoch::NONE, old, second.epoch().next()] {
        let answer = store.save_checkpoint(&later, wrong).await;
        ensure_matches!(
            answer,
            Err(CheckpointError::Fenced { name, epoch, current })
                if *name == later.name && *epoch == wrong && *current == second.epoch(),
            "a save with epoch {wrong}, {} in force", second.epoch()
        );
        is_stored(&store, &saved).await?;
    }
    store.save_checkpoint(&later, second.epoch()).await?;
    is_stored(&store, &later).await
}

pub(crate) async fn a_replaced_leader_saves_nothing_more(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for round in 0..15 {
        let named = format!("follower-{round}");
        let first = store.acquire(&name(&named)?).await?;
        let old = first.epoch();
        // The old leader saves on and on, from several tasks, until it is fenced, while another one takes over.
        let mut saving = JoinSet::new();
        for _ in 0..6 {
            let (store, late) = (Arc::clone(&store), checkpoint(&store, &named, 1)?);
            saving.spawn(async move {
                loop {
                    match store.save_checkpoint(&late, old).await {
                        Ok(()) => tokio::task::yield_now().await,
                        Err(CheckpointError::Fenced { .. }) => return Checked::Ok(()),
                        Err(error) => return Err(error.into()),
                    }
                }
            });
        }
        tokio::task::yield_now().await;
        drop(first);
        let second = eventually_acquired(&store, &named).await?;
        let mine = checkpoint(&store, &named, 2)?;
        store.save_checkpoint(&mine, second.epoch()).await?;
        while let Some(saved) = saving.join_next().await {
            saved??;
        }
        is_stored(&store, &mine).await?;
    }
    Ok(())
}

/// The leadership, as soon as it is free.
pub(crate) async fn eventually_acquired(
    store: &(impl ProjectorCoordinator + ?Sized),
    name_of: &str,
) -> Checked<eventcore::Leadership> {
    eventually(|| async {
        match store.acquire(&name(name_of)?).await {
            Ok(leadership) => Ok(Some(leadership)),
            Err(eventcore::LeadershipError::Busy { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
    .await
}
