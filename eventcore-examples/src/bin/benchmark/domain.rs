//! What is measured: a ledger whose entries are about 180 bytes of JSON.

use eventcore::{
    Command, CommandLogic, Event, NewEvents, Projector, RecordedEvent, StateFold, StreamId, StreamName, StreamState,
    ValidationError, require,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use thiserror::Error;

/// The stored name of a deposit, for rows that are written by hand.
pub(crate) const DEPOSITED: &str = "ledger.Deposited";

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(namespace = "ledger")]
pub(crate) enum LedgerEvent {
    Deposited(Entry),
    Withdrawn(Entry),
}

impl LedgerEvent {
    pub(crate) fn entry(&self) -> &Entry {
        match self {
            Self::Deposited(entry) | Self::Withdrawn(entry) => entry,
        }
    }

    pub(crate) fn change(&self) -> i64 {
        match self {
            Self::Deposited(entry) => entry.amount,
            Self::Withdrawn(entry) => -entry.amount,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) account: u32,
    pub(crate) amount: i64,
    pub(crate) booked_on: u32,
    pub(crate) reference: String,
    pub(crate) text: String,
}

impl Entry {
    pub(crate) fn new(account: Account, amount: i64) -> Self {
        Self {
            account: account.0,
            amount,
            booked_on: 20_261_121,
            reference: format!("{:016x}-{:08}", fastrand::u64(..), account.0),
            text: "standing order for the rent of a flat, paid on the first day of the month".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Account(pub(crate) u32);

impl StreamName for Account {
    fn stream_id(&self) -> Result<StreamId, ValidationError> {
        StreamId::new(format!("account-{:07}", self.0))
    }
}

/// A deposit: the single-stream command.
#[derive(Command)]
pub(crate) struct Deposit {
    #[stream]
    pub(crate) account: Account,
    pub(crate) amount: i64,
}

/// The balance of one account.
#[derive(Debug, Default, Clone)]
pub(crate) struct Balance(i64);

impl StreamState for Balance {
    type Event = LedgerEvent;

    fn apply(&mut self, event: &RecordedEvent<LedgerEvent>) {
        self.0 += event.payload().change();
    }
}

impl CommandLogic for Deposit {
    type Event = LedgerEvent;
    type State = Balance;
    type Error = Infallible;

    fn apply(&self, balance: &mut Balance, event: &RecordedEvent<LedgerEvent>) {
        StreamState::apply(balance, event);
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::by_state().timeless()
    }

    fn handle(&self, _: &Balance, streams: &DepositStreams) -> Result<NewEvents<Self>, Infallible> {
        Ok(NewEvents::new().append(&streams.account, LedgerEvent::Deposited(Entry::new(self.account, self.amount))))
    }
}

/// A transfer: the two-stream command.
#[derive(Command)]
pub(crate) struct Transfer {
    #[stream]
    pub(crate) from: Account,
    #[stream]
    pub(crate) to: Account,
    pub(crate) amount: i64,
}

#[derive(Debug, Error)]
#[error("insufficient funds")]
pub(crate) struct InsufficientFunds;

/// The balances of both sides.
#[derive(Debug, Default)]
pub(crate) struct Sides {
    from: i64,
}

impl CommandLogic for Transfer {
    type Event = LedgerEvent;
    type State = Sides;
    type Error = InsufficientFunds;

    fn apply(&self, sides: &mut Sides, event: &RecordedEvent<LedgerEvent>) {
        if event.payload().entry().account == self.from.0 {
            sides.from += event.payload().change();
        }
    }

    fn handle(&self, sides: &Sides, streams: &TransferStreams) -> Result<NewEvents<Self>, InsufficientFunds> {
        require!(sides.from >= self.amount, InsufficientFunds);
        Ok(NewEvents::new()
            .append(&streams.from, LedgerEvent::Withdrawn(Entry::new(self.from, self.amount)))
            .append(&streams.to, LedgerEvent::Deposited(Entry::new(self.to, self.amount))))
    }
}

/// Loads an account and decides nothing: what reading and folding one stream costs.
#[derive(Command)]
pub(crate) struct Inspect {
    #[stream]
    pub(crate) account: Account,
    pub(crate) seen: Arc<AtomicI64>,
}

impl CommandLogic for Inspect {
    type Event = LedgerEvent;
    type State = i64;
    type Error = Infallible;

    fn apply(&self, balance: &mut i64, event: &RecordedEvent<LedgerEvent>) {
        *balance += event.payload().change();
    }

    fn handle(&self, balance: &i64, _: &InspectStreams) -> Result<NewEvents<Self>, Infallible> {
        self.seen.store(*balance, Ordering::Relaxed);
        Ok(NewEvents::new())
    }
}

/// The balances of all accounts, with a stored checkpoint: the context `()` has the default one per page.
#[derive(Default)]
pub(crate) struct Balances {
    pub(crate) by_account: HashMap<u32, i64>,
}

impl Projector for Balances {
    type Event = LedgerEvent;
    type Error = Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "balances"
    }

    async fn apply(&mut self, event: &RecordedEvent<LedgerEvent>, _: &mut ()) -> Result<(), Infallible> {
        *self.by_account.entry(event.payload().entry().account).or_default() += event.payload().change();
        Ok(())
    }
}
