//! The contexts that every checkpoint store has: `()` and `InMemory`.

use super::checkpoints::checkpoint;
use crate::Environment;
use crate::fixtures::*;
use crate::violation::{ensure_eq, ensure_matches};
use eventcore::{CheckpointError, CheckpointStore, Epoch, InMemory, ProjectorCoordinator, UnitOfWork};

pub(crate) async fn a_page_with_effects_of_its_own_saves_its_checkpoint(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let leader = store.acquire(&name("balances")?).await?;
    let [first, second] = [checkpoint(&store, "balances", 3)?, checkpoint(&store, "balances", 6)?];
    let none = UnitOfWork::<()>::resume(&store, leader.name()).await?;
    ensure_eq!(none, None, "checkpoint before the first page");

    UnitOfWork::<()>::begin(&store, leader.name(), leader.epoch()).await?;
    UnitOfWork::<()>::commit(&store, (), &first, leader.epoch()).await?;
    let resumed = UnitOfWork::<()>::resume(&store, leader.name()).await?;
    ensure_eq!(resumed.and_then(|c| c.cursor), first.cursor, "checkpoint after the first page");

    UnitOfWork::<()>::begin(&store, leader.name(), leader.epoch()).await?;
    UnitOfWork::<()>::rollback(&store, ()).await?;
    let fenced = UnitOfWork::<()>::commit(&store, (), &second, Epoch::NONE).await;
    ensure_matches!(fenced, Err(CheckpointError::Fenced { .. }), "a page of a leader that was replaced");
    let resumed = UnitOfWork::<()>::resume(&store, leader.name()).await?;
    ensure_eq!(resumed.and_then(|c| c.cursor), first.cursor, "checkpoint after pages that came to nothing");
    Ok(())
}

pub(crate) async fn a_page_in_memory_saves_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let saved = checkpoint(&store, "balances", 3)?;
    let context: InMemory = store.begin(&saved.name, Epoch::NONE).await?;
    UnitOfWork::<InMemory>::commit(&store, context, &saved, Epoch::NONE).await?;
    ensure_eq!(store.load_checkpoint(&saved.name).await?, None, "checkpoint of a read model in memory");
    store.save_checkpoint(&saved, Epoch::NONE).await?;
    let resumed = UnitOfWork::<InMemory>::resume(&store, &saved.name).await?;
    ensure_eq!(resumed, None, "checkpoint that a read model in memory resumes from");
    Ok(())
}
