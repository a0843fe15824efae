//! Read models over the bank's events. Both live in memory and are folded anew from the log at every run.

use super::{AccountId, Balance, BankEvent, Owner};
use chrono::NaiveDate;
use eventcore::{EventFilter, InMemory, Projector, RecordedEvent, ValidationError};
use std::collections::BTreeMap;

/// What every account holds.
#[derive(Debug, Clone)]
pub struct Balances {
    filter: EventFilter,
    accounts: BTreeMap<AccountId, AccountBalance>,
}

/// What one account holds, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountBalance {
    /// Who it belongs to, where that is known.
    pub owner: Option<Owner>,
    /// What it holds.
    pub balance: Balance,
}

impl Balances {
    /// The balances of all accounts that `filter` lets through.
    #[must_use]
    pub const fn new(filter: EventFilter) -> Self {
        Self { filter, accounts: BTreeMap::new() }
    }

    /// All accounts, by id.
    pub fn accounts(&self) -> impl Iterator<Item = (&AccountId, &AccountBalance)> {
        self.accounts.iter()
    }

    /// One account; `None` if it was never opened.
    #[must_use]
    pub fn of(&self, account: &AccountId) -> Option<&AccountBalance> {
        self.accounts.get(account)
    }

    /// What all accounts hold together.
    #[must_use]
    pub fn total(&self) -> Balance {
        self.accounts.values().map(|account| account.balance).sum()
    }
}

impl Default for Balances {
    fn default() -> Self {
        Self::new(EventFilter::of::<BankEvent>())
    }
}

impl Projector for Balances {
    type Event = BankEvent;
    type Error = ValidationError;
    type Context = InMemory;

    fn name(&self) -> &str {
        "balances"
    }

    fn filter(&self) -> EventFilter {
        self.filter.clone()
    }

    async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), ValidationError> {
        let account = self.accounts.entry(AccountId::of_stream(event.stream_id())?).or_default();
        if let BankEvent::AccountOpened { owner, .. } = event.payload() {
            account.owner.clone_from(owner);
        }
        account.balance += event.payload().change();
        Ok(())
    }
}

/// What every account held at the end of each of its days, by the day that events were booked on.
#[derive(Debug, Clone)]
pub struct DailyBalances {
    filter: EventFilter,
    /// By account, how much each day changed its balance. The order of the log does not matter: days are summed up.
    changes: BTreeMap<AccountId, BTreeMap<NaiveDate, Balance>>,
}

impl DailyBalances {
    /// The daily balances of all accounts that `filter` lets through.
    #[must_use]
    pub const fn new(filter: EventFilter) -> Self {
        Self { filter, changes: BTreeMap::new() }
    }

    /// How many accounts there are, those without a booking included.
    #[must_use]
    pub fn accounts(&self) -> usize {
        self.changes.len()
    }

    /// What all accounts hold together.
    #[must_use]
    pub fn total(&self) -> Balance {
        self.changes.values().flat_map(BTreeMap::values).copied().sum()
    }

    /// The balance of an account after each of its days, in order.
    pub fn of(&self, account: &AccountId) -> impl Iterator<Item = (NaiveDate, Balance)> {
        let days = self.changes.get(account).into_iter().flatten();
        days.scan(Balance::ZERO, |balance, (day, change)| {
            *balance += *change;
            Some((*day, *balance))
        })
    }
}

impl Projector for DailyBalances {
    type Event = BankEvent;
    type Error = ValidationError;
    type Context = InMemory;

    fn name(&self) -> &str {
        "daily-balances"
    }

    fn filter(&self) -> EventFilter {
        self.filter.clone()
    }

    async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), ValidationError> {
        let days = self.changes.entry(AccountId::of_stream(event.stream_id())?).or_default();
        if let Some(booking) = event.payload().booking() {
            *days.entry(booking.booked_on).or_default() += event.payload().change();
        }
        Ok(())
    }
}
