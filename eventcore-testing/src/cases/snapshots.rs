//! Snapshots and cached states: whole snapshots are stored, and commands that begin from what was kept decide as if nothing
//! were.

use crate::Environment;
use crate::domain::{Balances, Deposit, Money, Refusal, SumUp, Transfer, Withdraw};
use crate::faults::{FaultyStore, SnapshotFault};
use crate::fixtures::*;
use crate::harness::{OpenStore, StoreLimits};
use crate::violation::{ensure, ensure_eq, ensure_matches};
use bytes::Bytes;
use eventcore::{
    CommandContext, CommandError, CommandExecutor, CommandId, EventId, EventStore, EventStoreError, FoldedStream,
    GlobalPosition, RecordedEvent, Snapshot, SnapshotKey, SnapshotPolicy, SnapshotSchema, SnapshotStore, StreamId,
    Timestamp, execute,
};
use std::sync::Arc;

fn key(name: &str) -> Checked<SnapshotKey> {
    Ok(SnapshotKey::new(name)?)
}

/// A snapshot under `name` that says `number` in each of its parts.
fn numbered(name: &str, number: u64) -> Checked<Snapshot> {
    Ok(Snapshot {
        key: key(name)?,
        schema: SnapshotSchema::from_uuid(EventId::generate().as_uuid()),
        streams: vec![FoldedStream {
            stream_id: stream(&format!("stream-{number}"))?,
            version: version(number)?,
            event_id: Some(EventId::generate()),
        }],
        position: GlobalPosition::try_new(number)?,
        payload: Bytes::from(format!("state {number}")),
        taken_at: Timestamp::from_micros(0)?,
    })
}

async fn stored(store: &(impl SnapshotStore + ?Sized), like: &Snapshot) -> Checked<Option<Snapshot>> {
    let found = store.load_snapshot(&like.key).await?;
    Ok(found.map(|found| Snapshot { taken_at: like.taken_at, ..found }))
}

/// Whether the snapshot stored under the key of `expected` is that one, apart from its time, which is the store's.
async fn is_stored(store: &OpenStore, expected: &Snapshot) -> Outcome {
    let found = stored(store, expected).await?;
    ensure_eq!(found.as_ref(), Some(expected), "the snapshot {}", expected.key);
    Ok(())
}

pub(crate) async fn a_snapshot_comes_back_as_saved(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let mut plain = numbered("state 'é' _%", 1)?;
    plain.payload = (0..=255).collect::<Vec<u8>>().into();
    plain.position = GlobalPosition::try_new(i64::MAX as u64)?;
    let mut several = numbered("several", 2)?;
    for (name, number) in [("тест \"1\"", 0), ("b\\", i64::MAX as u64)] {
        let event_id = (number > 0).then(EventId::generate);
        several.streams.push(FoldedStream { stream_id: stream(name)?, version: version(number)?, event_id });
    }
    several.payload = Bytes::new();
    let mut large = numbered("large", 3)?;
    large.payload = vec![7; 1024 * 1024].into();
    for snapshot in [&plain, &several, &large] {
        store.save_snapshot(snapshot).await?;
    }
    for snapshot in [&plain, &several, &large] {
        is_stored(&store, snapshot).await?;
    }
    ensure_eq!(store.load_snapshot(&key("unknown")?).await?, None, "a snapshot that was never saved");
    Ok(())
}

pub(crate) async fn a_later_snapshot_replaces_all_of_the_earlier(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    // The last one is of a store that was set back: it counts all the same.
    for number in [5, 9, 2] {
        let snapshot = numbered("state", number)?;
        store.save_snapshot(&snapshot).await?;
        is_stored(&store, &snapshot).await?;
    }
    Ok(())
}

pub(crate) async fn racing_snapshots_are_whole(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let all: Arc<Vec<Snapshot>> = Arc::new((1..=4).map(|number| numbered("state", number)).collect::<Checked<_>>()?);
    store.save_snapshot(&all[0]).await?;
    together((0..6).map(|task| {
        let (store, all) = (Arc::clone(&store), Arc::clone(&all));
        async move {
            for round in 0..20 {
                if task < 4 {
                    store.save_snapshot(&all[(task + round) % all.len()]).await?;
                    continue;
                }
                let found = stored(&store, &all[0]).await?;
                ensure!(found.as_ref().is_some_and(|found| all.contains(found)), "parts of several: {found:?}");
            }
            Ok(())
        }
    }))
    .await?;
    Ok(())
}

