//! Read models in memory: the one that serves, and the one that is about to.

use super::follower::lock;
use super::shared::Shared;
use crate::{Progress, Projector};
use std::any::Any;
use std::sync::{Arc, Mutex};
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

/// The read model of one projector; or of several, whose sum it is.
pub(super) struct Parts<P>(Vec<Arc<RwLock<P>>>);

impl<P> Clone for Parts<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P: Clone> Parts<P> {
    /// Copies of all parts, each as it is.
    pub(super) async fn copies(&self) -> Vec<P> {
        let mut copies = Vec::with_capacity(self.0.len());
        for part in &self.0 {
            copies.push(part.read().await.clone());
        }
        copies
    }
}

/// The read models of a projection.
pub(super) struct Models<P>(Mutex<State<P>>);

struct State<P> {
    /// Has caught up once: nobody is shown half of one.
    current: Option<Parts<P>>,
    next: Option<(Parts<P>, Progress)>,
}

impl<P> Default for Models<P> {
    fn default() -> Self {
        Self(Mutex::new(State { current: None, next: None }))
    }
}

impl<P: Projector + 'static> Models<P> {
    /// Begins a read model anew, for a run with this progress. Until it has caught up, the one before it goes on to serve.
    pub(super) fn begin(
        &self,
        projectors: impl IntoIterator<Item = P>,
        progress: &Progress,
        gate: &watch::Receiver<bool>,
        stop: &CancellationToken,
    ) -> Vec<Shared<P>> {
        let shared = |projector| Shared::new(projector, gate.clone(), stop.clone());
        let (projectors, parts) = projectors.into_iter().map(shared).unzip();
        let mut state = lock(&self.0);
        state.serving();
        state.next = Some((Parts(parts), progress.clone()));
        projectors
    }

    /// The [`Parts`] that serve now.
    pub(super) fn serving(&self) -> Option<Box<dyn Any + Send>>
    where
        P: Sync,
    {
        lock(&self.0).serving().map(|parts| Box::new(parts) as Box<dyn Any + Send>)
    }
}

impl<P> State<P> {
    /// The read model that serves now: the next one as soon as it has caught up. It is looked at whenever somebody asks, so
    /// that who has seen the run live also sees its read model.
    fn serving(&mut self) -> Option<Parts<P>> {
        if let Some((parts, _)) = self.next.take_if(|(_, progress)| progress.has_been_live()) {
            self.current = Some(parts);
        }
        self.current.clone()
    }
}
