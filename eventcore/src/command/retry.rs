//! How often and how soon a command is tried again.

use crate::validation::check_range;
use crate::{Problem, ValidationError};
use nutype::nutype;
use std::time::Duration;

fn check_attempts(value: &u32) -> Result<(), ValidationError> {
    check_range("MaxAttempts", u64::from(*value), 1, 10_000)
}

/// How often something is tried at most: 1 to 10,000, by default 20.
#[nutype(
    validate(with = check_attempts, error = ValidationError),
    default = 20,
    derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Display, Default)
)]
pub struct MaxAttempts(u32);

impl MaxAttempts {
    /// The number of attempts.
    #[must_use]
    pub fn get(self) -> u32 {
        self.into_inner()
    }
}

fn check_multiplier(value: &f64) -> Result<(), ValidationError> {
    if (1.0..=100.0).contains(value) {
        return Ok(());
    }
    let problem = Problem::Malformed { text: value.to_string(), expected: "a number from 1.0 to 100.0" };
    Err(ValidationError::new("BackoffMultiplier", problem))
}

/// By how much each delay is longer than the one before: 1.0 to 100.0, by default 2.0.
#[nutype(
    validate(with = check_multiplier, error = ValidationError),
    default = 2.0,
    derive(Debug, Clone, Copy, PartialEq, PartialOrd, Display, Default)
)]
pub struct BackoffMultiplier(f64);

/// How often a command is tried, and how long it waits in between: exponential backoff with a cap and full jitter.
///
/// The delay before retry `n` is random between nothing and `base * multiplier^(n-1)`, at most `cap`.
///
/// ```
/// use eventcore::{MaxAttempts, RetryPolicy};
/// use std::time::Duration;
///
/// let policy = RetryPolicy::default().max_attempts(MaxAttempts::try_new(5)?).cap(Duration::from_millis(50));
/// assert_eq!(policy.delay(3, 1.0), Duration::from_millis(4));
/// assert_eq!(policy.delay(30, 1.0), Duration::from_millis(50));
/// assert_eq!(policy.delay(3, 0.0), Duration::ZERO);
/// # Ok::<(), eventcore::ValidationError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    max_attempts: MaxAttempts,
    base: Duration,
    multiplier: BackoffMultiplier,
    cap: Duration,
}

impl Default for RetryPolicy {
    /// 20 attempts, 1 ms, doubling, at most 100 ms.
    fn default() -> Self {
        Self {
            max_attempts: MaxAttempts::default(),
            base: Duration::from_millis(1),
            multiplier: BackoffMultiplier::default(),
            cap: Duration::from_millis(100),
        }
    }
}

impl RetryPolicy {
    /// One attempt, no retry.
    #[must_use]
    pub fn none() -> Self {
        Self { max_attempts: MaxAttempts::try_new(1).unwrap_or_default(), ..Self::default() }
    }

    /// How often a command is tried at most, the first time included. Conflicts and an unavailable store count apart.
    #[must_use]
    pub const fn max_attempts(mut self, attempts: MaxAttempts) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The longest delay before the first retry.
    #[must_use]
    pub const fn base(mut self, delay: Duration) -> Self {
        self.base = delay;
        self
    }

    /// By how much the delay grows.
    #[must_use]
    pub const fn multiplier(mut self, multiplier: BackoffMultiplier) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// The longest delay of all.
    #[must_use]
    pub const fn cap(mut self, delay: Duration) -> Self {
        self.cap = delay;
        self
    }

    /// How often a command is tried at most.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.max_attempts.get()
    }

    /// The delay before retry `retry` (from 1), where `jitter` from 0.0 to 1.0 is the random part.
    #[must_use]
    pub fn delay(&self, retry: u32, jitter: f64) -> Duration {
        let growth = self.multiplier.into_inner().powi(i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX));
        let longest = (self.base.as_secs_f64() * growth).min(self.cap.as_secs_f64());
        Duration::try_from_secs_f64(longest * jitter.clamp(0.0, 1.0)).unwrap_or(self.cap)
    }
}
