//! What a user writes: a read model and how events change it.

use crate::{DecodeError, Epoch, Event, EventFilter, EventHeader, ProjectionContext, RecordedEvent};
use std::error::Error as StdError;
use std::future::Future;

/// A read model, or anything else that follows the log event by event.
///
/// The type of its context chooses the guarantee:
/// - [`InMemory`](crate::InMemory): the read model lives in this value. No checkpoint is stored; every run starts at the
///   beginning of the log, in every instance.
/// - `()`: durable effects of its own. At-least-once: the checkpoint is saved after the effects, so after a crash the
///   events since the last checkpoint come again. One instance leads.
/// - the transaction type of an adapter: effects and checkpoint are committed together, exactly-once. One instance
///   leads. Keep no state in the projector itself: a page that is rolled back is applied again.
///
/// ```
/// use eventcore::{InMemory, Projector, RecordedEvent};
/// # use eventcore::{DecodeError, EncodeError, Event, EventType, EventTypeInfo, Payload, SchemaVersion};
/// # struct BankEvent { cents: i64 }
/// # impl Event for BankEvent {
/// #     fn event_types() -> Vec<EventTypeInfo> { Vec::new() }
/// #     fn event_type(&self) -> EventType { EventType::new("x").unwrap() }
/// #     fn schema_version(&self) -> SchemaVersion { SchemaVersion::default() }
/// #     fn encode(&self) -> Result<Payload, EncodeError> { Ok(Payload::json("{}")) }
/// #     fn decode(t: &EventType, _: SchemaVersion, _: &Payload) -> Result<Self, DecodeError> {
/// #         Err(DecodeError::UnknownType { event_type: t.clone() })
/// #     }
/// # }
/// #[derive(Default)]
/// struct Total(i64);
///
/// impl Projector for Total {
///     type Event = BankEvent;
///     type Error = std::convert::Infallible;
///     type Context = InMemory;
///
///     fn name(&self) -> &str {
///         "total"
///     }
///
///     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> {
///         self.0 += event.payload().cents;
///         Ok(())
///     }
/// }
/// ```
pub trait Projector: Send {
    /// The events it reads.
    type Event: Event;
    /// Why it cannot apply an event.
    type Error: StdError + Send + Sync + 'static;
    /// What it applies events in; chooses the guarantee.
    type Context: ProjectionContext;

    /// Its name: checkpoint and leadership go by it. 1 to 255 characters, as [`ProjectionName`](crate::ProjectionName)
    /// says.
    fn name(&self) -> &str;

    /// Which events it wants; by default those that its event type reads.
    fn filter(&self) -> EventFilter {
        EventFilter::of::<Self::Event>()
    }

    /// Applies one event. Events come in global order, each after the one before has been applied.
    ///
    /// With the transaction of an adapter as context it may be dropped at any `await` when the leadership is lost. The page is
    /// rolled back then, but fields of the projector that were changed before stay as they are: what it keeps as a cache it
    /// has to reset in [`leading`](Self::leading).
    ///
    /// # Errors
    /// Its own error, for which [`on_error`](Self::on_error) chooses what happens.
    fn apply(
        &mut self,
        event: &RecordedEvent<Self::Event>,
        context: &mut Self::Context,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Chooses what happens when an event could not be decoded or applied. By default the projection ends with the error.
    ///
    /// ```
    /// use eventcore::{FailureContext, FailureStrategy, ProjectionFailure};
    ///
    /// #[derive(Debug, thiserror::Error)]
    /// enum MailError {
    ///     #[error("the mail server cannot be reached")]
    ///     Unreachable,
    ///     #[error("there is no such address")]
    ///     NoSuchAddress,
    /// }
    ///
    /// // As in `on_error` of a projector with `type Error = MailError`.
    /// fn on_error(failure: &FailureContext<'_, MailError>) -> FailureStrategy {
    ///     match failure.failure {
    ///         ProjectionFailure::Apply(MailError::Unreachable) => FailureStrategy::RetryThenDeadLetter,
    ///         ProjectionFailure::Apply(MailError::NoSuchAddress) => FailureStrategy::DeadLetter,
    ///         // Bytes that cannot be decoded, and whatever else may come: somebody has to look.
    ///         _ => FailureStrategy::Fatal,
    ///     }
    /// }
    /// # let _ = on_error;
    /// ```
    fn on_error(&mut self, _failure: &FailureContext<'_, Self::Error>) -> FailureStrategy {
        FailureStrategy::Fatal
    }

    /// Is told the epoch when this instance becomes the leader: a fencing token for effects outside of the store. Also the
    /// place to reset caches in fields, as what [`apply`](Self::apply) put there may have been rolled back.
    fn leading(&mut self, _epoch: Epoch) {}
}

/// What happens with an event that could not be decoded or applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureStrategy {
    /// The projection ends with the error. It resumes at this event.
    Fatal,
    /// The event is left out. It is logged and counted.
    Skip,
    /// The event is tried again after a delay, as often as the configuration allows; then it is fatal.
    Retry,
    /// The event is left out and kept as a [`DeadLetter`](crate::DeadLetter), to be replayed or discarded later: in the
    /// transaction of the page where there is one, else before the checkpoint. It is logged and counted.
    DeadLetter,
    /// As [`Retry`](Self::Retry), but when the attempts are used up the event becomes a dead letter.
    RetryThenDeadLetter,
}

/// An event that could not be decoded or applied.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailureContext<'a, E> {
    /// What went wrong.
    pub failure: ProjectionFailure<'a, E>,
    /// The event, without its payload.
    pub event: &'a EventHeader,
    /// How often it was tried, from 1.
    pub attempt: u32,
}

impl<'a, E> FailureContext<'a, E> {
    pub(super) const fn new(failure: ProjectionFailure<'a, E>, event: &'a EventHeader, attempt: u32) -> Self {
        Self { failure, event, attempt }
    }
}

/// What went wrong with an event.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProjectionFailure<'a, E> {
    /// Its bytes could not be turned into the projector's event type.
    Decode(&'a DecodeError),
    /// The projector said no.
    Apply(&'a E),
}
