//! A projector under another name.

use super::super::{FailureContext, FailureStrategy, Projector};
use crate::{Epoch, EventFilter, ProjectionName, RecordedEvent};

/// One version of a read model, under the name of its checkpoint.
pub(super) struct Named<P> {
    pub(super) name: ProjectionName,
    pub(super) projector: P,
}

impl<P: Projector> Projector for Named<P> {
    type Event = P::Event;
    type Error = P::Error;
    type Context = P::Context;

    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn filter(&self) -> EventFilter {
        self.projector.filter()
    }

    fn apply(
        &mut self,
        event: &RecordedEvent<P::Event>,
        context: &mut P::Context,
    ) -> impl Future<Output = Result<(), P::Error>> + Send {
        self.projector.apply(event, context)
    }

    fn on_error(&mut self, failure: &FailureContext<'_, P::Error>) -> FailureStrategy {
        self.projector.on_error(failure)
    }

    fn leading(&mut self, epoch: Epoch) {
        self.projector.leading(epoch);
    }
}
