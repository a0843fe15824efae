//! The domain that commands and projections are tested with: accounts, money, and links between them.

use eventcore::{
    Command, CommandLogic, Discovered, Event, NewEvents, RecordedEvent, SnapshotState, StateFold, StreamId,
    StreamState, require,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(namespace = "contract")]
pub(crate) enum Money {
    Deposited { amount: i64 },
    Withdrawn { amount: i64 },
    Linked { to: StreamId },
}

impl Money {
    /// By how much the event changes a balance.
    pub(crate) const fn change(&self) -> i64 {
        match self {
            Self::Deposited { amount } => *amount,
            Self::Withdrawn { amount } => -*amount,
            Self::Linked { .. } => 0,
        }
    }
}

/// The balances of all streams of a command, and the links found in them.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Balances {
    balances: BTreeMap<StreamId, i64>,
    links: Vec<StreamId>,
}

impl Balances {
    pub(crate) fn of(&self, account: &StreamId) -> i64 {
        self.balances.get(account).copied().unwrap_or_default()
    }
}

impl StreamState for Balances {
    type Event = Money;

    fn apply(&mut self, event: &RecordedEvent<Money>) {
        *self.balances.entry(event.stream_id().clone()).or_default() += event.payload().change();
        if let Money::Linked { to } = event.payload() {
            self.links.push(to.clone());
        }
    }
}

impl SnapshotState for Balances {
    const NAME: &'static str = "contract.Balances";
    const VERSION: u32 = 1;
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("{account} has {balance}, {needed} is needed")]
    InsufficientFunds { account: StreamId, balance: i64, needed: i64 },
    #[error("nothing is linked")]
    NothingLinked,
}

macro_rules! folds_balances {
    () => {
        type Event = Money;
        type State = Balances;
        type Error = Refusal;

        fn apply(&self, state: &mut Balances, event: &RecordedEvent<Money>) {
            StreamState::apply(state, event);
        }

        fn state_fold() -> StateFold<Self> {
            StateFold::with_snapshots().timeless()
        }
    };
}

#[derive(Debug, Clone, Command)]
pub(crate) struct Deposit {
    #[stream]
    pub(crate) account: StreamId,
    pub(crate) amount: i64,
}

impl CommandLogic for Deposit {
    folds_balances!();

    fn handle(&self, _: &Balances, streams: &DepositStreams) -> Result<NewEvents<Self>, Refusal> {
        // Nothing to deposit is nothing to do.
        if self.amount == 0 {
            return Ok(NewEvents::new());
        }
        Ok(NewEvents::new().append(&streams.account, Money::Deposited { amount: self.amount }))
    }
}

#[derive(Debug, Clone, Command)]
pub(crate) struct Withdraw {
    #[stream]
    pub(crate) account: StreamId,
    pub(crate) amount: i64,
}

impl CommandLogic for Withdraw {
    folds_balances!();

    fn handle(&self, state: &Balances, streams: &WithdrawStreams) -> Result<NewEvents<Self>, Refusal> {
        covered(state, &self.account, self.amount)?;
        Ok(NewEvents::new().append(&streams.account, Money::Withdrawn { amount: self.amount }))
    }
}

#[derive(Debug, Clone, Command)]
pub(crate) struct Transfer {
    #[stream]
    pub(crate) from: StreamId,
    #[stream]
    pub(crate) to: StreamId,
    pub(crate) amount: i64,
}

impl CommandLogic for Transfer {
    folds_balances!();

    fn handle(&self, state: &Balances, streams: &TransferStreams) -> Result<NewEvents<Self>, Refusal> {
        covered(state, &self.from, self.amount)?;
        Ok(NewEvents::new()
            .append(&streams.from, Money::Withdrawn { amount: self.amount })
            .append(&streams.to, Money::Deposited { amount: self.amount }))
    }
}

/// Withdraws from one account as long as both together cover it: the rule that write skew breaks.
#[derive(Debug, Clone, Command)]
pub(crate) struct WithdrawJointly {
    #[stream]
    pub(crate) account: StreamId,
    #[stream(read_only)]
    pub(crate) other: StreamId,
    pub(crate) amount: i64,
}

impl CommandLogic for WithdrawJointly {
    folds_balances!();

    fn handle(&self, state: &Balances, streams: &WithdrawJointlyStreams) -> Result<NewEvents<Self>, Refusal> {
        let balance = state.of(&self.account) + state.of(&self.other);
        let refusal = || Refusal::InsufficientFunds { account: self.account.clone(), balance, needed: self.amount };
        require!(balance >= self.amount, refusal());
        Ok(NewEvents::new().append(&streams.account, Money::Withdrawn { amount: self.amount }))
    }
}

#[derive(Debug, Clone, Command)]
pub(crate) struct Link {
    #[stream]
    pub(crate) from: StreamId,
    pub(crate) to: StreamId,
}

impl CommandLogic for Link {
    folds_balances!();

    fn handle(&self, _: &Balances, streams: &LinkStreams) -> Result<NewEvents<Self>, Refusal> {
        Ok(NewEvents::new().append(&streams.from, Money::Linked { to: self.to.clone() }))
    }
}

/// Follows the links from a stream, and deposits the sum of all balances on the way in the last one.
#[derive(Debug, Clone, Command)]
pub(crate) struct SumUp {
    #[stream(read_only)]
    pub(crate) start: StreamId,
}

impl CommandLogic for SumUp {
    folds_balances!();

    fn discover(&self, state: &Balances) -> Discovered {
        state.links.iter().fold(Discovered::none(), |found, stream| found.write(stream.clone()))
    }

    fn handle(&self, state: &Balances, streams: &SumUpStreams) -> Result<NewEvents<Self>, Refusal> {
        let last =
            state.links.last().and_then(|stream| streams.discovered().get(stream)).ok_or(Refusal::NothingLinked)?;
        let amount = state.balances.values().sum();
        Ok(NewEvents::new().append(last, Money::Deposited { amount }))
    }
}

fn covered(state: &Balances, account: &StreamId, needed: i64) -> Result<(), Refusal> {
    let balance = state.of(account);
    require!(balance >= needed, Refusal::InsufficientFunds { account: account.clone(), balance, needed });
    Ok(())
}
