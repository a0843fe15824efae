//! Commands: no update lost, one effect per id, no effect lost or doubled when answers are.

use crate::Environment;
use crate::domain::{Deposit, Link, Money, Refusal, SumUp, Transfer, Withdraw, WithdrawJointly};
use crate::faults::{AppendFault, FaultyStore, ReadFault};
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq, ensure_matches};
use eventcore::{
    AppendRequest, CommandContext, CommandError, CommandExecutor, CommandId, CorrelationId, Event, EventId,
    EventMetadata, EventStore, EventStoreError, ExecutionOutcome, MaxAttempts, NewEvent, RetryPolicy, StreamId, UserId,
    execute,
};
use std::sync::Arc;
use std::time::Duration;

type Executed = Result<ExecutionOutcome, CommandError<Refusal>>;

/// So many attempts that contention alone does not end them. The first appends take their time, so that others read
/// before they are there.
fn persistent(env: &Environment, store: &OpenStore) -> Checked<CommandExecutor<FaultyStore<OpenStore>>> {
    let policy = RetryPolicy::default().max_attempts(MaxAttempts::try_new(10_000)?).cap(Duration::from_millis(5));
    let slow = FaultyStore::new(Arc::clone(store));
    slow.faults().of_appends(vec![AppendFault::Delayed(Duration::from_millis(1)); 3]);
    Ok(env.executor(slow).retry(policy))
}

fn by(id: &str) -> Checked<CommandContext> {
    Ok(CommandContext::new().command_id(CommandId::new(id)?))
}

async fn deposit(store: &OpenStore, account: &StreamId, amount: i64) -> Outcome {
    execute(store, Deposit { account: account.clone(), amount }).await?;
    Ok(())
}

/// An append of somebody else.
fn foreign(account: &StreamId, event: &Money) -> Checked<AppendRequest> {
    request(&[], vec![(account, NewEvent::encode(EventId::generate(), event, EventMetadata::empty())?)])
}

/// The changes of an account, in order.
async fn changes(store: &OpenStore, account: &StreamId) -> Checked<Vec<i64>> {
    let events = read(store, &[account]).await?.events;
    let decoded = events.into_iter().map(|event| event.decode::<Money>().map(|event| event.payload().change()));
    decoded.collect::<Result<_, _>>().map_err(|error| crate::ContractViolation::broken(error.to_string()))
}

async fn balance(store: &OpenStore, account: &StreamId) -> Checked<i64> {
    Ok(changes(store, account).await?.iter().sum())
}

pub(crate) async fn withdrawals_under_contention_never_overdraw(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, 20).await?;
    let executors = [persistent(env, &store)?, persistent(env, &store)?];
    let answers = together((0..6_usize).map(|task| {
        let (executor, account) = (executors[task % 2].clone(), account.clone());
        async move {
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.push(executor.execute(Withdraw { account: account.clone(), amount: 1 }).await);
            }
            Ok(answers)
        }
    }))
    .await?;
    let (accepted, refused): (Vec<_>, Vec<_>) = answers.into_iter().flatten().partition(Result::is_ok);
    ensure_eq!(
        (accepted.len(), refused.len()),
        (20, 10),
        "withdrawals of 1 accepted and refused, with a balance of 20"
    );
    for answer in refused {
        let expected = Refusal::InsufficientFunds { account: account.clone(), balance: 0, needed: 1 };
        ensure_matches!(answer, Err(CommandError::Rejected(refusal)) if *refusal == expected, "a refused withdrawal");
    }
    ensure_eq!(balance(&store, &account).await?, 0, "balance after all withdrawals");
    Ok(())
}

