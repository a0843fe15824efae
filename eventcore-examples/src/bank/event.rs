//! What happens in the bank.

use super::{AccountId, Balance, Money, Owner, TransferId};
use chrono::NaiveDate;
use eventcore::Event;
use serde::{Deserialize, Serialize};

/// What happened to an account. Every event stands in the stream of the account that it happened to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
pub enum BankEvent {
    /// The account exists from now on, with nothing in it.
    AccountOpened {
        /// Who it belongs to, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
        /// How far it may go below nothing.
        overdraft: Overdraft,
    },
    /// Money came in.
    MoneyDeposited(Booking),
    /// Money went out.
    MoneyWithdrawn(Booking),
    /// Money came from another account of the bank.
    TransferReceived {
        /// The transfer.
        transfer: TransferId,
        /// Where it came from.
        from: AccountId,
        /// The amount and the day.
        booking: Booking,
    },
    /// Money went to another account of the bank.
    TransferSent {
        /// The transfer.
        transfer: TransferId,
        /// Where it went.
        to: AccountId,
        /// The amount and the day.
        booking: Booking,
    },
}

impl BankEvent {
    /// What was booked, if the event moved money.
    #[must_use]
    pub const fn booking(&self) -> Option<&Booking> {
        match self {
            Self::AccountOpened { .. } => None,
            Self::MoneyDeposited(booking)
            | Self::MoneyWithdrawn(booking)
            | Self::TransferReceived { booking, .. }
            | Self::TransferSent { booking, .. } => Some(booking),
        }
    }

    /// By how much the event changes the account's balance.
    #[must_use]
    pub fn change(&self) -> Balance {
        match self {
            Self::AccountOpened { .. } => Balance::ZERO,
            Self::MoneyDeposited(booking) | Self::TransferReceived { booking, .. } => booking.amount.into(),
            Self::MoneyWithdrawn(booking) | Self::TransferSent { booking, .. } => -Balance::from(booking.amount),
        }
    }
}

/// An amount that is booked on a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// How much.
    pub amount: Money,
    /// The business day. The store knows when the event was recorded; that may be much later.
    pub booked_on: NaiveDate,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Booking {
    /// A booking without a text.
    #[must_use]
    pub const fn new(amount: Money, booked_on: NaiveDate) -> Self {
        Self { amount, booked_on, text: None }
    }

    /// Says what it is for.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }
}

/// How far an account may go below nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overdraft {
    /// Not at all.
    #[default]
    None,
    /// As far as this amount.
    UpTo(Money),
    /// As far as it likes, for accounts whose history was decided elsewhere.
    Unlimited,
}

impl Overdraft {
    /// Whether an account may stand at `balance`.
    #[must_use]
    pub fn allows(self, balance: Balance) -> bool {
        match self {
            Self::None => balance >= Balance::ZERO,
            Self::UpTo(limit) => balance >= -Balance::from(limit),
            Self::Unlimited => true,
        }
    }
}