pub(crate) async fn snapshots_go_by_their_exact_key(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let all = ["state", "State", "stat_", "stat%", "état"].into_iter().zip(1..);
    let all = all.map(|(name, number)| numbered(name, number)).collect::<Checked<Vec<_>>>()?;
    for snapshot in &all {
        store.save_snapshot(snapshot).await?;
    }
    for snapshot in &all {
        is_stored(&store, snapshot).await?;
    }
    Ok(())
}

pub(crate) async fn a_deleted_snapshot_is_gone_and_others_stay(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [one, other] = [numbered("one", 1)?, numbered("other", 2)?];
    store.save_snapshot(&one).await?;
    store.save_snapshot(&other).await?;
    store.delete_snapshot(&one.key).await?;
    ensure_eq!(store.load_snapshot(&one.key).await?, None, "a deleted snapshot");
    is_stored(&store, &other).await?;
    store.delete_snapshot(&one.key).await?;
    store.save_snapshot(&one).await?;
    is_stored(&store, &one).await
}

pub(crate) async fn the_store_says_when_a_snapshot_was_taken(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let snapshot = numbered("state", 1)?;
    store.save_snapshot(&snapshot).await?;
    let taken_at = store.load_snapshot(&snapshot.key).await?.map(|stored| stored.taken_at);
    ensure!(taken_at > Some(Timestamp::from_micros(1_000_000_000_000_000)?), "time of the snapshot: {taken_at:?}");
    Ok(())
}

pub(crate) async fn old_snapshots_are_pruned(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let taken_at = |name: &'static str, number| {
        let store = &store;
        async move {
            let snapshot = numbered(name, number)?;
            store.save_snapshot(&snapshot).await?;
            let stored = store.load_snapshot(&snapshot.key).await?;
            stored.map(|stored| stored.taken_at).ok_or_else(|| crate::ContractViolation::broken("it is not stored"))
        }
    };
    let old = taken_at("old", 1).await?;
    // The store's clock decides, so wait until it has moved on.
    let new = eventually(|| async {
        let time = taken_at("new", 2).await?;
        Ok((time > old).then_some(time))
    });
    let new = new.await?;
    ensure_eq!(store.prune_snapshots(old).await?, 0, "snapshots before the time of the first one");
    ensure!(store.load_snapshot(&key("old")?).await?.is_some(), "a snapshot as old as the limit was deleted");
    ensure_eq!(store.prune_snapshots(new).await?, 1, "snapshots before the second one");
    ensure_eq!(store.load_snapshot(&key("old")?).await?, None, "the pruned snapshot");
    ensure!(store.load_snapshot(&key("new")?).await?.is_some(), "a newer snapshot was deleted");
    Ok(())
}

/// Every event a snapshot, also of several streams.
fn eager() -> SnapshotPolicy {
    SnapshotPolicy::every(1).up_to_streams(8)
}

fn snapshotting(store: &OpenStore) -> CommandExecutor<OpenStore> {
    CommandExecutor::new(Arc::clone(store)).snapshots(eager())
}

async fn facts(store: &OpenStore) -> Checked<Vec<(StreamId, u64, Bytes)>> {
    let all = streams(&["a", "b", "c"])?;
    let events = read(store, &all.iter().collect::<Vec<_>>()).await?.events;
    let fact = |e: &RecordedEvent| (e.stream_id().clone(), e.version().get(), e.payload().bytes().clone());
    Ok(events.iter().map(fact).collect())
}

/// Deposits, withdrawals, transfers and sums, some of which are rejected. The answers, as text.
async fn business(executor: &CommandExecutor<impl EventStore + 'static>) -> Checked<Vec<String>> {
    let [a, b, c] = [stream("a")?, stream("b")?, stream("c")?];
    let mut answers = Vec::new();
    let mut answer = |what: Result<eventcore::ExecutionOutcome, CommandError<Refusal>>| {
        answers.push(match what {
            Ok(outcome) => format!("{:?}", outcome.events().iter().map(|e| e.version.get()).collect::<Vec<_>>()),
            Err(error) => format!("{error:?}"),
        });
    };
    for round in 1..=4_i64 {
        let context = CommandContext::new().command_id(CommandId::new(format!("deposit-{round}"))?);
        let deposit = Deposit { account: a.clone(), amount: 10 * round };
        answer(executor.execute_with(context.clone(), deposit.clone()).await);
        executor.flush().await;
        answer(executor.execute_with(context, deposit).await);
        answer(executor.execute(Withdraw { account: a.clone(), amount: 13 }).await);
        executor.flush().await;
        answer(executor.execute(Transfer { from: a.clone(), to: b.clone(), amount: 9 }).await);
        executor.flush().await;
        answer(executor.execute(Transfer { from: b.clone(), to: a.clone(), amount: 4 }).await);
        answer(executor.execute(crate::domain::Link { from: b.clone(), to: c.clone() }).await);
        executor.flush().await;
        answer(executor.execute(SumUp { start: b.clone() }).await);
        executor.flush().await;
    }
    Ok(answers)
}

