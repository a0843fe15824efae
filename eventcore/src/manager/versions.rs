//! The runner of projections whose read model has versions.

use super::follower::{Failure, Runner, Session};
use super::rebuild::{RebuildWay, VersionStore};
use crate::{
    Backend, ReadModelVersion, SharedError, VersionedProjector, VersionedUnitOfWork, run_versioned_projection,
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
        let config = session.config.run().shutdown(session.stop).progress(session.progress);
        match run_versioned_projection(&*self.make, &self.backend, config).await {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure { retry: error.retry_helps(), error: SharedError::new(error) }),
        }
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
}
