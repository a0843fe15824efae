//! The runner of projections with one projector.

use super::ManagerError;
use super::follower::{Failure, Replayed, Runner, Session};
use super::models::Models;
use super::rebuild::RebuildWay;
use crate::{
    EventReader, EventStore, GlobalPosition, ProjectionContext, ProjectionName, Projector, ProjectorCoordinator,
    UnitOfWork, replay_dead_letter, replay_dead_letters, run_projection,
};
use async_trait::async_trait;
use std::any::Any;

/// The runner of projectors of type `P`.
pub(super) struct RunnerOf<P, B> {
    backend: B,
    make: Box<dyn Fn() -> P + Send + Sync>,
    models: Models<P>,
}

impl<P, B> RunnerOf<P, B> {
    pub(super) fn new(backend: B, make: impl Fn() -> P + Send + Sync + 'static) -> Self {
        Self { backend, make: Box::new(make), models: Models::default() }
    }
}

#[async_trait]
impl<P, B> Runner for RunnerOf<P, B>
where
    P: Projector + Sync + 'static,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + Clone + 'static,
{
    async fn run(&self, session: Session) -> Result<(), Failure> {
        let projectors = self.models.begin([(self.make)()], &session.progress, &session.gate, &session.stop);
        let config = session.projection(self.backend.clone());
        for projector in projectors {
            run_projection(projector, &self.backend, config.clone()).await.map_err(Failure::new)?;
        }
        Ok(())
    }

    fn stops_when_paused(&self) -> bool {
        P::Context::DURABLE
    }

    fn read_model(&self) -> Option<Box<dyn Any + Send>> {
        self.models.serving()
    }

    fn rebuild_way(&self) -> RebuildWay {
        if P::Context::DURABLE { RebuildWay::None } else { RebuildWay::Value }
    }

    async fn replay(&self, name: &ProjectionName, one: Option<GlobalPosition>) -> Result<Replayed, ManagerError> {
        replay((self.make)(), &self.backend, name, one).await
    }
}

/// Replays one dead letter, or all, with this projector.
pub(super) async fn replay<P, B>(
    projector: P,
    backend: &B,
    name: &ProjectionName,
    one: Option<GlobalPosition>,
) -> Result<Replayed, ManagerError>
where
    P: Projector,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context>,
{
    let replayed = match one {
        Some(position) => replay_dead_letter(projector, backend, position).await.map(|_| (1, 0)),
        None => replay_dead_letters(projector, backend).await.map(|outcome| (outcome.replayed, outcome.failed)),
    };
    let (replayed, failed) = replayed.map_err(|error| ManagerError::replay(name, error))?;
    Ok(Replayed { replayed, failed })
}
