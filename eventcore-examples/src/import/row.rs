//! One row of the file.

use crate::bank::{AccountId, Balance, Booking, Money};
use chrono::NaiveDate;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use eventcore::{CommandId, ValidationError};
use std::cell::RefCell;
use thiserror::Error;

/// The longest line, in bytes. A row has about 70.
pub const MAX_LINE_BYTES: usize = 4096;

/// How many fields a row has.
const FIELDS: usize = 10;
/// How much of a malformed field is shown, in characters.
const MAX_SHOWN: usize = 40;
/// Years are written with two digits.
const CENTURY: i32 = 1900;

thread_local! {
    /// Its table is worked out once: that takes longer than a line does. A clone of it would come without the table.
    static PARSER: RefCell<Reader> = RefCell::new(ReaderBuilder::new().delimiter(b';').build());
}

/// One transaction of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportRow {
    /// The transaction's number in the other bank.
    pub transaction: u64,
    /// The account here: `berka-<account_id>`.
    pub account: AccountId,
    /// Whether money comes in or goes out.
    pub direction: Direction,
    /// The amount, the day and what it is for.
    pub booking: Booking,
    /// The other bank's own balance after the row.
    pub printed_balance: Balance,
}

/// Whether money comes in or goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// In.
    Credit,
    /// Out.
    Debit,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RowError {
    /// The line is longer than any row.
    #[error("the line has more than {limit} bytes")]
    TooLong {
        /// The highest length allowed, in bytes.
        limit: usize,
    },
    /// The line is no text.
    #[error("the line is no text in UTF-8")]
    NotText,
    /// A quote is opened and not closed: often the end of a file that was cut off.
    #[error("a quote is not closed; the line may be cut off: it ends with {end:?}")]
    UnclosedQuote {
        /// How the line ends.
        end: String,
    },
    /// There are more or fewer fields than a row has.
    #[error("{found} fields, a row has {FIELDS}")]
    FieldCount {
        /// How many fields there are.
        found: usize,
    },
    /// A field holds something else than it should.
    #[error("field {field}: {text:?} is not {expected}")]
    Field {
        /// The name of the column.
        field: &'static str,
        /// What is there, shortened.
        text: String,
        /// What should be there.
        expected: &'static str,
    },
}

impl ImportRow {
    /// Reads a line without its line end.
    ///
    /// # Errors
    /// [`RowError`] says what is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, RowError> {
        if line.len() > MAX_LINE_BYTES {
            return Err(RowError::TooLong { limit: MAX_LINE_BYTES });
        }
        let text = std::str::from_utf8(line).map_err(|_| RowError::NotText)?;
        if !text.matches('"').count().is_multiple_of(2) {
            let skipped = text.chars().count().saturating_sub(MAX_SHOWN);
            return Err(RowError::UnclosedQuote { end: text.chars().skip(skipped).collect() });
        }
        let fields = PARSER.with_borrow_mut(|parser| split(parser, line))?;
        let [transaction, account, date, kind, operation, amount, balance, symbol, _bank, _partner] =
            fields.each_ref().map(String::as_str);
        let text = [operation.trim(), symbol.trim()].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        Ok(Self {
            transaction: number("trans_id", transaction)?,
            account: account_id(number("account_id", account)?)
                .map_err(|_| wrong("account_id", account, "the number of an account"))?,
            direction: match kind {
                "PRIJEM" => Direction::Credit,
                "VYDAJ" | "VYBER" => Direction::Debit,
                other => return Err(wrong("type", other, "PRIJEM, VYDAJ or VYBER")),
            },
            booking: Booking {
                amount: amount
                    .parse::<Money>()
                    .map_err(|_| wrong("amount", amount, "an amount of money such as 700.00, more than nothing"))?,
                booked_on: day(date)?,
                text: if text.is_empty() { None } else { Some(text.join(" / ")) },
            },
            printed_balance: balance
                .parse()
                .map_err(|_| wrong("balance", balance, "a balance such as 700.00 or -3.10"))?,
        })
    }

    /// The id of the row's command: however often the row is imported, it has one effect.
    ///
    /// # Errors
    /// None in practice: every number makes a valid command id.
    pub fn command_id(&self) -> Result<CommandId, ValidationError> {
        CommandId::new(format!("berka-{}", self.transaction))
    }
}

/// The beginning of the ids of all imported accounts.
pub(super) const ACCOUNT_PREFIX: &str = "berka-";

fn account_id(number: u64) -> Result<AccountId, ValidationError> {
    AccountId::try_new(format!("{ACCOUNT_PREFIX}{number}"))
}

/// Takes the fields out of a line.
fn split(reader: &mut Reader, line: &[u8]) -> Result<[String; FIELDS], RowError> {
    reader.reset();
    // What a field says never takes more bytes than the line; one slot more than fields shows that there are too many.
    let mut text = vec![0; line.len() + 1];
    let mut ends = [0; FIELDS + 1];
    let (mut read, mut written, mut found) = (0, 0, 0);
    loop {
        // After the whole line the input is empty, which the parser takes for the end of the file.
        let (result, took, wrote, ended) = reader.read_record(
            line.get(read..).unwrap_or_default(),
            text.get_mut(written..).unwrap_or_default(),
            ends.get_mut(found..).unwrap_or_default(),
        );
        (read, written, found) = (read + took, written + wrote, found + ended);
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record | ReadRecordResult::End => break,
            ReadRecordResult::OutputEndsFull | ReadRecordResult::OutputFull => {
                return Err(RowError::FieldCount { found: line.split(|byte| *byte == b';').count() });
            }
        }
    }
    let mut start = 0;
    let mut fields = ends.iter().take(found).map(|end| {
        let field = text.get(start..*end).unwrap_or_default();
        start = *end;
        String::from_utf8_lossy(field).into_owned()
    });
    let row = std::array::from_fn(|_| fields.next().unwrap_or_default());
    if found == FIELDS { Ok(row) } else { Err(RowError::FieldCount { found }) }
}

fn number(field: &'static str, text: &str) -> Result<u64, RowError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| wrong(field, text, "a whole number"))
}

/// Reads `YYMMDD`.
fn day(text: &str) -> Result<NaiveDate, RowError> {
    let wrong = || wrong("date", text, "a day as YYMMDD");
    if text.len() != 6 {
        return Err(wrong());
    }
    let number = u32::try_from(number("date", text).map_err(|_| wrong())?).map_err(|_| wrong())?;
    let year = CENTURY + i32::try_from(number / 10_000).map_err(|_| wrong())?;
    NaiveDate::from_ymd_opt(year, number / 100 % 100, number % 100).ok_or_else(wrong)
}

fn wrong(field: &'static str, text: &str, expected: &'static str) -> RowError {
    RowError::Field { field, text: text.chars().take(MAX_SHOWN).collect(), expected }
}
