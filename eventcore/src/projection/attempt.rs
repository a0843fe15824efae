//! One event, and what becomes of it.

use super::protocol::Applied;
use super::{FailureContext, FailureStrategy, ProjectionError, ProjectionFailure, Projector};
use crate::{DeadLetter, DecodeError, ProjectionName, RecordedEvent};
use std::error::Error as StdError;

/// Why an event failed.
pub(super) enum Failed<E> {
    Decode(DecodeError),
    Apply(E),
}

/// Decodes and applies an event, which may be `decoded` already.
///
/// It is decoded no sooner than here, unless the run had to wait for its checkpoint: what was decoded long before it is
/// needed has left the processor's cache, and takes memory until then.
pub(super) async fn apply<P: Projector>(
    projector: &mut P,
    event: &RecordedEvent,
    decoded: Option<RecordedEvent<P::Event>>,
    context: &mut P::Context,
) -> Result<(), Failed<P::Error>> {
    match decoded.map_or_else(|| event.decoded(), Ok) {
        Ok(event) => projector.apply(&event, context).await.map_err(Failed::Apply),
        Err(error) => Err(Failed::Decode(error)),
    }
}

/// Applies an event; if it fails, the projector chooses what is to happen. The letter about an event that may become a dead
/// one is added to `letters`.
pub(super) async fn attempt<P: Projector>(
    projector: &mut P,
    event: &RecordedEvent,
    context: &mut P::Context,
    attempt: u32,
    name: &ProjectionName,
    letters: &mut Vec<DeadLetter>,
) -> Applied<ProjectionError<P::Error>> {
    match apply(projector, event, None, context).await {
        Ok(()) => Applied::Ok,
        Err(failed) => judge(projector, event, failed, attempt, name, letters),
    }
}

/// An event failed, and the projector chooses what is to happen.
pub(super) fn judge<P: Projector>(
    projector: &mut P,
    event: &RecordedEvent,
    failed: Failed<P::Error>,
    attempt: u32,
    name: &ProjectionName,
    letters: &mut Vec<DeadLetter>,
) -> Applied<ProjectionError<P::Error>> {
    let position = event.position();
    let (strategy, error) = match failed {
        Failed::Apply(source) => {
            let failure = ProjectionFailure::Apply(&source);
            let strategy = projector.on_error(&FailureContext::new(failure, event.header(), attempt));
            let event_type = event.event_type().clone();
            (strategy, ProjectionError::Apply { position, event_type, attempts: attempt, source })
        }
        Failed::Decode(source) => {
            let failure = ProjectionFailure::Decode(&source);
            let strategy = projector.on_error(&FailureContext::new(failure, event.header(), attempt));
            (strategy, ProjectionError::Decode { position, source })
        }
    };
    let header = event.header();
    tracing::warn!(
        position = position.get(),
        event_type = header.event_type.as_str(),
        attempt,
        ?strategy,
        error = &error as &dyn StdError,
        "an event failed in a projection"
    );
    match strategy {
        FailureStrategy::Fatal => Applied::Fatal(error),
        FailureStrategy::Skip => Applied::Skip,
        FailureStrategy::Retry => Applied::Retry(error),
        FailureStrategy::DeadLetter | FailureStrategy::RetryThenDeadLetter => {
            // The last attempt is the one that counts.
            letters.retain(|letter| letter.id.position != position);
            letters.push(DeadLetter::new(name.clone(), header, attempt, &error));
            match strategy {
                FailureStrategy::DeadLetter => Applied::DeadLetter,
                _ => Applied::RetryThenDeadLetter,
            }
        }
    }
}
