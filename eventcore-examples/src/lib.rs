//! Programs to begin with, and the domain they share.
//!
//! - [`bank`]: accounts, deposits, withdrawals and transfers as commands on eventcore, and read models over them.
//! - [`import`]: real transactions from a file into the bank, many commands at a time, safe to interrupt and repeat.
//! - [`chain`]: an error and its causes in one line.
//! - [`connect`]: a store by its URL, as an application chooses one at run time.
//!
//! The program `bank` puts them together: `cargo run --release -p eventcore-examples --bin bank`. The program `quick-start`
//! is the one that the README shows. The program `benchmark` measures the library beside the limit of the storage below it.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod bank;
pub mod import;

mod chain;
mod connect;

pub use chain::chain;
pub use connect::{ConnectError, OpenStore, StoreUrl, UnknownStore, connect, open, open_existing};
