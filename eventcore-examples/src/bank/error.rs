//! Why the bank says no.

use super::{AccountId, Balance, Money};
use thiserror::Error;

/// Why the bank says no. Nothing was booked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BankError {
    /// The account exists already.
    #[error("account {account} is open already")]
    AlreadyOpen {
        /// The account.
        account: AccountId,
    },
    /// There is no such account.
    #[error("account {account} is not open")]
    NotOpen {
        /// The account.
        account: AccountId,
    },
    /// The account would go further below nothing than it may.
    #[error("account {account} holds {balance}, which is not enough for {amount}")]
    InsufficientFunds {
        /// The account.
        account: AccountId,
        /// What it holds.
        balance: Balance,
        /// What was asked for.
        amount: Money,
    },
    /// A transfer from an account to itself.
    #[error("account {account} cannot send money to itself")]
    SameAccount {
        /// The account.
        account: AccountId,
    },
}
