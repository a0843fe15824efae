//! What an import did.

use super::Matching;
use crate::bank::Balance;
use std::fmt;

/// What an import did and what the store says afterwards. Its `Display` is the one line that the program prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ImportSummary {
    /// Rows whose command had its effect now.
    pub accepted: u64,
    /// Rows whose command had its effect in an earlier run.
    pub known: u64,
    /// Rows that the bank refused.
    pub rejected: u64,
    /// Lines that are no rows.
    pub malformed: u64,
    /// Imported accounts in the store.
    pub accounts: usize,
    /// What they hold together.
    pub total_balance: Balance,
    /// The comparison with the balances that the file prints.
    pub matching: Matching,
    /// Whether it was stopped before the end of the file.
    pub interrupted: bool,
}

impl ImportSummary {
    /// Whether every line of the file was a row that the bank took.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.rejected == 0 && self.malformed == 0
    }
}

impl fmt::Display for ImportSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, known, rejected, malformed, accounts, total_balance, matching, .. } = self;
        let Matching { account_days, matching } = matching;
        write!(f, "accepted={accepted} known={known} rejected={rejected} malformed={malformed} accounts={accounts} ")?;
        write!(f, "total_balance={total_balance} account_days={account_days} matching={matching}")
    }
}