pub(crate) async fn transfers_make_and_lose_no_money(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let accounts = streams(&["account-0", "account-1", "account-2", "account-3"])?;
    for account in &accounts {
        deposit(&store, account, 50).await?;
    }
    let executors = [persistent(env, &store)?, persistent(env, &store)?];
    together((0..6_usize).map(|task| {
        let (executor, accounts) = (executors[task % 2].clone(), accounts.clone());
        async move {
            for round in 0..6 {
                let (from, to) =
                    (accounts[(task + round) % 4].clone(), accounts[(task * 3 + round * 2 + 1) % 4].clone());
                let amount = 7 * (round as i64 + 1);
                match executor.execute(Transfer { from, to, amount }).await {
                    Ok(_) | Err(CommandError::Rejected(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        }
    }))
    .await?;
    let events = read(&store, &accounts.iter().collect::<Vec<_>>()).await?.events;
    let mut balances = std::collections::BTreeMap::new();
    for event in events {
        let account = event.stream_id().clone();
        let change = Money::decode(event.event_type(), event.schema_version(), event.payload());
        let change = change.map_err(|error| crate::ContractViolation::broken(error.to_string()))?.change();
        let balance: &mut i64 = balances.entry(account).or_default();
        *balance += change;
        ensure!(*balance >= 0, "{} was overdrawn to {balance}", event.stream_id());
    }
    ensure_eq!(balances.values().sum::<i64>(), 200, "money in all accounts");
    Ok(())
}

pub(crate) async fn commands_that_read_each_other_do_not_both_withdraw(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    for round in 0..15 {
        let [a, b] = [stream(&format!("a-{round}"))?, stream(&format!("b-{round}"))?];
        deposit(&store, &a, 50).await?;
        deposit(&store, &b, 50).await?;
        let crossing = [(a.clone(), b.clone()), (b.clone(), a.clone())].map(|(account, other)| {
            let executor = persistent(env, &store);
            async move { Ok(executor?.execute(WithdrawJointly { account, other, amount: 80 }).await.is_ok()) }
        });
        let accepted = together(crossing).await?.into_iter().filter(|accepted| *accepted).count();
        ensure_eq!(accepted, 1, "withdrawals of 80 from two accounts that hold 100 together");
        let left = balance(&store, &a).await? + balance(&store, &b).await?;
        ensure_eq!(left, 20, "what is left in both accounts");
    }
    Ok(())
}

pub(crate) async fn a_replayed_withdrawal_answers_its_receipt(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, 100).await?;
    let withdraw = Withdraw { account: account.clone(), amount: 100 };
    let executor = env.executor(Arc::clone(&store));
    let first = executor.execute_with(by("withdrawal-1")?, withdraw.clone()).await?;
    ensure!(!first.replayed(), "the first execution is no replay");
    // The money is gone, by the command's own doing.
    let again = executor.execute_with(by("withdrawal-1")?, withdraw.clone()).await?;
    ensure!(again.replayed(), "the second execution is a replay");
    ensure_eq!(again.events(), first.events(), "where the events are");
    ensure_eq!(again.recorded_at(), first.recorded_at(), "when they were recorded");
    let other = executor.execute_with(by("withdrawal-2")?, withdraw).await;
    ensure_matches!(other, Err(CommandError::Rejected(_)), "another withdrawal");
    ensure_eq!(changes(&store, &account).await?, [100, -100], "changes of the account");
    Ok(())
}

pub(crate) async fn one_command_executed_at_once_has_one_effect(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [from, to] = [stream("from")?, stream("to")?];
    deposit(&store, &from, 100).await?;
    for round in 0..8 {
        let id = format!("transfer-{round}");
        let racers = (0..4).map(|_| {
            let (executor, context) = (persistent(env, &store), by(&id));
            let transfer = Transfer { from: from.clone(), to: to.clone(), amount: 10 };
            async move { Ok(executor?.execute_with(context?, transfer).await?) }
        });
        let outcomes = together(racers).await?;
        ensure_eq!(outcomes.iter().filter(|outcome| !outcome.replayed()).count(), 1, "executions that were no replay");
        let same = outcomes.iter().all(|outcome| outcome.events() == outcomes[0].events());
        ensure!(same, "executions of one command tell of different events");
    }
    ensure_eq!((balance(&store, &from).await?, balance(&store, &to).await?), (20, 80), "balances after 8 transfers");
    Ok(())
}

pub(crate) async fn a_rejected_command_leaves_nothing(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    let executor = env.executor(Arc::clone(&store));
    let withdraw = Withdraw { account: account.clone(), amount: 5 };
    let rejected = executor.execute_with(by("withdrawal")?, withdraw.clone()).await;
    ensure_matches!(rejected, Err(CommandError::Rejected(_)), "a withdrawal from an empty account");
    ensure_eq!(store.head().await?, None, "head after a rejection");
    // A rejection stores no receipt: the command may succeed later.
    deposit(&store, &account, 5).await?;
    let accepted = executor.execute_with(by("withdrawal")?, withdraw).await?;
    ensure!(!accepted.replayed(), "the first accepted execution is no replay");
    Ok(())
}

pub(crate) async fn a_decision_to_do_nothing_is_remembered_by_its_id(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let nothing = Deposit { account: stream("account")?, amount: 0 };
    let executor = env.executor(Arc::clone(&store));
    let without_id = executor.execute(nothing.clone()).await?;
    ensure_eq!((without_id.events().len(), without_id.recorded_at()), (0, None), "what is recorded without an id");
    let first = executor.execute_with(by("nothing")?, nothing.clone()).await?;
    ensure_eq!((first.replayed(), first.events().len()), (false, 0), "replay and events of the first execution");
    let again = executor.execute_with(by("nothing")?, nothing).await?;
    ensure_eq!((again.replayed(), again.recorded_at()), (true, first.recorded_at()), "replay and time of the second");
    ensure_eq!(store.head().await?, None, "head");
    Ok(())
}

pub(crate) async fn an_executed_id_is_not_used_for_another_command(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [a, b] = [stream("a")?, stream("b")?];
    let executor = env.executor(Arc::clone(&store));
    executor.execute_with(by("id")?, Deposit { account: a.clone(), amount: 5 }).await?;
    let other_type = executor.execute_with(by("id")?, Withdraw { account: a.clone(), amount: 5 }).await;
    ensure_matches!(other_type, Err(CommandError::Store(EventStoreError::CommandIdReused { .. })), "another command");
    let other_stream = executor.execute_with(by("id")?, Deposit { account: b.clone(), amount: 5 }).await;
    ensure_matches!(other_stream, Err(CommandError::Store(EventStoreError::CommandIdReused { .. })), "another stream");
    ensure_eq!((balance(&store, &a).await?, balance(&store, &b).await?), (5, 0), "balances");
    Ok(())
}

pub(crate) async fn discovered_streams_are_read_and_judged(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let chain = streams(&["chain-0", "chain-1", "chain-2", "chain-3"])?;
    for (link, amount) in chain.windows(2).zip(1..) {
        deposit(&store, &link[0], amount).await?;
        execute(&store, Link { from: link[0].clone(), to: link[1].clone() }).await?;
    }
    let outcome = execute(&store, SumUp { start: chain[0].clone() }).await?;
    ensure_eq!(outcome.version_of(&chain[3]).map(|v| v.get()), Some(1), "version of the stream found last");
    ensure_eq!(balance(&store, &chain[3]).await?, 6, "sum of all balances on the way");

    // A stream found on the way changes before the append: it is decided again.
    let faulty = FaultyStore::new(Arc::clone(&store));
    faulty.faults().of_appends([AppendFault::Preceded(foreign(&chain[1], &Money::Deposited { amount: 100 })?)]);
    let outcome = execute(&faulty, SumUp { start: chain[0].clone() }).await?;
    ensure_eq!(outcome.attempts(), 2, "decisions, when a discovered stream changed in between");
    ensure_eq!(changes(&store, &chain[3]).await?, [6, 112], "sums, the second one with what was deposited in between");
    Ok(())
}

pub(crate) async fn metadata_of_an_execution_is_stored_with_every_event(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [from, to] = [stream("from")?, stream("to")?];
    deposit(&store, &from, 5).await?;
    let more = EventMetadata::builder().value("channel", "web \u{0} é").build()?;
    let context =
        by("transfer-1")?.correlation(CorrelationId::new("conversation")?).user(UserId::new("alice")?).metadata(more);
    let executor = env.executor(Arc::clone(&store));
    executor.execute_with(context, Transfer { from: from.clone(), to: to.clone(), amount: 5 }).await?;
    let events = read(&store, &[&from, &to]).await?.events;
    ensure_eq!(events.len(), 3, "events");
    for event in &events[1..] {
        let metadata = event.metadata();
        ensure_eq!(metadata.correlation_id().map(|id| id.as_str()), Some("conversation"), "correlation id");
        ensure_eq!(metadata.causation_id().map(|id| id.as_str()), Some("transfer-1"), "causation id: the command");
        ensure_eq!(metadata.user_id().map(|id| id.as_str()), Some("alice"), "user");
        ensure_eq!(metadata.value("channel"), Some("web \u{0} é"), "further metadata");
    }
    ensure!(events[0].metadata().is_empty(), "an event of an execution without context has metadata");
    Ok(())
}

pub(crate) async fn the_outcome_tells_where_the_events_are(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [from, to] = [stream("from")?, stream("to")?];
    deposit(&store, &from, 5).await?;
    let outcome = execute(&store, Transfer { from: from.clone(), to: to.clone(), amount: 5 }).await?;
    let stored = read(&store, &[&from, &to]).await?.events.split_off(1);
    let stored: Vec<_> = stored.iter().map(|e| (e.stream_id(), e.version(), e.position())).collect();
    let told: Vec<_> = outcome.events().iter().map(|e| (&e.stream_id, e.version, e.position)).collect();
    ensure_eq!(told, stored, "streams, versions and positions");
    ensure_eq!(outcome.position(), store.head().await?, "position of the last event");
    ensure_eq!((outcome.attempts(), outcome.replayed()), (1, false), "decisions and replay");
    Ok(())
}

pub(crate) async fn a_conflict_is_decided_again_on_a_fresh_read(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, 100).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    let withdraw = Withdraw { account: account.clone(), amount: 60 };
    faulty.faults().of_appends([AppendFault::Preceded(foreign(&account, &Money::Withdrawn { amount: 10 })?)]);
    let outcome = execute(&faulty, withdraw.clone()).await?;
    ensure_eq!(
        (outcome.attempts(), outcome.version_of(&account).map(|v| v.get())),
        (2, Some(3)),
        "decisions and version"
    );

    deposit(&store, &account, 30).await?;
    faulty.faults().of_appends([AppendFault::Preceded(foreign(&account, &Money::Withdrawn { amount: 10 })?)]);
    let rejected = execute(&faulty, withdraw).await;
    let expected = Refusal::InsufficientFunds { account: account.clone(), balance: 50, needed: 60 };
    ensure_matches!(rejected, Err(CommandError::Rejected(refusal)) if *refusal == expected, "decided on what is left");
    Ok(())
}

pub(crate) async fn a_change_of_a_stream_only_read_is_decided_again(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let [account, other] = [stream("account")?, stream("other")?];
    deposit(&store, &account, 50).await?;
    deposit(&store, &other, 50).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    faulty.faults().of_appends([AppendFault::Preceded(foreign(&other, &Money::Withdrawn { amount: 40 })?)]);
    let answer = execute(&faulty, WithdrawJointly { account: account.clone(), other, amount: 80 }).await;
    let expected = Refusal::InsufficientFunds { account: account.clone(), balance: 60, needed: 80 };
    ensure_matches!(answer, Err(CommandError::Rejected(refusal)) if *refusal == expected, "decided on what is left");
    ensure_eq!(changes(&store, &account).await?, [50], "changes of the account");
    Ok(())
}

pub(crate) async fn a_conflict_at_the_last_attempt_is_told(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, 100).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    let rivals = (0..3).map(|_| Ok(AppendFault::Preceded(foreign(&account, &Money::Deposited { amount: 1 })?)));
    faulty.faults().of_appends(rivals.collect::<Checked<Vec<_>>>()?);
    let policy = RetryPolicy::default().max_attempts(MaxAttempts::try_new(3)?);
    let executor = env.executor(faulty).retry(policy);
    let answer = executor.execute(Withdraw { account: account.clone(), amount: 1 }).await;
    ensure_matches!(
        answer,
        Err(CommandError::Conflict { stream, attempts: 3, .. }) if *stream == account,
        "a rival at each of three attempts"
    );
    ensure_eq!(changes(&store, &account).await?, [100, 1, 1, 1], "changes of the account");
    Ok(())
}

/// Withdraws 10 of 100 through faults; whatever they are, it has to happen exactly once.
async fn withdraw_through(env: &Environment, faults: Vec<AppendFault>, context: CommandContext) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    deposit(&store, &account, 100).await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    let named = format!("{faults:?}");
    faulty.faults().of_appends(faults);
    let executor = env.executor(faulty.clone());
    let answer: Executed = executor.execute_with(context, Withdraw { account: account.clone(), amount: 10 }).await;
    let outcome = answer?;
    ensure!(faulty.faults().are_used_up(), "a planned fault did not happen: {named}");
    let events = read(&store, &[&account]).await?.events;
    let own: Vec<_> = events.iter().filter(|e| e.payload().bytes().as_ref() == br#"{"amount":10}"#).collect();
    ensure_eq!(own.len(), 1, "withdrawals after {named}");
    let places: Vec<_> = own.iter().map(|e| (e.version(), e.position())).collect();
    let told: Vec<_> = outcome.events().iter().map(|e| (e.version, e.position)).collect();
    ensure_eq!(told, places, "where the withdrawal is, after {named}");
    Ok(())
}

/// Lost answers and requests, one after the other and with rivals.
fn losses() -> Checked<Vec<Vec<AppendFault>>> {
    let account = stream("account")?;
    let deposited = || foreign(&account, &Money::Deposited { amount: 7 });
    Ok(vec![
        vec![AppendFault::AnswerLost],
        vec![AppendFault::RequestLost],
        vec![AppendFault::RequestLost, AppendFault::AnswerLost],
        vec![AppendFault::Unavailable, AppendFault::AnswerLost],
        vec![AppendFault::AnswerLost, AppendFault::Unavailable, AppendFault::RequestLost],
        vec![AppendFault::AnswerLostAndFollowed(deposited()?)],
        vec![AppendFault::RequestLost, AppendFault::Preceded(deposited()?), AppendFault::AnswerLost],
    ])
}

pub(crate) async fn commands_stored_together_neither_lose_nor_double(env: &Environment) -> Outcome {
    for faults in [vec![Vec::new()], losses()?].concat() {
        let store = env.fresh().await?;
        let account = stream("account")?;
        deposit(&store, &account, 20).await?;
        let faulty = FaultyStore::new(Arc::clone(&store));
        let named = format!("{faults:?}");
        let nothing_fails = faults.is_empty();
        // The first one takes its time, so that the others wait for it and are stored together.
        let delayed = AppendFault::Delayed(Duration::from_millis(5));
        let planned = [vec![delayed.clone()], faults].concat();
        faulty.faults().of_appends(if nothing_fails { vec![delayed; 20] } else { planned });
        let policy = RetryPolicy::default().max_attempts(MaxAttempts::try_new(10_000)?).cap(Duration::from_millis(5));
        let executor = CommandExecutor::new(faulty.clone()).retry(policy).state_cache(10);
        let told = together((0..6).map(|_| {
            let (executor, account) = (executor.clone(), account.clone());
            async move {
                let mut versions = Vec::new();
                for _ in 0..5 {
                    match executor.execute(Withdraw { account: account.clone(), amount: 1 }).await {
                        Ok(outcome) => versions.extend(outcome.events().iter().map(|event| event.version.get())),
                        Err(CommandError::Rejected(Refusal::InsufficientFunds { balance: 0, .. })) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(versions)
            }
        }))
        .await?;
        if nothing_fails {
            ensure!(!faulty.faults().are_used_up(), "20 withdrawals took 20 appends: none were stored together");
        } else {
            ensure!(faulty.faults().are_used_up(), "a planned fault did not happen: {named}");
        }
        let changes = changes(&store, &account).await?;
        let balances = changes.iter().scan(0, |balance, change| {
            *balance += change;
            Some(*balance)
        });
        ensure!(
            balances.into_iter().all(|balance| balance >= 0),
            "the account was overdrawn after {named}: {changes:?}"
        );
        let withdrawn = (1..).zip(&changes).filter(|(_, change)| **change == -1).map(|(version, _)| version);
        let mut told: Vec<u64> = told.concat();
        told.sort_unstable();
        ensure_eq!(
            told,
            withdrawn.collect::<Vec<u64>>(),
            "versions told of withdrawals, and those stored, after {named}"
        );
        let foreign = changes.iter().filter(|change| **change == 7).count();
        let least = if foreign == 0 { 20 } else { 0 };
        ensure!(told.len() >= least, "only {} of 20 withdrawals were accepted after {named}", told.len());
    }
    Ok(())
}

pub(crate) async fn lost_answers_without_an_id_neither_lose_nor_double(env: &Environment) -> Outcome {
    for faults in losses()? {
        withdraw_through(env, faults, CommandContext::new()).await?;
    }
    Ok(())
}

pub(crate) async fn lost_answers_with_an_id_neither_lose_nor_double(env: &Environment) -> Outcome {
    for faults in losses()? {
        withdraw_through(env, faults, by("withdrawal")?).await?;
    }
    Ok(())
}

pub(crate) async fn an_outcome_that_stays_unknown_is_told(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    faulty.faults().of_appends([AppendFault::AnswerLost, AppendFault::Unavailable, AppendFault::Unavailable]);
    let executor = env.executor(faulty).retry(RetryPolicy::default().max_attempts(MaxAttempts::try_new(3)?));
    let answer = executor.execute(Deposit { account: stream("account")?, amount: 5 }).await;
    ensure_matches!(answer, Err(CommandError::Store(EventStoreError::OutcomeUnknown { .. })), "an answer never found");
    Ok(())
}

pub(crate) async fn an_unavailable_store_is_tried_again(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let account = stream("account")?;
    let faulty = FaultyStore::new(Arc::clone(&store));
    faulty.faults().of_appends(vec![AppendFault::Unavailable; 3]);
    faulty.faults().of_reads(vec![ReadFault::Unavailable; 2]);
    let outcome = execute(&faulty, Deposit { account: account.clone(), amount: 5 }).await?;
    ensure!(faulty.faults().are_used_up(), "a planned fault did not happen");
    ensure_eq!(outcome.attempts(), 1, "decisions: a store that cannot be reached is no reason to decide again");
    ensure_eq!(changes(&store, &account).await?, [5], "changes of the account");

    faulty.faults().of_reads(vec![ReadFault::Unavailable; 3]);
    let executor = env.executor(faulty).retry(RetryPolicy::default().max_attempts(MaxAttempts::try_new(3)?));
    let answer = executor.execute(Deposit { account, amount: 5 }).await;
    ensure_matches!(answer, Err(CommandError::Store(EventStoreError::Unavailable { .. })), "a store out of reach");
    Ok(())
}
