//! Commands have one effect, however often they come.

use crate::Environment;
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    Appended, CommandClaim, EventFilter, EventStore, EventStoreError, ExpectedVersion, Fingerprint, Payload,
    ReadStreams, Receipt, StreamId, Timestamp,
};
use std::sync::Arc;

async fn receipt(store: &OpenStore, claim: &CommandClaim) -> Checked<Option<Receipt>> {
    let request = ReadStreams::new([])?.with_receipt_of(Some(claim.command_id.clone()));
    Ok(store.read_streams(request).await?.receipt)
}

fn is_receipt_of(receipt: Option<Receipt>, claim: &CommandClaim, appended: &Appended) -> Outcome {
    let expected = Receipt { claim: claim.clone(), events: appended.events.clone(), recorded_at: appended.recorded_at };
    ensure_eq!(receipt, Some(expected), "the receipt");
    Ok(())
}

/// A command that writes one event to a new stream.
async fn open(store: &OpenStore, claim: &CommandClaim, to: &StreamId) -> Result<Appended, EventStoreError> {
    match command(claim, &[(to, ExpectedVersion::NoStream)], vec![(to, happened().map_err(EventStoreError::storage)?)])
    {
        Ok(request) => store.append(request).await,
        Err(violation) => Err(EventStoreError::storage(violation)),
    }
}

pub(crate) async fn a_replay_answers_the_receipt_whatever_it_expects(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    let claim = claim("transfer-1", &[&a, &b])?;
    let expected = [(&a, ExpectedVersion::NoStream), (&b, ExpectedVersion::NoStream)];
    let first = store
        .append(command(&claim, &expected, vec![(&b, happened()?), (&a, happened()?), (&b, happened()?)])?)
        .await?;
    ensure!(!first.replayed, "the first execution is no replay");
    append(&store, &a, ExpectedVersion::Any, 2).await?;
    let head = store.head().await?;

    // The streams have moved on and the events are others: judged again it would conflict or be stored.
    let again = store.append(command(&claim, &expected, vec![(&a, happened()?)])?).await?;
    ensure_eq!(again, Appended { replayed: true, ..first.clone() }, "answer to the replay");
    let harmless = store.append(command(&claim, &[], vec![(&a, happened()?)])?).await?;
    ensure_eq!(harmless, Appended { replayed: true, ..first.clone() }, "answer to a replay that would not conflict");
    ensure_eq!(store.head().await?, head, "head after the replays");
    ensure_eq!(store.stream_version(&a).await?.get(), 3, "version of the stream after the replays");
    is_receipt_of(receipt(&store, &claim).await?, &claim, &first)
}

pub(crate) async fn the_receipt_comes_with_the_streams(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    let [known, unknown] = [claim("known", &[&a])?, claim("unknown", &[&a])?];
    let appended = open(&store, &known, &a).await?;
    let request =
        |claim: &CommandClaim| checked(ReadStreams::new([a.clone()])?.with_receipt_of(Some(claim.command_id.clone())));
    let read = store.read_streams(request(&known)?).await?;
    ensure_eq!(read.events.len(), 1, "events read with the receipt");
    is_receipt_of(read.receipt, &known, &appended)?;
    let to_decide =
        |claim: &CommandClaim| checked(ReadStreams::new([a.clone()])?.unless_executed(Some(claim.command_id.clone())));
    is_receipt_of(store.read_streams(to_decide(&known)?).await?.receipt, &known, &appended)?;
    let read = store.read_streams(to_decide(&unknown)?).await?;
    ensure_eq!((read.events.len(), read.versions.len()), (1, 1), "what an unknown command is decided on");
    ensure_eq!(store.read_streams(request(&unknown)?).await?.receipt, None, "receipt of an unknown command");
    let without = store.read_streams(ReadStreams::new([a.clone()])?).await?;
    ensure_eq!(without.receipt, None, "receipt that was not asked for");
    Ok(())
}

pub(crate) async fn a_command_without_events_leaves_a_receipt(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    let claim = claim("look", &[&a])?;
    let first = store.append(command(&claim, &[(&a, exactly(1)?)], vec![])?).await?;
    ensure_eq!((first.events.len(), first.replayed), (0, false), "events and replay of a command that does nothing");
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    let again = store.append(command(&claim, &[(&a, exactly(1)?)], vec![(&a, happened()?)])?).await?;
    ensure_eq!(again, Appended { replayed: true, ..first.clone() }, "answer to its replay");
    ensure_eq!(store.stream_version(&a).await?.get(), 2, "version of the stream it read");
    is_receipt_of(receipt(&store, &claim).await?, &claim, &first)
}

pub(crate) async fn a_command_without_events_is_still_judged(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    let claim = claim("look", &[&a])?;
    let answer = store.append(command(&claim, &[(&a, ExpectedVersion::NoStream)], vec![])?).await;
    ensure_matches!(answer, Err(EventStoreError::Conflict(_)), "an append without events, with a stale expectation");
    ensure_eq!(receipt(&store, &claim).await?, None, "receipt of a command that conflicted");
    Ok(())
}

pub(crate) async fn an_id_of_another_command_is_refused(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    let mine = claim("id", &[&a])?;
    let first = open(&store, &mine, &a).await?;
    let head = store.head().await?;
    let other_streams = claim("id", &[&b])?;
    let other_type = CommandClaim { fingerprint: Fingerprint::of("other-command", [&a]), ..mine.clone() };
    for other in [other_streams, other_type] {
        let answer = store.append(command(&other, &[], vec![(&b, happened()?)])?).await;
        ensure_matches!(
            answer,
            Err(EventStoreError::CommandIdReused { command_id }) if *command_id == mine.command_id,
            "another command under the same id"
        );
    }
    ensure_eq!((store.head().await?, store.stream_version(&b).await?.get()), (head, 0), "head and stream after that");
    is_receipt_of(receipt(&store, &mine).await?, &mine, &first)
}