pub(crate) async fn commands_with_snapshots_decide_as_without(env: &Environment) -> Outcome {
    let [plain, kept] = [env.fresh().await?, env.fresh().await?];
    let expected = business(&CommandExecutor::new(Arc::clone(&plain))).await?;
    ensure_eq!(business(&snapshotting(&kept)).await?, expected, "answers");
    ensure_eq!(facts(&kept).await?, facts(&plain).await?, "events");
    Ok(())
}

pub(crate) async fn snapshots_that_are_lost_change_nothing(env: &Environment) -> Outcome {
    let plain = env.fresh().await?;
    let expected = business(&CommandExecutor::new(Arc::clone(&plain))).await?;
    for fault in [SnapshotFault::Lost, SnapshotFault::Unavailable] {
        let faulty = FaultyStore::new(env.fresh().await?);
        faulty.faults().of_snapshots((0..60).map(|n| if n % 3 == 0 { SnapshotFault::None } else { fault }));
        let executor = CommandExecutor::new(faulty.clone()).snapshots(eager());
        ensure_eq!(business(&executor).await?, expected, "answers with {fault:?}");
        ensure_eq!(facts(faulty.store()).await?, facts(&plain).await?, "events with {fault:?}");
    }
    Ok(())
}

pub(crate) async fn a_command_begins_from_a_snapshot_of_another_instance(env: &Environment) -> Outcome {
    // Reads are so limited that the whole stream cannot be read.
    let store = env.fresh_with(StoreLimits { max_read_events: 8, ..StoreLimits::default() }).await?;
    let account = stream("a")?;
    let executor = CommandExecutor::new(Arc::clone(&store)).snapshots(SnapshotPolicy::every(5));
    for amount in 1..=20 {
        executor.execute(Deposit { account: account.clone(), amount }).await?;
        executor.flush().await;
    }
    let plain = execute(&store, Withdraw { account: account.clone(), amount: 1 }).await;
    ensure_matches!(plain, Err(CommandError::Store(EventStoreError::ReadTooLarge { .. })), "a read of everything");
    let other = CommandExecutor::new(Arc::clone(&store)).snapshots(SnapshotPolicy::every(5));
    other.execute(Withdraw { account: account.clone(), amount: 200 }).await?;
    let rejected = other.execute(Withdraw { account: account.clone(), amount: 11 }).await;
    let expected = Refusal::InsufficientFunds { account, balance: 10, needed: 11 };
    ensure_matches!(rejected, Err(CommandError::Rejected(refusal)) if *refusal == expected, "decided on all events");
    executor.shut_down().await;
    Ok(())
}

pub(crate) async fn a_snapshot_of_no_use_is_passed_over(env: &Environment) -> Outcome {
    type Spoil = fn(&mut Snapshot, &Snapshot);
    let spoilt: [(&str, Spoil); 9] = [
        ("a flipped bit", |s, _| {
            let mut bytes = s.payload.to_vec();
            bytes.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
            s.payload = bytes.into();
        }),
        ("no bytes", |s, _| s.payload = Bytes::new()),
        ("cut off", |s, _| s.payload.truncate(s.payload.len() - 1)),
        ("an older payload under the right version", |s, older| s.payload = older.payload.clone()),
        ("the right payload under an older version", |s, older| s.streams = older.streams.clone()),
        ("another schema", |s, _| s.schema = SnapshotSchema::from_uuid(EventId::generate().as_uuid())),
        ("another event", |s, _| s.streams[0].event_id = Some(EventId::generate())),
        ("ahead of the stream", |s, _| s.streams[0].version = s.streams[0].version.plus(5).unwrap_or_default()),
        ("no streams", |s, _| s.streams.clear()),
    ];
    for (what, spoil) in spoilt {
        let store = env.fresh().await?;
        let account = stream("a")?;
        let executor = snapshotting(&store);
        let of = SnapshotKey::of_command(&Deposit { account: account.clone(), amount: 1 })?;
        let of = of.ok_or_else(|| crate::ContractViolation::broken("the command has no snapshots"))?;
        let mut taken = Vec::new();
        for amount in [10, 20] {
            executor.execute(Deposit { account: account.clone(), amount }).await?;
            executor.flush().await;
            taken.extend(store.load_snapshot(&of).await?);
        }
        ensure_eq!(taken.len(), 2, "snapshots taken");
        let mut snapshot = taken[1].clone();
        spoil(&mut snapshot, &taken[0]);
        store.save_snapshot(&snapshot).await?;
        let rejected = executor.execute(Withdraw { account: account.clone(), amount: 31 }).await;
        let expected = Refusal::InsufficientFunds { account: account.clone(), balance: 30, needed: 31 };
        ensure_matches!(rejected, Err(CommandError::Rejected(refusal)) if *refusal == expected, "{what}");
        executor.flush().await;
        let outcome = executor.execute(Withdraw { account: account.clone(), amount: 30 }).await?;
        ensure_eq!(outcome.version_of(&account).map(|v| v.get()), Some(3), "{what}: the version after it");
        // It has been replaced by one that is of use.
        executor.flush().await;
        let replaced = store.load_snapshot(&of).await?.map(|snapshot| snapshot.streams[0].version.get());
        ensure_eq!(replaced, Some(3), "{what}: the version of the snapshot after it");
    }
    Ok(())
}

