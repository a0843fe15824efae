//! The two traits of a command: which streams, and what to decide.

use super::{Discovered, NewEvents, StateFold, StreamBinder};
use crate::{Event, EventType, RecordedEvent, ValidationError};
use std::error::Error as StdError;

/// The streams of a command. Derive it: every `#[stream]` field is one.
///
/// ```
/// use eventcore::{Command, StreamId};
///
/// #[derive(Command)]
/// struct Transfer {
///     #[stream]
///     from: StreamId,
///     #[stream]
///     to: StreamId,
///     #[stream(read_only)]
///     limits: Option<StreamId>,
///     cents: u64,
/// }
/// # let _ = |t: Transfer| t.cents;
/// ```
pub trait Command: Sized + Send + Sync + 'static {
    /// The handles of this command's streams: for the derive a struct named after the command, `TransferStreams`,
    /// with a field of the same name for every `#[stream]` field and a method `discovered()`.
    type Streams: Send + Sync;

    /// The stable name of the command's type, part of the fingerprint of its receipts. By default the type's name.
    fn command_type() -> &'static str;

    /// Names the streams and takes the handles that [`CommandLogic::handle`] appends to.
    ///
    /// # Errors
    /// [`ValidationError`] if a field makes no valid stream name.
    fn bind(&self, streams: &mut StreamBinder<Self>) -> Result<Self::Streams, ValidationError>;
}

/// What a command decides. All of it is pure: no clock, no randomness, no I/O.
pub trait CommandLogic: Command {
    /// The events it reads and writes.
    type Event: Event;
    /// What it knows when it decides, folded from the events of all its streams.
    type State: Default + Send;
    /// Why it says no.
    type Error: StdError + Send + Sync + 'static;

    /// Folds one event into the state. Events come in global order, over all streams.
    fn apply(&self, state: &mut Self::State, event: &RecordedEvent<Self::Event>);

    /// Says whether the state may be kept between executions: not at all by default. If it may, it is folded by
    /// [`StreamState::apply`](crate::StreamState::apply), which cannot look at the command, and never by
    /// [`apply`](Self::apply): whether it is kept makes no difference but of speed.
    fn state_fold() -> StateFold<Self> {
        StateFold::by_command()
    }

    /// Decides: the events to append, or why not. It is called again with fresh state when somebody else was faster.
    ///
    /// # Errors
    /// The domain's rejection, which reaches the caller as [`CommandError::Rejected`](super::CommandError::Rejected).
    fn handle(&self, state: &Self::State, streams: &Self::Streams) -> Result<NewEvents<Self>, Self::Error>;

    /// Names further streams that the state shows to be needed. All streams are then read again, in one consistent read,
    /// and folded anew, until nothing new is named: at most 16 rounds and 1,000 streams.
    fn discover(&self, _state: &Self::State) -> Discovered {
        Discovered::none()
    }

    /// Event types in its streams that do not concern it. Any other type that [`Event`](Self::Event) does not know is an
    /// error, since a decision on half the facts would be wrong.
    fn ignored_event_types(&self) -> Vec<EventType> {
        Vec::new()
    }
}

/// Leaves [`CommandLogic::handle`] with an error unless a condition holds.
///
/// ```
/// # use eventcore::require;
/// # #[derive(Debug, PartialEq)] enum TransferError { InsufficientFunds }
/// fn check(balance: u64, amount: u64) -> Result<(), TransferError> {
///     require!(balance >= amount, TransferError::InsufficientFunds);
///     Ok(())
/// }
/// assert_eq!(check(1, 2), Err(TransferError::InsufficientFunds));
/// ```
#[macro_export]
macro_rules! require {
    ($condition:expr, $error:expr $(,)?) => {
        if !$condition {
            return ::core::result::Result::Err(::core::convert::Into::into($error));
        }
    };
}