pub(crate) async fn a_refused_command_leaves_no_receipt(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    append(&store, &a, ExpectedVersion::Any, 1).await?;
    let claim = claim("id", &[&a])?;
    let conflict = open(&store, &claim, &a).await;
    ensure_matches!(conflict, Err(EventStoreError::Conflict(_)), "a command that expects too much");
    let large = event_with(HAPPENED, Payload::binary(vec![7; 2 * 1024 * 1024]))?;
    let oversized = store.append(command(&claim, &[], vec![(&a, large)])?).await;
    ensure_matches!(oversized, Err(EventStoreError::EventTooLarge { .. }), "a command with an event of 2 MiB");
    ensure_eq!(receipt(&store, &claim).await?, None, "receipt after a conflict and an oversized event");
    let accepted = store.append(command(&claim, &[(&a, exactly(1)?)], vec![(&a, happened()?)])?).await?;
    ensure!(!accepted.replayed, "the first accepted execution is no replay");
    Ok(())
}

pub(crate) async fn racing_executions_of_one_command_have_one_effect(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for round in 0..15 {
        let a = stream(&format!("a-{round}"))?;
        let claim = claim(&format!("command-{round}"), &[&a])?;
        let racers = (0..4).map(|_| {
            let (store, a, claim) = (Arc::clone(&store), a.clone(), claim.clone());
            async move { Ok(store.append(command(&claim, &[], vec![(&a, happened()?), (&a, happened()?)])?).await?) }
        });
        let answers = together(racers).await?;
        let effects = answers.iter().filter(|answer| !answer.replayed).count();
        ensure_eq!(effects, 1, "executions that were no replay, of 4");
        let same = answers
            .iter()
            .all(|answer| answer.events == answers[0].events && answer.recorded_at == answers[0].recorded_at);
        ensure!(same, "executions of one command got different receipts");
        ensure_eq!(store.stream_version(&a).await?.get(), 2, "version of the stream of a command with two events");
    }
    Ok(())
}

pub(crate) async fn replays_beside_other_commands_are_told_apart(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let racers = (0..60).map(|n| {
        let store = Arc::clone(&store);
        async move {
            let own = stream(&format!("stream-{}", n % 12))?;
            let claim = claim(&format!("command-{}", n % 12), &[&own])?;
            Ok((n % 12, open(&store, &claim, &own).await?))
        }
    });
    let answers = together(racers).await?;
    for command in 0..12 {
        let of_command: Vec<_> = answers.iter().filter(|(n, _)| *n == command).map(|(_, answer)| answer).collect();
        let effects = of_command.iter().filter(|answer| !answer.replayed).count();
        ensure_eq!((of_command.len(), effects), (5, 1), "executions and effects of command {command}");
        let name = format!("stream-{command}");
        let own =
            of_command.iter().all(|answer| answer.events.len() == 1 && answer.events[0].stream_id.as_str() == name);
        ensure!(own, "command {command} got the receipt of another one");
    }
    let log = follow(&store, &EventFilter::all(), page_size(100)?, store.head().await?).await?;
    ensure_eq!(log.len(), 12, "events of 12 commands sent 5 times each");
    Ok(())
}

pub(crate) async fn command_ids_are_taken_exactly(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    let long = "c".repeat(254);
    let ids = ["id", "ID", "id_", "id%", "ïd", &format!("{long}1"), &format!("{long}2"), "日本", "a 'quoted' \"id\""];
    for (id, n) in ids.into_iter().zip(1..) {
        let answer = store.append(command(&claim(id, &[&a])?, &[], vec![(&a, happened()?)])?).await?;
        ensure_eq!((answer.replayed, answer.events[0].version.get()), (false, n), "first execution of command {id:?}");
    }
    for (id, n) in ids.into_iter().zip(1..) {
        let answer = store.append(command(&claim(id, &[&a])?, &[], vec![(&a, happened()?)])?).await?;
        ensure_eq!((answer.replayed, answer.events[0].version.get()), (true, n), "second execution of command {id:?}");
    }
    Ok(())
}

pub(crate) async fn pruned_receipts_are_forgotten(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let a = stream("a")?;
    let [old, new] = [claim("old", &[&a])?, claim("new", &[&a])?];
    let recorded_at = store.append(command(&old, &[], vec![(&a, happened()?)])?).await?.recorded_at;
    // The store's clock decides, so wait until it has moved on.
    let newer = eventually(|| async {
        let time = append(&store, &stream("clock")?, ExpectedVersion::Any, 1).await?.recorded_at;
        Ok((time > recorded_at).then_some(time))
    });
    let newer = newer.await?;
    store.append(command(&new, &[], vec![(&a, happened()?)])?).await?;

    ensure_eq!(store.prune_receipts(recorded_at).await?, 0, "receipts before the time of the first one");
    ensure!(receipt(&store, &old).await?.is_some(), "a receipt as old as the limit was forgotten");
    ensure_eq!(store.prune_receipts(newer).await?, 1, "receipts before the second one");
    ensure_eq!(receipt(&store, &old).await?, None, "the pruned receipt");
    ensure!(receipt(&store, &new).await?.is_some(), "a newer receipt was forgotten");
    let again = store.append(command(&old, &[], vec![(&a, happened()?)])?).await?;
    ensure_eq!((again.replayed, again.events[0].version.get()), (false, 3), "a pruned command, sent again");
    ensure_eq!(store.stream_version(&a).await?.get(), 3, "pruning touches no events");
    ensure_eq!(store.prune_receipts(Timestamp::from_micros(0)?).await?, 0, "receipts before 1970");
    Ok(())
}
