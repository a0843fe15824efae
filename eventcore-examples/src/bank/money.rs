//! Money in whole minor units: no floating point anywhere.

use eventcore::{Problem, ValidationError};
use nutype::nutype;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub};
use std::str::FromStr;

/// The most that one amount can be, so that every amount fits a signed 64-bit column: about 92 quadrillion.
const MAX_MINOR_UNITS: u64 = i64::MAX as u64;

/// How much of a malformed text is shown, in characters.
const MAX_SHOWN: usize = 40;

fn check_money(minor_units: &u64) -> Result<(), ValidationError> {
    if (1..=MAX_MINOR_UNITS).contains(minor_units) {
        return Ok(());
    }
    let problem = Problem::OutOfRange { value: i128::from(*minor_units), min: 1, max: i128::from(MAX_MINOR_UNITS) };
    Err(ValidationError::new("Money", problem))
}

/// An amount of money in minor units (hundredths). It is more than nothing; what an account holds is a [`Balance`].
///
/// ```
/// use eventcore_examples::bank::Money;
///
/// let amount: Money = "12.50".parse()?;
/// assert_eq!(amount.minor_units(), 1_250);
/// assert_eq!(amount.to_string(), "12.50");
/// assert!("0".parse::<Money>().is_err());
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[nutype(
    validate(with = check_money, error = ValidationError),
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)
)]
pub struct Money(u64);

impl Money {
    /// The amount in minor units.
    #[must_use]
    pub fn minor_units(self) -> u64 {
        self.into_inner()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Balance::from(*self).fmt(f)
    }
}

impl FromStr for Money {
    type Err = ValidationError;

    /// Reads an amount such as `12.50`, `12.5` or `12`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse_minor_units(text) {
            Some(0) => Err(malformed("Money", text, "an amount of more than nothing")),
            Some(minor_units) => Self::try_new(minor_units),
            None => Err(malformed("Money", text, "an amount of money such as 12.50")),
        }
    }
}

/// What an account holds, in minor units; less than nothing if it is overdrawn.
///
/// It has 128 bits: with amounts of 63 bits no log is long enough to overflow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Balance(i128);

impl Balance {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The balance in minor units.
    #[must_use]
    pub const fn minor_units(self) -> i128 {
        self.0
    }

    /// How far two balances are apart, in minor units.
    #[must_use]
    pub const fn distance(self, other: Self) -> u128 {
        self.0.abs_diff(other.0)
    }
}

impl From<Money> for Balance {
    fn from(amount: Money) -> Self {
        Self(i128::from(amount.minor_units()))
    }
}

impl Add for Balance {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Balance {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl AddAssign for Balance {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Neg for Balance {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Sum for Balance {
    fn sum<I: Iterator<Item = Self>>(balances: I) -> Self {
        balances.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let units = self.0.unsigned_abs();
        f.pad(&format!("{sign}{}.{:02}", units / 100, units % 100))
    }
}

impl FromStr for Balance {
    type Err = ValidationError;

    /// Reads a balance such as `12.50` or `-3.10`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || malformed("Balance", text, "a balance such as 12.50 or -3.10");
        let (digits, negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
        let units = i128::from(parse_minor_units(digits).ok_or_else(malformed)?);
        Ok(Self(if negative { -units } else { units }))
    }
}

/// Digits, and after a point one or two more; `None` for anything else or too much.
fn parse_minor_units(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(whole) || !fraction.is_none_or(|fraction| fraction.len() <= 2 && all_digits(fraction)) {
        return None;
    }
    let hundredths = match fraction {
        None => 0,
        Some(fraction) if fraction.len() == 1 => fraction.parse::<u64>().ok()?.checked_mul(10)?,
        Some(fraction) => fraction.parse().ok()?,
    };
    whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(hundredths)
}

/// The error about a text of the wrong form; a long text is shown shortened.
pub(super) fn malformed(what: &'static str, text: &str, expected: &'static str) -> ValidationError {
    let mut shown: String = text.chars().take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push_str("..");
    }
    ValidationError::new(what, Problem::Malformed { text: shown, expected })
}
