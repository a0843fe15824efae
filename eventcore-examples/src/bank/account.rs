//! What a command knows about accounts when it decides.

use super::{AccountId, Balance, BankError, BankEvent, Money, Overdraft};
use eventcore::{RecordedEvent, StreamId, StreamName, StreamState, require};
use std::collections::HashMap;

/// An account as its events tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// How far it may be overdrawn; `None` until it was opened.
    overdraft: Option<Overdraft>,
    balance: Balance,
}

impl Account {
    /// Folds one event of the account.
    pub fn apply(&mut self, event: &BankEvent) {
        if let BankEvent::AccountOpened { overdraft, .. } = event {
            self.overdraft = Some(*overdraft);
        }
        self.balance += event.change();
    }

    /// What it holds.
    #[must_use]
    pub const fn balance(&self) -> Balance {
        self.balance
    }

    /// Whether it was opened.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.overdraft.is_some()
    }

    /// Makes sure that it is open.
    ///
    /// # Errors
    /// [`BankError::NotOpen`].
    pub fn require_open(&self, account: &AccountId) -> Result<Overdraft, BankError> {
        self.overdraft.ok_or_else(|| BankError::NotOpen { account: account.clone() })
    }

    /// Makes sure that it is open and can spare `amount`.
    ///
    /// # Errors
    /// [`BankError::NotOpen`] or [`BankError::InsufficientFunds`].
    pub fn require_funds(&self, account: &AccountId, amount: Money) -> Result<(), BankError> {
        let overdraft = self.require_open(account)?;
        require!(
            overdraft.allows(self.balance - amount.into()),
            BankError::InsufficientFunds { account: account.clone(), balance: self.balance, amount }
        );
        Ok(())
    }
}

impl StreamState for Account {
    type Event = BankEvent;

    fn apply(&mut self, event: &RecordedEvent<BankEvent>) {
        self.apply(event.payload());
    }
}

/// All accounts of a command, by their streams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts(HashMap<StreamId, Account>);

impl Accounts {
    /// Folds one event into the account whose stream it stands in.
    pub fn apply(&mut self, event: &RecordedEvent<BankEvent>) {
        self.0.entry(event.stream_id().clone()).or_default().apply(event.payload());
    }

    /// An account; one without events if nothing is known about it.
    #[must_use]
    pub fn of(&self, account: &AccountId) -> Account {
        account.stream_id().ok().and_then(|stream_id| self.0.get(&stream_id)).copied().unwrap_or_default()
    }
}
