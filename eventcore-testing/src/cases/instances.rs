//! Several instances on one log.

use super::checkpoints::{checkpoint, eventually_acquired};
use crate::Environment;
use crate::fixtures::*;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    CheckpointError, CheckpointStore, EventFilter, EventReader, EventStore, ExpectedVersion, LeadershipError,
    ProjectorCoordinator,
};
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn instances_read_what_the_other_wrote(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let [one, two] = [place.open().await?, place.open().await?];
    let a = stream("a")?;
    ensure_eq!(one.lineage(), two.lineage(), "identity of one log");
    for round in 0..5 {
        let (writer, reader) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        let appended = append(writer, &a, exactly(round)?, 1).await?;
        ensure_eq!(reader.stream_version(&a).await?.get(), round + 1, "version that the other instance sees");
        ensure_eq!(reader.head().await?, Some(appended.events[0].position), "head that the other instance sees");
    }
    let log = follow(&two, &EventFilter::all(), page_size(2)?, one.head().await?).await?;
    ensure_eq!(log.len(), 5, "events that one instance reads");
    Ok(())
}

pub(crate) async fn instances_conflict_with_each_other(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let instances = [place.open().await?, place.open().await?];
    for round in 0..20 {
        let [a, b] = [stream(&format!("a-{round}"))?, stream(&format!("b-{round}"))?];
        let crossing = instances.iter().zip([(a.clone(), b.clone()), (b, a)]).map(|(store, (written, read_only))| {
            let store = Arc::clone(store);
            async move {
                let expected = [(&read_only, ExpectedVersion::NoStream), (&written, ExpectedVersion::NoStream)];
                Ok(store.append(request(&expected, vec![(&written, happened()?)])?).await.is_ok())
            }
        });
        let won = together(crossing).await?.into_iter().filter(|won| *won).count();
        ensure_eq!(won, 1, "commits of (read b, write a) beside (read a, write b) on two instances");
    }
    Ok(())
}

pub(crate) async fn a_command_on_two_instances_has_one_effect(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let instances = [place.open().await?, place.open().await?];
    let a = stream("a")?;
    for round in 0..15 {
        let claim = claim(&format!("command-{round}"), &[&a])?;
        let racers = instances.iter().map(|store| {
            let (store, a, claim) = (Arc::clone(store), a.clone(), claim.clone());
            async move { Ok(store.append(command(&claim, &[], vec![(&a, happened()?)])?).await?) }
        });
        let answers = together(racers).await?;
        ensure_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1, "executions that were no replay");
        ensure_eq!(answers[0].events, answers[1].events, "receipts of the two instances");
    }
    ensure_eq!(instances[0].stream_version(&a).await?.get(), 15, "events of 15 commands");
    Ok(())
}

pub(crate) async fn a_follower_sees_the_writers_of_other_instances(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let instances = [place.open().await?, place.open().await?];
    let (end, until) = tokio::sync::watch::channel(None);
    let reading = place.open().await?;
    let follower = tokio::spawn(async move {
        let mut follower = Follower::new(&reading, &EventFilter::all(), page_size(5)?);
        while until.borrow().is_none() || follower.position < *until.borrow() {
            ensure!(until.has_changed().is_ok(), "the writers failed");
            follower.turn().await?;
        }
        checked(follower.events)
    });
    let writers = (0..6_usize).map(|writer| {
        let store = Arc::clone(&instances[writer % 2]);
        async move {
            let mut written = Vec::new();
            for round in 0..10 {
                let own = stream(&format!("s-{}", (writer + round) % 4))?;
                written.extend(
                    append(&store, &own, ExpectedVersion::Any, 2).await?.events.into_iter().map(|e| e.position),
                );
            }
            Ok(written)
        }
    });
    let mut written: Vec<_> = together(writers).await?.into_iter().flatten().collect();
    written.sort_unstable();
    end.send_replace(instances[0].head().await?);
    let seen: Vec<_> = follower.await??.iter().map(|e| e.position()).collect();
    let missed = written.iter().filter(|position| !seen.contains(position)).count();
    ensure_eq!((missed, seen.len()), (0, written.len()), "events missed, and events seen");
    Ok(())
}

pub(crate) async fn an_append_wakes_followers_of_other_instances(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let [writer, reader] = [place.open().await?, place.open().await?];
    for round in 0..3 {
        let mut watch = reader.watch_log();
        append(&writer, &stream("a")?, ExpectedVersion::Any, 1).await?;
        let woken = tokio::time::timeout(Duration::from_secs(120), watch.changed()).await;
        ensure_matches!(woken, Ok(Ok(())), "a follower of another instance, after append {round}");
    }
    Ok(())
}

pub(crate) async fn instances_share_leadership_and_epochs(env: &Environment) -> Outcome {
    let place = env.place().await?;
    let [one, two] = [place.open().await?, place.open().await?];
    let leader = one.acquire(&name("balances")?).await?;
    let second = two.acquire(leader.name()).await;
    ensure_matches!(second, Err(LeadershipError::Busy { .. }), "a leader on another instance");
    let saved = checkpoint(&one, "balances", 3)?;
    one.save_checkpoint(&saved, leader.epoch()).await?;
    let old = leader.epoch();
    one.release(leader).await?;

    let successor = eventually_acquired(&two, "balances").await?;
    ensure!(successor.epoch() > old, "epoch {} after {old}", successor.epoch());
    let loaded = two.load_checkpoint(successor.name()).await?.and_then(|c| c.cursor);
    ensure_eq!(loaded, saved.cursor, "checkpoint that the successor resumes from");
    let fenced = one.save_checkpoint(&saved, old).await;
    ensure_matches!(fenced, Err(CheckpointError::Fenced { .. }), "a save of the old leader");
    Ok(())
}
