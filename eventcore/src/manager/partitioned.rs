//! The runner of projections that are split over partitions.

use super::ManagerError;
use super::follower::{Failure, Replayed, Runner, Session};
use super::models::Models;
use super::rebuild::RebuildWay;
use super::runner::replay;
use super::shared::Shared;
use crate::{
    Backend, DeadLetterId, GlobalPosition, PageSize, PartitionContext, Partitions, ProjectionContext, ProjectionName,
    Projector, UnitOfWork, run_partitioned,
};
use async_trait::async_trait;
use std::any::Any;
use std::sync::Arc;

/// Makes the projectors of all partitions.
pub(super) struct PartMaker<P> {
    pub(super) make: Arc<dyn Fn(usize) -> P + Send + Sync>,
    pub(super) partitions: Partitions,
}

impl<P> Clone for PartMaker<P> {
    fn clone(&self) -> Self {
        Self { make: Arc::clone(&self.make), partitions: self.partitions }
    }
}

/// The runner of projectors of type `P`, one for each partition.
pub(super) struct PartitionedRunner<P, B> {
    backend: B,
    maker: PartMaker<P>,
    models: Models<P>,
}

impl<P, B> PartitionedRunner<P, B> {
    pub(super) fn new(backend: B, maker: PartMaker<P>) -> Self {
        Self { backend, maker, models: Models::default() }
    }
}

#[async_trait]
impl<P, B> Runner for PartitionedRunner<P, B>
where
    P: Projector + Sync + 'static,
    P::Context: PartitionContext,
    B: Backend + UnitOfWork<P::Context> + Clone + 'static,
{
    async fn run(&self, session: Session) -> Result<(), Failure> {
        let PartMaker { make, partitions } = &self.maker;
        let projectors = (0..partitions.get()).map(|number| make(number));
        let projectors = self.models.begin(projectors, &session.progress, &session.gate, &session.stop);
        // Each is asked for once, in order.
        let mut projectors = projectors.into_iter();
        let config = session.projection(self.backend.clone()).partitions(*partitions);
        let make = |number| {
            let made = || Shared::new(make(number), session.gate.clone(), session.stop.clone()).0;
            projectors.next().unwrap_or_else(made)
        };
        run_partitioned(make, &self.backend, config).await.map(drop).map_err(Failure::new)
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

    /// Each letter by the projector that its stream belongs to.
    async fn replay(&self, name: &ProjectionName, one: Option<GlobalPosition>) -> Result<Replayed, ManagerError> {
        let (mut done, mut after) = (Replayed::default(), None);
        let id = |position| DeadLetterId { handler: name.clone(), position };
        loop {
            let letters = match one {
                Some(position) => {
                    let letter = self.backend.dead_letter(&id(position)).await?;
                    vec![letter.ok_or_else(|| ManagerError::NoSuchLetter { id: id(position) })?]
                }
                None => self.backend.dead_letters(Some(name), after.as_ref(), PageSize::default()).await?,
            };
            let Some(last) = letters.last() else { return Ok(done) };
            after = Some(last.id.clone());
            for letter in letters {
                let part = (self.maker.make)(self.maker.partitions.of(&letter.stream_id));
                match replay(part, &self.backend, name, Some(letter.id.position)).await {
                    Ok(_) => done.replayed += 1,
                    Err(error) if one.is_some() => return Err(error),
                    Err(ManagerError::ReplayFailed { .. }) => done.failed += 1,
                    Err(ManagerError::NoSuchLetter { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            if one.is_some() {
                return Ok(done);
            }
        }
    }
}
