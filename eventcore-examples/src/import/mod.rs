//! Transactions of another bank, from a file into this one.
//!
//! The file is the transaction table of the PKDD'99 financial data set: `;`-separated, quoted where it is text, one row per
//! line: `trans_id; account_id; date (YYMMDD); type; operation; amount; balance; k_symbol; bank; account`. A first line
//! that names these columns is passed over.
//!
//! Every row becomes one command whose id is made of the row's `trans_id`, so the import can be interrupted at any moment
//! and repeated: what was done is not done twice. An account is opened when its first row comes. Many accounts are worked on
//! at once, but the rows of one account stay in order.
//!
//! The file is read as a stream. What is kept in memory is the rows in flight and, for the check at the end, the balances
//! that the file prints: some 16 bytes a row.

mod reader;
mod row;
mod run;
mod statement;
mod summary;

pub use reader::{NumberedRow, RowReader};
pub use row::{Direction, ImportRow, MAX_LINE_BYTES, RowError};
pub use run::{ImportConfig, ImportError, ImportObserver, run_import};
pub use statement::{Matching, Statement};
pub use summary::ImportSummary;
