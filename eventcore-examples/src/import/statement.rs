//! What the other bank says about its accounts, to be compared with what came out here.

use super::ImportRow;
use crate::bank::{AccountId, Balance, DailyBalances};
use chrono::NaiveDate;
use std::collections::BTreeMap;

/// How far a printed balance may be off, in minor units: the other bank rounded now and then.
const TOLERANCE: u128 = 50;

/// The balances that the file prints, by account and day.
///
/// Within a day the rows of an account do not stand in the order in which they were booked, so it is not known which of its
/// balances is the last one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    printed: BTreeMap<AccountId, BTreeMap<NaiveDate, Vec<Balance>>>,
}

/// How many of a statement's days came out right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Matching {
    /// How many pairs of account and day there are.
    pub account_days: u64,
    /// How many of them end with a balance within 0.50 of one that was printed on that day.
    pub matching: u64,
}

impl Statement {
    /// Notes the balance that a row prints.
    pub fn note(&mut self, row: &ImportRow) {
        // Looked up first: the account's id is copied once, not for every row.
        if !self.printed.contains_key(&row.account) {
            self.printed.insert(row.account.clone(), BTreeMap::new());
        }
        if let Some(days) = self.printed.get_mut(&row.account) {
            days.entry(row.booking.booked_on).or_default().push(row.printed_balance);
        }
    }

    /// Adds what another part of the file says.
    pub fn merge(&mut self, other: Self) {
        for (account, days) in other.printed {
            let known = self.printed.entry(account).or_default();
            for (day, balances) in days {
                known.entry(day).or_default().extend(balances);
            }
        }
    }

    /// Compares every account's balance after each of its days with what was printed on that day.
    #[must_use]
    pub fn compare(&self, daily: &DailyBalances) -> Matching {
        let mut result = Matching::default();
        for (account, days) in &self.printed {
            let projected: BTreeMap<NaiveDate, Balance> = daily.of(account).collect();
            for (day, printed) in days {
                let balance = projected.get(day);
                let matches = balance.is_some_and(|is| printed.iter().any(|said| said.distance(*is) <= TOLERANCE));
                result.account_days += 1;
                result.matching += u64::from(matches);
            }
        }
        result
    }
}
