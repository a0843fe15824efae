//! The command line.

use chrono::NaiveDate;
use clap::{Args, Parser, Subcommand};
use eventcore::CommandId;
use eventcore_examples::StoreUrl;
use eventcore_examples::bank::{AccountId, Money, Overdraft, Owner, TransferId};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// The file that commands work on where `--store` names no other.
pub(crate) const DEFAULT_FILE: &str = "bank.db";

const EXAMPLES: &str = "\
Examples:
  bank                                            show what the bank can do, on a temporary store
  bank open alice --owner \"Alice Smith\"           open an account in bank.db
  bank deposit alice 100.00
  bank open bob && bank transfer alice bob 25.50
  bank balances
  bank history alice
  bank watch                                      see the balances change while others transfer
  bank rebuild && bank projections
  bank --store sqlite:b.db import trans.asc       import transactions; repeat it as often as you like

Exit status:
  0    done
  1    refused or failed; standard error says why
  2    imported to the end, but some lines were malformed or refused
  64   the command line makes no sense
  130  stopped by Ctrl-C or SIGTERM; an import or a rebuild goes on where it stopped when it is run again";

/// A small bank on an event store.
///
/// Without a command it shows what it can do: it opens accounts, runs concurrent transfers, prints the balances and an
/// account's history, and checks that no money was made or lost.
#[derive(Debug, Parser)]
#[command(name = "bank", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// Where events are kept: memory, sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE [default: sqlite:bank.db; without a command a temporary file]
    #[arg(long, value_name = "URL", global = true)]
    pub(crate) store: Option<StoreUrl>,
    #[command(subcommand)]
    pub(crate) request: Option<Request>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Import transactions from a file, each once however often it is repeated
    Import(Import),
    /// Print what every account holds
    Balances,
    /// Show what every account holds, and show it anew whenever that changes, until Ctrl-C
    Watch,
    /// Print how far the projections have come that keep something in the store
    Projections,
    /// Build the table of balances in the store (bank_balances, for SQL) anew, beside the one that serves; stopped, it goes on next time
    Rebuild,
    /// Print everything that happened to an account
    History {
        /// The account
        account: AccountId,
    },
    /// Open an account
    Open(Open),
    /// Put money into an account
    Deposit(Movement),
    /// Take money out of an account
    Withdraw(Movement),
    /// Move money from one account to another
    Transfer(Transfer),
}

impl Request {
    /// Whether it makes no sense on a store that does not exist yet.
    pub(crate) const fn only_looks(&self) -> bool {
        matches!(self, Self::Balances | Self::Watch | Self::Projections | Self::Rebuild | Self::History { .. })
    }
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The file: the transaction table of the PKDD'99 (Berka) financial data set
    ///
    /// One line per transaction, fields separated by ';', the first line names them: trans_id, account_id, date (YYMMDD), type, operation,
    /// amount, balance, k_symbol, bank, account. Lines that cannot be read are reported and left out; the exit status is 2 then.
    pub(crate) file: PathBuf,
    /// How many commands are in flight at most
    #[arg(long, value_name = "N", default_value = "256", value_parser = parse_in_flight)]
    pub(crate) in_flight: NonZeroUsize,
}

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// The account: 1 to 64 ASCII letters, digits, '-', '_' and '.'
    pub(crate) account: AccountId,
    /// Whom it belongs to
    #[arg(long, value_name = "NAME")]
    pub(crate) owner: Option<Owner>,
    /// How far it may go below nothing: none, unlimited, or an amount
    #[arg(
        long,
        value_name = "AMOUNT",
        default_value = "none",
        value_parser = parse_overdraft,
        allow_negative_numbers = true
    )]
    pub(crate) overdraft: Overdraft,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

#[derive(Debug, Args)]
pub(crate) struct Movement {
    /// The account
    pub(crate) account: AccountId,
    /// How much, for example 12.50
    #[arg(allow_negative_numbers = true)]
    pub(crate) amount: Money,
    #[command(flatten)]
    pub(crate) details: Details,
    #[command(flatten)]
    pub(crate) identity: Identity,
}

#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// Where the money comes from
    pub(crate) from: AccountId,
    /// Where it goes
    pub(crate) to: AccountId,
    /// How much, for example 12.50
    #[arg(allow_negative_numbers = true)]
    pub(crate) amount: Money,
    #[command(flatten)]
    pub(crate) details: Details,
    /// The transfer's own id: asked for twice, the money moves once [default: a new one]
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<TransferId>,
}

/// What is said about a booking.
#[derive(Debug, Args)]
pub(crate) struct Details {
    /// The day of the booking as YYYY-MM-DD [default: today]
    #[arg(long, value_name = "DAY", value_parser = parse_day)]
    pub(crate) date: Option<NaiveDate>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
}

/// The identity of a command.
#[derive(Debug, Args)]
pub(crate) struct Identity {
    /// The command's identity: run again with the same id, it has no second effect
    #[arg(long, value_name = "ID")]
    pub(crate) command_id: Option<CommandId>,
}

fn parse_in_flight(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .ok()
        .filter(|number: &NonZeroUsize| number.get() <= 10_000)
        .ok_or_else(|| "expected a number from 1 to 10000".to_owned())
}

fn parse_day(text: &str) -> Result<NaiveDate, String> {
    text.parse().map_err(|_| "expected a day of the calendar as YYYY-MM-DD".to_owned())
}

fn parse_overdraft(text: &str) -> Result<Overdraft, String> {
    match text {
        "none" => Ok(Overdraft::None),
        "unlimited" => Ok(Overdraft::Unlimited),
        amount => amount
            .parse()
            .map(Overdraft::UpTo)
            .map_err(|_| "expected none, unlimited, or an amount such as 100.00".to_owned()),
    }
}
