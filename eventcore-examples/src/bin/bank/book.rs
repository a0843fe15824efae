//! `bank open`, `deposit`, `withdraw` and `transfer`

use crate::Exit;
use crate::cli::{Details, Identity, Movement, Open, Transfer};
use crate::output::{Failure, say};
use eventcore::{Backend, CommandContext, CommandError, CommandExecutor, CommandLogic, ExecutionOutcome};
use eventcore_examples::bank::{BankError, Booking, Deposit, Money, OpenAccount, TransferId, TransferMoney, Withdraw};
use std::sync::Arc;

type Store = Arc<dyn Backend>;

pub(crate) async fn open(store: &Store, arguments: Open) -> Result<Exit, Failure> {
    let Open { account, owner, overdraft, identity } = arguments;
    let done = format!("opened {account}");
    report(&done, &execute(store, context(identity), OpenAccount { account, owner, overdraft }).await?)
}

pub(crate) async fn deposit(store: &Store, arguments: Movement) -> Result<Exit, Failure> {
    let Movement { account, amount, details, identity } = arguments;
    let done = format!("deposited {amount} into {account}");
    let command = Deposit { account, booking: booking(amount, details) };
    report(&done, &execute(store, context(identity), command).await?)
}

pub(crate) async fn withdraw(store: &Store, arguments: Movement) -> Result<Exit, Failure> {
    let Movement { account, amount, details, identity } = arguments;
    let done = format!("withdrew {amount} from {account}");
    let command = Withdraw { account, booking: booking(amount, details) };
    report(&done, &execute(store, context(identity), command).await?)
}

pub(crate) async fn transfer(store: &Store, arguments: Transfer) -> Result<Exit, Failure> {
    let Transfer { from, to, amount, details, id } = arguments;
    let transfer = id.unwrap_or_else(TransferId::generate);
    let done = format!("transferred {amount} from {from} to {to} (transfer {transfer})");
    let context = CommandContext::new().command_id(transfer.command_id()?);
    let command = TransferMoney { transfer, from, to, booking: booking(amount, details) };
    report(&done, &execute(store, context, command).await?)
}

fn context(identity: Identity) -> CommandContext {
    identity.command_id.map_or_else(CommandContext::new, |id| CommandContext::new().command_id(id))
}

fn booking(amount: Money, details: Details) -> Booking {
    let booked_on = details.date.unwrap_or_else(|| chrono::Utc::now().date_naive());
    Booking { amount, booked_on, text: details.text }
}

/// Executes a command; a refusal is told as it is, without the word that there was one.
async fn execute<C>(store: &Store, context: CommandContext, command: C) -> Result<ExecutionOutcome, Failure>
where
    C: CommandLogic<Error = BankError>,
{
    CommandExecutor::new(store).execute_with(context, command).await.map_err(|error| match error {
        CommandError::Rejected(refusal) => refusal.into(),
        error => error.into(),
    })
}

fn report(done: &str, outcome: &ExecutionOutcome) -> Result<Exit, Failure> {
    // What was done then may be another amount than what is asked for now.
    say(if outcome.replayed() { "a command of this id was done before; nothing happened now" } else { done })?;
    Ok(Exit::Success)
}
