//! `bank` without a command: what the bank can do, and that it holds under concurrency.

use crate::output::{Failure, note, say};
use crate::{Exit, balances, history};
use eventcore::{
    Backend, CommandContext, CommandError, CommandExecutor, EventFilter, MaxAttempts, ProjectionConfig, RetryPolicy,
    StreamName, run_projection,
};
use eventcore_examples::bank::{
    AccountId, Balance, Balances, BankError, BankEvent, Booking, Deposit, Money, OpenAccount, Overdraft, Owner,
    TransferId, TransferMoney,
};
use eventcore_examples::{StoreUrl, connect};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::task::JoinSet;

const CUSTOMERS: [(&str, &str); 8] = [
    ("alice", "Alice"),
    ("bob", "Bob"),
    ("carol", "Carol"),
    ("dave", "Dave"),
    ("erin", "Erin"),
    ("frank", "Frank"),
    ("grace", "Grace"),
    ("heidi", "Heidi"),
];
/// What every account is given at the beginning, in minor units.
const DEPOSIT: u64 = 100_000;
/// The largest transfer, in minor units.
const MAX_TRANSFER: u64 = 60_000;
/// How many tasks transfer money at the same time, and how often each does.
const TASKS: usize = 8;
const TRANSFERS_PER_TASK: usize = 50;
/// How much of the account's history is shown, in events.
const HISTORY: usize = 12;

/// Runs on the store that was asked for, or on a temporary one that is removed at the end.
pub(crate) async fn run(store: Option<StoreUrl>) -> Result<Exit, Failure> {
    let directory;
    let (url, kept) = match store {
        Some(url) => (url, true),
        None => {
            directory = tempfile::tempdir()?;
            (StoreUrl::Sqlite(directory.path().join("bank.db")), false)
        }
    };
    let backend = connect(&url).await?;
    say(&format!("store: {url}{}", if kept { "" } else { " (temporary; --store sqlite:PATH keeps it)" }))?;
    let balanced = show(&backend).await;
    backend.close().await?;
    if balanced? {
        return Ok(Exit::Success);
    }
    note("bank: the balances do not add up");
    Ok(Exit::Failure)
}

async fn show(backend: &Arc<dyn Backend>) -> Result<bool, Failure> {
    let accounts = CUSTOMERS.iter().map(|(id, _)| id.parse()).collect::<Result<Vec<AccountId>, _>>()?;
    let before = project(backend, &accounts).await?.total();
    let deposited = open_accounts(backend, &accounts).await?;
    say(&format!("opened {} accounts and deposited {deposited} in all", accounts.len()))?;

    let tally = transfer_concurrently(backend, &accounts).await?;
    say(&format!(
        "{TASKS} tasks asked for {} transfers at the same time: {} done, {} refused for lack of money; \
         {} were decided again because an account had changed in between",
        TASKS * TRANSFERS_PER_TASK,
        tally.done,
        tally.refused,
        tally.retried
    ))?;

    let after = project(backend, &accounts).await?;
    say("\nbalances, from a projection of the log:")?;
    balances::print(&after)?;
    if let Some(account) = accounts.first() {
        show_history(backend, account).await?;
    }

    let expected = before + deposited;
    let balanced = after.total() == expected;
    let verdict = if balanced { "no money was made or lost" } else { "MONEY WAS MADE OR LOST" };
    say(&format!("\ncheck: {expected} was paid in, the accounts hold {}: {verdict}", after.total()))?;
    Ok(balanced)
}

/// Opens the accounts that are not open yet, and puts money into all of them.
async fn open_accounts(backend: &Arc<dyn Backend>, accounts: &[AccountId]) -> Result<Balance, Failure> {
    let executor = CommandExecutor::new(backend);
    let amount = Money::try_new(DEPOSIT)?;
    for (account, (_, name)) in accounts.iter().zip(CUSTOMERS) {
        let owner = Some(name.parse::<Owner>()?);
        let open = OpenAccount { account: account.clone(), owner, overdraft: Overdraft::None };
        match executor.execute(open).await {
            Ok(_) | Err(CommandError::Rejected(BankError::AlreadyOpen { .. })) => {}
            Err(error) => return Err(error.into()),
        }
        executor.execute(Deposit { account: account.clone(), booking: today(amount) }).await?;
    }
    Ok(accounts.iter().map(|_| Balance::from(amount)).sum())
}

/// What became of the transfers.
#[derive(Default)]
struct Tally {
    done: usize,
    refused: usize,
    retried: usize,
}

async fn transfer_concurrently(backend: &Arc<dyn Backend>, accounts: &[AccountId]) -> Result<Tally, Failure> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        tasks.spawn(transfer_some(Arc::clone(backend), accounts.to_vec()));
    }
    let mut total = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        let tally = tally??;
        total.done += tally.done;
        total.refused += tally.refused;
        total.retried += tally.retried;
    }
    Ok(total)
}

async fn transfer_some(backend: Arc<dyn Backend>, accounts: Vec<AccountId>) -> Result<Tally, Failure> {
    // So many transfers between so few accounts are in each other's way: it takes patience.
    let retry = RetryPolicy::default().max_attempts(MaxAttempts::try_new(1_000)?);
    let executor = CommandExecutor::new(backend).retry(retry);
    let mut tally = Tally::default();
    for _ in 0..TRANSFERS_PER_TASK {
        let from = fastrand::usize(..accounts.len());
        let to = (from + fastrand::usize(1..accounts.len())) % accounts.len();
        let (Some(from), Some(to)) = (accounts.get(from), accounts.get(to)) else { continue };
        let transfer = TransferId::generate();
        let context = CommandContext::new().command_id(transfer.command_id()?);
        let booking = today(Money::try_new(fastrand::u64(1..=MAX_TRANSFER))?);
        let command = TransferMoney { transfer, from: from.clone(), to: to.clone(), booking };
        match executor.execute_with(context, command).await {
            Ok(outcome) => {
                tally.done += 1;
                tally.retried += usize::from(outcome.attempts() > 1);
            }
            Err(CommandError::Rejected(BankError::InsufficientFunds { .. })) => tally.refused += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tally)
}

async fn project(backend: &Arc<dyn Backend>, accounts: &[AccountId]) -> Result<Balances, Failure> {
    let streams = accounts.iter().map(StreamName::stream_id).collect::<Result<Vec<_>, _>>()?;
    let balances = Balances::new(EventFilter::of::<BankEvent>().streams(streams));
    Ok(run_projection(balances, backend, ProjectionConfig::default()).await?.projector)
}

async fn show_history(backend: &Arc<dyn Backend>, account: &AccountId) -> Result<(), Failure> {
    let mut last = VecDeque::with_capacity(HISTORY);
    let events = history::each_line(backend, account, |line| {
        if last.len() == HISTORY {
            last.pop_front();
        }
        last.push_back(line);
        Ok(())
    })
    .await?;
    say(&format!("\nthe last {} of {events} events of {account}:", last.len()))?;
    last.iter().try_for_each(|line| say(line))
}

fn today(amount: Money) -> Booking {
    Booking::new(amount, chrono::Utc::now().date_naive())
}
