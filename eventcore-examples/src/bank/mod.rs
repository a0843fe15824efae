//! A bank: its words, its events, its commands and its read models.
//!
//! Every account is a stream, `account-<id>`. A transfer writes to two of them, atomically.
//!
//! ```
//! use eventcore::{CommandError, execute};
//! use eventcore_examples::bank::{BankError, Booking, Deposit, OpenAccount, Overdraft, TransferId, TransferMoney};
//! use eventcore_memory::MemoryEventStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryEventStore::new();
//! let (alice, bob) = ("alice".parse()?, "bob".parse()?);
//! for account in [&alice, &bob] {
//!     execute(&store, OpenAccount { account: Clone::clone(account), owner: None, overdraft: Overdraft::None }).await?;
//! }
//! let today = chrono::NaiveDate::from_ymd_opt(2024, 5, 1).unwrap_or_default();
//! execute(&store, Deposit { account: Clone::clone(&alice), booking: Booking::new("100.00".parse()?, today) }).await?;
//!
//! let transfer = TransferMoney {
//!     transfer: TransferId::generate(),
//!     from: alice,
//!     to: bob,
//!     booking: Booking::new("100.01".parse()?, today),
//! };
//! let refused = execute(&store, transfer).await;
//! assert!(matches!(refused, Err(CommandError::Rejected(BankError::InsufficientFunds { .. }))));
//! # Ok(())
//! # }
//! ```

mod account;
mod commands;
mod error;
mod event;
mod ids;
mod money;
mod projections;
mod table;

pub use account::{Account, Accounts};
pub use commands::{
    Deposit, DepositStreams, OpenAccount, OpenAccountStreams, TransferMoney, TransferMoneyStreams, Withdraw,
    WithdrawStreams,
};
pub use error::BankError;
pub use event::{BankEvent, Booking, Overdraft};
pub use ids::{AccountId, Owner, TransferId};
pub use money::{Balance, Money};
pub use projections::{AccountBalance, Balances, DailyBalances};
pub use table::{BalanceTable, TableError, TableStore};
