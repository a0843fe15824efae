//! The bank on a store: receipts, many at once, read models.

use chrono::NaiveDate;
use eventcore::{
    CommandContext, CommandError, CommandExecutor, EventReader, ProjectionConfig, execute, run_projection,
};
use eventcore_examples::bank::{
    AccountId, Balances, BankError, Booking, DailyBalances, Deposit, OpenAccount, Overdraft, TransferId, TransferMoney,
    Withdraw,
};
use eventcore_memory::MemoryEventStore;
use std::sync::Arc;

pub(crate) fn id(text: &str) -> AccountId {
    text.parse().unwrap()
}

pub(crate) fn booking(amount: &str) -> Booking {
    Booking::new(amount.parse().unwrap(), NaiveDate::from_ymd_opt(2024, 5, 1).unwrap())
}

pub(crate) fn open(account: &str, overdraft: Overdraft) -> OpenAccount {
    OpenAccount { account: id(account), owner: None, overdraft }
}

pub(crate) fn deposit(account: &str, amount: &str) -> Deposit {
    Deposit { account: id(account), booking: booking(amount) }
}

pub(crate) fn withdraw(account: &str, amount: &str) -> Withdraw {
    Withdraw { account: id(account), booking: booking(amount) }
}

fn transfer(from: &str, to: &str, amount: &str) -> TransferMoney {
    TransferMoney { transfer: TransferId::generate(), from: id(from), to: id(to), booking: booking(amount) }
}

/// A bank in which alice has 100.00 and no overdraft, and bob nothing and an overdraft of 50.00.
async fn bank() -> MemoryEventStore {
    let store = MemoryEventStore::new();
    execute(&store, open("alice", Overdraft::None)).await.unwrap();
    execute(&store, open("bob", Overdraft::UpTo("50.00".parse().unwrap()))).await.unwrap();
    execute(&store, deposit("alice", "100.00")).await.unwrap();
    store
}

async fn balance(store: &MemoryEventStore, account: &str) -> String {
    let balances = run_projection(Balances::default(), store, ProjectionConfig::default()).await.unwrap().projector;
    balances.of(&id(account)).map_or_else(|| "none".to_owned(), |held| held.balance.to_string())
}

#[tokio::test]
async fn a_transfer_moves_money_in_both_accounts_at_once() {
    let store = bank().await;
    let outcome = execute(&store, transfer("alice", "bob", "60.00")).await.unwrap();
    assert_eq!(outcome.events().len(), 2);
    assert_eq!((balance(&store, "alice").await, balance(&store, "bob").await), ("40.00".into(), "60.00".into()));
}

#[tokio::test]
async fn a_withdrawal_asked_for_twice_answers_its_receipt_and_not_the_empty_account() {
    let store = bank().await;
    let executor = CommandExecutor::new(&store);
    let context = || CommandContext::new().command_id("w-1".parse().unwrap());
    let first = executor.execute_with(context(), withdraw("alice", "100.00")).await.unwrap();
    let second = executor.execute_with(context(), withdraw("alice", "100.00")).await.unwrap();
    assert_eq!((first.replayed(), second.replayed()), (false, true));
    assert_eq!(first.events(), second.events());
    assert_eq!(balance(&store, "alice").await, "0.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_account_emptied_by_many_at_once_is_never_overdrawn() {
    let store = bank().await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { execute(&store, transfer("alice", "bob", "7.00")).await })
        })
        .collect();
    let (mut done, mut short) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => done += 1,
            Err(CommandError::Rejected(BankError::InsufficientFunds { .. })) => short += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((done, short), (14, 6), "100.00 is enough for 14 transfers of 7.00");
    assert_eq!((balance(&store, "alice").await, balance(&store, "bob").await), ("2.00".into(), "98.00".into()));
}

#[tokio::test]
async fn daily_balances_go_by_the_day_of_the_booking() {
    let store = bank().await;
    let day = |day| NaiveDate::from_ymd_opt(2024, 4, day).unwrap();
    // The day before comes later: it counts for that day, and for all days after it.
    for (on, amount) in [(day(3), "5.00"), (day(2), "1.00"), (day(3), "0.50")] {
        execute(&store, Deposit { account: id("bob"), booking: Booking::new(amount.parse().unwrap(), on) })
            .await
            .unwrap();
    }
    let filter = eventcore::EventFilter::of::<eventcore_examples::bank::BankEvent>();
    let daily =
        run_projection(DailyBalances::new(filter), &store, ProjectionConfig::default()).await.unwrap().projector;
    let bob: Vec<_> = daily.of(&id("bob")).collect();
    assert_eq!(bob, [(day(2), "1.00".parse().unwrap()), (day(3), "6.50".parse().unwrap())]);
    assert_eq!(daily.accounts(), 2);
    assert_eq!(daily.total(), "106.50".parse().unwrap());
}

#[tokio::test]
async fn a_store_chosen_at_run_time_does_the_same() {
    let backend = eventcore_examples::connect(&eventcore_examples::StoreUrl::Memory).await.unwrap();
    execute(&backend, open("alice", Overdraft::None)).await.unwrap();
    execute(backend.as_ref(), deposit("alice", "1.00")).await.unwrap();
    let shared = Arc::clone(&backend);
    let page = shared.read_page(&eventcore::EventFilter::all(), None, eventcore::PageSize::default()).await.unwrap();
    assert_eq!(page.events.len(), 2);
}