pub(crate) async fn a_snapshot_of_a_store_set_back_is_noticed(env: &Environment) -> Outcome {
    let [before, after] = [env.fresh().await?, env.fresh().await?];
    let account = stream("a")?;
    let executor = snapshotting(&before);
    for amount in [10, 20, 30] {
        executor.execute(Deposit { account: account.clone(), amount }).await?;
    }
    executor.flush().await;
    let of = SnapshotKey::of_command(&Deposit { account: account.clone(), amount: 1 })?;
    let of = of.ok_or_else(|| crate::ContractViolation::broken("the command has no snapshots"))?;
    let snapshot = before.load_snapshot(&of).await?;
    let snapshot = snapshot.ok_or_else(|| crate::ContractViolation::broken("no snapshot was taken"))?;
    // A log with another history, at first shorter than the snapshot, then as long, then longer.
    for amount in 1..=5 {
        execute(&after, Deposit { account: account.clone(), amount }).await?;
        after.save_snapshot(&snapshot).await?;
        let rejected = snapshotting(&after).execute(Withdraw { account: account.clone(), amount: 100 }).await;
        let balance = (1..=amount).sum();
        let expected = Refusal::InsufficientFunds { account: account.clone(), balance, needed: 100 };
        ensure_matches!(rejected, Err(CommandError::Rejected(refusal)) if *refusal == expected, "decided on this log");
    }
    Ok(())
}

