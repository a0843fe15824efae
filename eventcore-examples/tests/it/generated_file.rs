//! A file to import, made by the tests: made-up accounts with made-up money, the same at every call.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The first line.
pub(crate) const HEADER: &str = "\"trans_id\";\"account_id\";\"date\";\"type\";\"operation\";\"amount\";\"balance\";\"k_symbol\";\"bank\";\"account\"\r\n";

/// A whole file and what its import has to say about it.
#[derive(Debug)]
pub(crate) struct GeneratedFile {
    /// All rows, each with its line end, without the header.
    pub(crate) rows: Vec<String>,
    /// How many accounts there are.
    pub(crate) accounts: usize,
    /// What all accounts hold in the end, in minor units.
    pub(crate) total: i64,
    /// How many pairs of account and day there are.
    pub(crate) account_days: usize,
}

impl GeneratedFile {
    /// `count` rows of `accounts` accounts: 20 rows a day, credits, debits and interest, some accounts overdrawn.
    pub(crate) fn new(count: usize, accounts: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let mut balances: BTreeMap<usize, i64> = BTreeMap::new();
        let mut days = std::collections::BTreeSet::new();
        let rows = (0..count)
            .map(|row| {
                let account = random.usize(..accounts) * 3 + 1;
                let (month, day) = (row / 20 / 28 % 12 + 1, row / 20 % 28 + 1);
                let year = 93 + row / 20 / 28 / 12;
                let date = format!("{year:02}{month:02}{day:02}");
                let amount = random.i64(1..=200_000);
                let (kind, operation, symbol) = *random
                    .choice(&[
                        ("PRIJEM", "VKLAD", ""),
                        ("PRIJEM", "", "UROK"),
                        ("PRIJEM", "PREVOD Z UCTU", " "),
                        ("VYDAJ", "VYBER", "SLUZBY"),
                        ("VYDAJ", "PREVOD NA UCET", "SIPO"),
                        ("VYBER", "VYBER", ""),
                    ])
                    .unwrap();
                let balance = balances.entry(account).or_default();
                *balance += if kind == "PRIJEM" { amount } else { -amount };
                days.insert((account, date.clone()));
                let mut line = String::new();
                let (amount, balance) = (decimal(amount), decimal(*balance));
                let id = 1_000 + row * 7;
                write!(line, "{id};{account};{date};\"{kind}\";\"{operation}\";{amount};{balance};\"{symbol}\";;\r\n")
                    .unwrap();
                line
            })
            .collect();
        Self { rows, accounts: balances.len(), total: balances.values().sum(), account_days: days.len() }
    }

    /// The file as text, with its header.
    pub(crate) fn text(&self) -> String {
        HEADER.to_owned() + &self.rows.concat()
    }

    /// The line that an import of the whole file ends with.
    pub(crate) fn summary(&self, accepted: usize, known: usize, malformed: usize) -> String {
        let Self { accounts, total, account_days, .. } = self;
        format!(
            "accepted={accepted} known={known} rejected=0 malformed={malformed} accounts={accounts} total_balance={} \
             account_days={account_days} matching={account_days}\n",
            decimal(*total)
        )
    }
}

fn decimal(minor_units: i64) -> String {
    let sign = if minor_units < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", minor_units.abs() / 100, minor_units.abs() % 100)
}
