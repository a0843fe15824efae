//! The run of one version, on a task of its own.

use super::super::{ProjectionError, ProjectionOutcome, Projector};
use super::named::Named;
use crate::{EventStoreError, Progress, ProjectionName};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

type Outcome<P> = Result<ProjectionOutcome<Named<P>>, ProjectionError<<P as Projector>::Error>>;

/// A run under way. Two versions are followed by two tasks, so that neither waits within a page of the other; dropping this
/// ends the task, and with it the page it has open.
pub(super) struct Child<P: Projector> {
    pub(super) name: ProjectionName,
    pub(super) progress: Progress,
    stop: CancellationToken,
    task: JoinHandle<Outcome<P>>,
    /// Shows the progress elsewhere too.
    mirror: Option<JoinHandle<()>>,
}

impl<P: Projector> Drop for Child<P> {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(mirror) = &self.mirror {
            mirror.abort();
        }
    }
}

impl<P: Projector + 'static> Child<P> {
    /// Spawns `run`, which ends well when `stop` is cancelled.
    pub(super) fn spawn(
        name: ProjectionName,
        progress: Progress,
        stop: CancellationToken,
        run: impl Future<Output = Outcome<P>> + Send + 'static,
    ) -> Self {
        Self { name, progress, stop, task: tokio::spawn(run), mirror: None }
    }

    /// Shows the progress of this run as that of the projection.
    pub(super) fn shown_as(mut self, shown: &Progress) -> Self {
        let (from, to) = (self.progress.clone(), shown.clone());
        self.mirror = Some(tokio::spawn(async move { to.mirror(&from).await }));
        self
    }

    /// Waits until the run ends. May be cancelled.
    pub(super) async fn ended(&mut self) -> Outcome<P> {
        let ended = (&mut self.task).await;
        ended.unwrap_or_else(|error| Err(self.died(error)))
    }

    /// Finishes the event in hand, saves the checkpoint, and ends.
    pub(super) async fn stop(mut self) -> Outcome<P> {
        self.stop.cancel();
        self.ended().await
    }

    fn died(&self, error: JoinError) -> ProjectionError<P::Error> {
        match error.try_into_panic() {
            Ok(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                ProjectionError::Panicked { name: self.name.clone(), message: text.unwrap_or_default() }
            }
            // The runtime shuts down.
            Err(error) => EventStoreError::unavailable(error).into(),
        }
    }
}
