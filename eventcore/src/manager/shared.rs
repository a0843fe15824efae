//! A projector that others can look at while it runs.

use crate::{Epoch, EventFilter, FailureContext, FailureStrategy, ProjectionContext, Projector, RecordedEvent};
use std::sync::Arc;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

/// A projector behind a lock. Readers only hold it to copy the read model.
pub(super) struct Shared<P> {
    name: String,
    filter: EventFilter,
    projector: Arc<RwLock<P>>,
    /// Closed while the projection is paused.
    gate: watch::Receiver<bool>,
    /// The run is to end, paused or not.
    stop: CancellationToken,
}

impl<P: Projector> Shared<P> {
    pub(super) fn new(projector: P, gate: watch::Receiver<bool>, stop: CancellationToken) -> (Self, Arc<RwLock<P>>) {
        let (name, filter) = (projector.name().to_owned(), projector.filter());
        let projector = Arc::new(RwLock::new(projector));
        (Self { name, filter, projector: Arc::clone(&projector), gate, stop }, projector)
    }

    /// The projector, from a function that cannot wait. Readers never hold the lock while they wait for anything, so it is
    /// free in an instant.
    fn with<T>(&self, act: impl FnOnce(&mut P) -> T) -> T {
        loop {
            if let Ok(mut projector) = self.projector.try_write() {
                return act(&mut projector);
            }
            std::thread::yield_now();
        }
    }
}

impl<P: Projector + Sync> Projector for Shared<P> {
    type Event = P::Event;
    type Error = P::Error;
    type Context = P::Context;

    fn name(&self) -> &str {
        &self.name
    }

    fn filter(&self) -> EventFilter {
        self.filter.clone()
    }

    async fn apply(&mut self, event: &RecordedEvent<P::Event>, context: &mut P::Context) -> Result<(), P::Error> {
        // A page with durable effects is not held open; such a projection is stopped when it is paused.
        if !P::Context::DURABLE {
            tokio::select! {
                biased;
                // An error means that the manager is gone, and then the run is about to end.
                _ = self.gate.wait_for(|open| *open) => {}
                () = self.stop.cancelled() => {}
            }
        }
        self.projector.write().await.apply(event, context).await
    }

    fn on_error(&mut self, failure: &FailureContext<'_, P::Error>) -> FailureStrategy {
        self.with(|projector| projector.on_error(failure))
    }

    fn leading(&mut self, epoch: Epoch) {
        self.with(|projector| projector.leading(epoch));
    }
}