pub(crate) async fn commands_under_contention_begin_from_snapshots_and_lose_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("a")?;
    execute(&store, Deposit { account: account.clone(), amount: 30 }).await?;
    let tasks = (0..5).map(|_| {
        // Reads and appends give way to each other.
        let executor = CommandExecutor::new(FaultyStore::new(Arc::clone(&store)))
            .retry(eventcore::RetryPolicy::default().cap(std::time::Duration::from_millis(5)))
            .snapshots(SnapshotPolicy::every(3));
        let account = account.clone();
        async move {
            let mut accepted = 0;
            for _ in 0..8 {
                match executor.execute(Withdraw { account: account.clone(), amount: 1 }).await {
                    Ok(_) => accepted += 1,
                    Err(CommandError::Rejected(_) | CommandError::Conflict { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            executor.shut_down().await;
            Ok(accepted)
        }
    });
    let accepted: i64 = together(tasks).await?.into_iter().sum();
    let events = read(&store, &[&account]).await?.events;
    ensure_eq!(events.len() as i64, 1 + accepted, "events after {accepted} withdrawals");
    ensure!(accepted <= 30, "{accepted} withdrawals of 30");
    // What was stored in the end is right: a command that begins from it decides as one that reads everything.
    let needed = 1_000;
    let answer = snapshotting(&store).execute(Withdraw { account: account.clone(), amount: needed }).await;
    let mut balances = Balances::default();
    for event in events {
        let event = event.decode::<Money>().map_err(|error| crate::ContractViolation::broken(error.to_string()))?;
        eventcore::StreamState::apply(&mut balances, &event);
    }
    let expected = Refusal::InsufficientFunds { account: account.clone(), balance: balances.of(&account), needed };
    ensure_matches!(answer, Err(CommandError::Rejected(refusal)) if *refusal == expected, "decided on all events");
    Ok(())
}

pub(crate) async fn commands_with_a_state_cache_decide_as_without(env: &Environment) -> Outcome {
    let plain = env.fresh().await?;
    let expected = business(&CommandExecutor::new(Arc::clone(&plain))).await?;
    for states in [1, 4, 100] {
        let cached = env.fresh().await?;
        let executor = CommandExecutor::new(Arc::clone(&cached)).state_cache(states);
        ensure_eq!(business(&executor).await?, expected, "answers with {states} states cached");
        ensure_eq!(facts(&cached).await?, facts(&plain).await?, "events with {states} states cached");
        let both = CommandExecutor::new(env.fresh().await?).state_cache(states).snapshots(eager());
        ensure_eq!(business(&both).await?, expected, "answers with {states} states cached and snapshots");
    }
    Ok(())
}

pub(crate) async fn a_cached_state_that_is_out_of_date_is_never_answered(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("a")?;
    let executor = CommandExecutor::new(Arc::clone(&store)).state_cache(10);
    executor.execute(Deposit { account: account.clone(), amount: 10 }).await?;
    // Somebody else makes possible what the cached state would reject, and impossible what it would accept.
    execute(&store, Deposit { account: account.clone(), amount: 90 }).await?;
    let outcome = executor.execute(Withdraw { account: account.clone(), amount: 100 }).await?;
    ensure_eq!((outcome.attempts(), outcome.version_of(&account).map(|v| v.get())), (1, Some(3)), "decisions, version");
    executor.execute(Deposit { account: account.clone(), amount: 50 }).await?;
    execute(&store, Withdraw { account: account.clone(), amount: 50 }).await?;
    let rejected = executor.execute(Withdraw { account: account.clone(), amount: 50 }).await;
    let expected = Refusal::InsufficientFunds { account, balance: 0, needed: 50 };
    ensure_matches!(rejected, Err(CommandError::Rejected(refusal)) if *refusal == expected, "decided on what is left");
    Ok(())
}

pub(crate) async fn a_replay_on_a_cached_state_answers_its_receipt(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("a")?;
    let executor = CommandExecutor::new(Arc::clone(&store)).state_cache(10);
    executor.execute(Deposit { account: account.clone(), amount: 100 }).await?;
    // One of which the cached state would accept another, one that it would reject.
    for amount in [30, 60] {
        let context = CommandContext::new().command_id(CommandId::new(format!("withdrawal of {amount}"))?);
        let withdraw = Withdraw { account: account.clone(), amount };
        let first = executor.execute_with(context.clone(), withdraw.clone()).await?;
        let again = executor.execute_with(context.clone(), withdraw).await?;
        ensure_eq!((first.replayed(), again.replayed()), (false, true), "replays");
        ensure_eq!(again.events(), first.events(), "where the events are");
        let other = executor.execute_with(context, Deposit { account: account.clone(), amount }).await;
        ensure_matches!(other, Err(CommandError::Store(EventStoreError::CommandIdReused { .. })), "another command");
    }
    ensure_eq!(store.stream_version(&account).await?.get(), 3, "version of the account");
    Ok(())
}

pub(crate) async fn withdrawals_with_state_caches_never_overdraw(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("a")?;
    execute(&store, Deposit { account: account.clone(), amount: 20 }).await?;
    let retry = eventcore::RetryPolicy::default()
        .max_attempts(eventcore::MaxAttempts::try_new(10_000)?)
        .cap(std::time::Duration::from_millis(5));
    // As two processes with three tasks each.
    let executors: Vec<_> = (0..2)
        .map(|_| CommandExecutor::new(FaultyStore::new(Arc::clone(&store))).retry(retry).state_cache(10))
        .collect();
    let answers = together((0..6).map(|task| {
        let (executor, account) = (executors[task % 2].clone(), account.clone());
        async move {
            let mut accepted = 0;
            for _ in 0..5 {
                match executor.execute(Withdraw { account: account.clone(), amount: 1 }).await {
                    Ok(_) => accepted += 1,
                    Err(CommandError::Rejected(Refusal::InsufficientFunds { balance: 0, .. })) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(accepted)
        }
    }))
    .await?;
    ensure_eq!(answers.iter().sum::<i64>(), 20, "withdrawals of 1 accepted, with a balance of 20");
    ensure_eq!(store.stream_version(&account).await?.get(), 21, "version of the account");
    Ok(())
}
