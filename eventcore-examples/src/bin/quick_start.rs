//! The quick start of the README, word for word.

use eventcore::{
    Command, CommandContext, CommandError, CommandExecutor, CommandId, CommandLogic, Event, EventStore, InMemory,
    NewEvents, ProjectionConfig, Projector, RecordedEvent, StreamId, StreamName, UserId, ValidationError, execute,
    require, run_projection,
};
use eventcore_sqlite::SqliteEventStore;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uuid::Uuid;

// What happens. Each variant is stored as an event type of its own, "bank.MoneyDeposited" with {"amount":..}.
#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
enum BankEvent {
    AccountOpened { owner: String },
    MoneyDeposited { amount: u64 },
    MoneyWithdrawn { amount: u64 },
}

// A domain type that names a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AccountId(Uuid);

impl StreamName for AccountId {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        StreamId::new(format!("account-{}", self.0))
    }
}

// What is known when a command decides; and, further below, a read model.
#[derive(Debug, Default)]
struct Balances(HashMap<StreamId, u64>);

impl Balances {
    fn of(&self, account: &AccountId) -> u64 {
        account.stream_id().ok().and_then(|stream| self.0.get(&stream).copied()).unwrap_or(0)
    }

    fn fold(&mut self, event: &RecordedEvent<BankEvent>) {
        let balance = self.0.entry(event.stream_id().clone()).or_default();
        match event.payload() {
            BankEvent::AccountOpened { .. } => {}
            BankEvent::MoneyDeposited { amount } => *balance += amount,
            BankEvent::MoneyWithdrawn { amount } => *balance -= amount,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("there is not enough money")]
    InsufficientFunds,
}

// A command names the streams it needs. It can append to these and to no others: anything else does not compile.
#[derive(Command)]
struct OpenAccount {
    #[stream]
    account: AccountId,
    owner: String,
    deposit: u64,
}

impl CommandLogic for OpenAccount {
    type Event = BankEvent;
    type State = ();
    type Error = std::convert::Infallible;

    fn apply(&self, _: &mut (), _: &RecordedEvent<BankEvent>) {}

    fn handle(&self, _: &(), streams: &OpenAccountStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new()
            .append(&streams.account, BankEvent::AccountOpened { owner: self.owner.clone() })
            .append(&streams.account, BankEvent::MoneyDeposited { amount: self.deposit }))
    }
}

// Two streams, read in one consistent read and written in one atomic append.
#[derive(Command)]
struct TransferMoney {
    #[stream]
    from: AccountId,
    #[stream]
    to: AccountId,
    amount: u64,
}

impl CommandLogic for TransferMoney {
    type Event = BankEvent;
    type State = Balances;
    type Error = TransferError;

    fn apply(&self, state: &mut Balances, event: &RecordedEvent<BankEvent>) {
        state.fold(event);
    }

    fn handle(&self, state: &Balances, streams: &TransferMoneyStreams) -> Result<NewEvents<Self>, TransferError> {
        require!(state.of(&self.from) >= self.amount, TransferError::InsufficientFunds);
        Ok(NewEvents::new()
            .append(&streams.from, BankEvent::MoneyWithdrawn { amount: self.amount })
            .append(&streams.to, BankEvent::MoneyDeposited { amount: self.amount }))
    }
}

// A read model in memory, folded from the whole log.
impl Projector for Balances {
    type Event = BankEvent;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "balances"
    }

    async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> {
        self.fold(event);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = SqliteEventStore::open("quick-start.db").await?;
    let (alice, bob) = (AccountId(Uuid::now_v7()), AccountId(Uuid::now_v7()));
    execute(&store, OpenAccount { account: alice.clone(), owner: "Alice".into(), deposit: 100 }).await?;
    execute(&store, OpenAccount { account: bob.clone(), owner: "Bob".into(), deposit: 0 }).await?;

    // With an id a command has one effect, however often and wherever it is sent.
    let executor = CommandExecutor::new(store.clone());
    let context = CommandContext::new()
        .command_id(CommandId::new(format!("rent-{}", Uuid::now_v7()))?)
        .user(UserId::new("alice")?);
    for replayed in [false, true] {
        let rent = TransferMoney { from: alice.clone(), to: bob.clone(), amount: 70 };
        let done = executor.execute_with(context.clone(), rent).await?;
        assert_eq!(done.replayed(), replayed);
    }

    // Errors are typed: the caller matches on them.
    let too_much = TransferMoney { from: alice.clone(), to: bob.clone(), amount: 31 };
    let refused = execute(&store, too_much).await;
    assert!(matches!(refused, Err(CommandError::Rejected(TransferError::InsufficientFunds))));

    // Reads to the end of the log; `.continuous().shutdown(token)` follows it until told to stop.
    let outcome = run_projection(Balances::default(), &store, ProjectionConfig::default()).await?;
    assert_eq!((outcome.projector.of(&alice), outcome.projector.of(&bob)), (30, 70));
    println!("alice has {}, bob has {}", outcome.projector.of(&alice), outcome.projector.of(&bob));

    // Whatever was answered is durable already; closing tidies up.
    store.close().await?;
    Ok(())
}
