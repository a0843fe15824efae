//! One leader for each projection.

use super::checkpoints::eventually_acquired;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use crate::{ContractViolation, Environment};
use eventcore::{Epoch, LeadershipError, ProjectorCoordinator};
use std::sync::Arc;

pub(crate) async fn a_second_leader_is_refused(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let projection = name("balances")?;
    let leader = store.acquire(&projection).await?;
    ensure_eq!(leader.name(), &projection, "name of the leadership");
    ensure!(leader.epoch() > Epoch::NONE, "the first epoch is {}", leader.epoch());
    ensure!(!leader.lost().is_cancelled(), "a fresh leadership is lost");
    let second = store.acquire(&projection).await;
    ensure_matches!(second, Err(LeadershipError::Busy { name }) if *name == projection, "a second leader");
    ensure!(!leader.lost().is_cancelled(), "the leadership was lost to a candidate that was refused");
    Ok(())
}

pub(crate) async fn other_projections_have_leaders_of_their_own(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut leaders = Vec::new();
    for projection in ["balances", "Balances", "balances_", "balances%", "über", "a/b", "..", &"x".repeat(255)] {
        leaders.push(store.acquire(&name(projection)?).await?);
    }
    for leader in &leaders {
        ensure_matches!(store.acquire(leader.name()).await, Err(LeadershipError::Busy { .. }), "a second leader");
    }
    Ok(())
}

pub(crate) async fn a_released_leadership_is_free_at_once_with_a_higher_epoch(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let projection = name("balances")?;
    let mut last = Epoch::NONE;
    for _ in 0..5 {
        let leader = store.acquire(&projection).await?;
        ensure!(leader.epoch() > last, "epoch {} after {last}", leader.epoch());
        last = leader.epoch();
        store.release(leader).await?;
    }
    Ok(())
}

pub(crate) async fn a_dropped_leadership_becomes_free(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut last = Epoch::NONE;
    for _ in 0..5 {
        let leader = eventually_acquired(&store, "balances").await?;
        ensure!(leader.epoch() > last, "epoch {} after {last}", leader.epoch());
        last = leader.epoch();
        drop(leader);
    }
    Ok(())
}

pub(crate) async fn of_racing_candidates_one_leads(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut last = Epoch::NONE;
    for round in 0..10 {
        let candidates = (0..8).map(|_| {
            let store = Arc::clone(&store);
            async move {
                match store.acquire(&name("balances")?).await {
                    Ok(leadership) => Ok(Some(leadership)),
                    Err(LeadershipError::Busy { .. }) => Ok(None),
                    Err(error) => Err(ContractViolation::from(error)),
                }
            }
        });
        let mut leaders: Vec<_> = together(candidates).await?.into_iter().flatten().collect();
        ensure_eq!(leaders.len(), 1, "leaders of 8 candidates in round {round}");
        let Some(leader) = leaders.pop() else { continue };
        ensure!(leader.epoch() > last, "epoch {} after {last}", leader.epoch());
        last = leader.epoch();
        store.release(leader).await?;
    }
    Ok(())
}
