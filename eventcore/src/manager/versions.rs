//! The runner of projections whose read model has versions.

use super::ManagerError;
use super::follower::{Failure, Replayed, Runner, Session};
use super::rebuild::{RebuildWay, VersionStore};
use super::runner::replay;
use crate::{
    Backend, DeadLetterId, GlobalPosition, ProjectionName, ReadModelVersion, VersionedProjector, VersionedUnitOfWork,
    run_versioned_projection,
};
use async_trait::async_trait;
use std::any::Any;
use std::sync::Arc;

/// The runner of projectors of type `P`, one for each version.
pub(super) struct VersionedRunner<P, B> {
    backend: B,
    make: Box<dyn Fn(ReadModelVersion) -> P + Send + Sync>,
}

impl<P, B> VersionedRunner<P, B> {
    pub(super) fn new(backend: B, make: impl Fn(ReadModelVersion) -> P + Send + Sync + 'static) -> Self {
        Self { backend, make: Box::new(make) }
    }
}

#[async_trait]
impl<P, B> Runner for VersionedRunner<P, B>
where
    P: VersionedProjector + Sync + 'static,
    B: Backend + VersionedUnitOfWork<P::Context> + Clone + 'static,
{
    async fn run(&self, session: Session) -> Result<(), Failure> {
        let config = session.projection(self.backend.clone());
        run_versioned_projection(&*self.make, &self.backend, config).await.map(drop).map_err(Failure::new)
    }

    fn stops_when_paused(&self) -> bool {
        true
    }

    fn read_model(&self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn rebuild_way(&self) -> RebuildWay {
        RebuildWay::Versions(Arc::new(self.backend.clone()) as Arc<dyn VersionStore>)
    }

    /// By the version in force, which the letters are about.
    async fn replay(&self, name: &ProjectionName, one: Option<GlobalPosition>) -> Result<Replayed, ManagerError> {
        let model = self.backend.read_model(name).await?.unwrap_or_default();
        match (model.in_force, one) {
            (Some(version), one) => replay((self.make)(version), &self.backend, name, one).await,
            (None, None) => Ok(Replayed::default()),
            (None, Some(position)) => {
                Err(ManagerError::NoSuchLetter { id: DeadLetterId { handler: name.clone(), position } })
            }
        }
    }
}
