//! What a case found.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::time::Duration;
use thiserror::Error;

/// A promise of the ports that a store did not keep, and where the suite noticed.
#[derive(Error)]
#[non_exhaustive]
pub enum ContractViolation {
    /// The store did something else than it promises.
    #[error("{what} ({location})")]
    Broken {
        /// What was promised and what was seen.
        what: String,
        /// The line of the suite.
        location: &'static Location<'static>,
    },
    /// A call failed that has to succeed.
    #[error("a call failed that has to succeed ({location})")]
    Failed {
        /// The error of the call.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
        /// The line of the suite.
        location: &'static Location<'static>,
    },
    /// The case panicked: the store answered with less than it has to.
    #[error("the case panicked: {what}")]
    Panicked {
        /// What the panic said.
        what: String,
    },
    /// The case did not end.
    #[error("the case did not end within {limit:?}: a call hangs, or what was promised never came")]
    TimedOut {
        /// How long it was given.
        limit: Duration,
    },
    /// There is no case of this name.
    #[error("there is no case called {name}")]
    UnknownCase {
        /// The name.
        name: String,
    },
}

impl ContractViolation {
    /// A promise that was not kept.
    #[track_caller]
    pub fn broken(what: impl Into<String>) -> Self {
        Self::Broken { what: what.into(), location: Location::caller() }
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Self {
        let what = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Self::Panicked { what: what.unwrap_or("without a word").to_owned() }
    }
}

/// A failing test shows the whole chain of causes.
impl fmt::Debug for ContractViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

macro_rules! failed_from {
    ($($error:ty),+ $(,)?) => {$(
        impl From<$error> for ContractViolation {
            #[track_caller]
            fn from(error: $error) -> Self {
                Self::Failed { source: error.into(), location: Location::caller() }
            }
        }
    )+};
}

failed_from!(
    Box<dyn StdError + Send + Sync>,
    eventcore::CheckpointError,
    eventcore::EncodeError,
    eventcore::EventStoreError,
    eventcore::FeedError,
    eventcore::InvalidAppend,
    eventcore::LeadershipError,
    eventcore::ManagerError,
    eventcore::ProgressClosed,
    eventcore::ValidationError,
    eventcore::WatchError,
    std::io::Error,
    tokio::task::JoinError,
);

impl<E: StdError + Send + Sync + 'static> From<eventcore::CommandError<E>> for ContractViolation {
    #[track_caller]
    fn from(error: eventcore::CommandError<E>) -> Self {
        Self::Failed { source: error.into(), location: Location::caller() }
    }
}

impl<E: StdError + Send + Sync + 'static> From<eventcore::ProjectionError<E>> for ContractViolation {
    #[track_caller]
    fn from(error: eventcore::ProjectionError<E>) -> Self {
        Self::Failed { source: error.into(), location: Location::caller() }
    }
}

impl<E: StdError + Send + Sync + 'static> From<eventcore::ReplayError<E>> for ContractViolation {
    #[track_caller]
    fn from(error: eventcore::ReplayError<E>) -> Self {
        Self::Failed { source: error.into(), location: Location::caller() }
    }
}

/// Leaves a case with [`ContractViolation::Broken`] unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::ContractViolation::broken(format!($($what)+)));
        }
    };
}

/// Leaves a case with [`ContractViolation::Broken`] unless two values are equal.
macro_rules! ensure_eq {
    ($found:expr, $expected:expr, $($what:tt)+) => {{
        let (found, expected) = (&$found, &$expected);
        $crate::violation::ensure!(found == expected, "{}: expected {expected:?}, found {found:?}", format!($($what)+));
    }};
}

/// Leaves a case with [`ContractViolation::Broken`] unless a value has the shape.
macro_rules! ensure_matches {
    ($found:expr, $pattern:pat $(if $guard:expr)?, $($what:tt)+) => {
        match &$found {
            $pattern $(if $guard)? => {}
            found => {
                let what = format!("{}: found {found:?}", format!($($what)+));
                return Err($crate::ContractViolation::broken(what));
            }
        }
    };
}

pub(crate) use {ensure, ensure_eq, ensure_matches};
