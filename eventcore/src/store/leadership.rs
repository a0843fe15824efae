//! Which of several instances runs a projection.

use super::{EventStoreError, ProjectionName};
use async_trait::async_trait;
use std::fmt;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// The number of a leadership: each one that is given out for a name is higher than all before it.
///
/// It fences: what a leader writes is refused when a higher epoch has been given out. Projectors with effects elsewhere
/// pass it on as a fencing token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch of a follower that never had a leader.
    pub const NONE: Self = Self(0);

    /// The epoch with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The epoch of the next leader.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leadership of one projection, held as long as this value lives.
///
/// Dropping it gives it up without blocking; [`release`](ProjectorCoordinator::release) also waits until others can see it.
pub struct Leadership {
    name: ProjectionName,
    epoch: Epoch,
    lost: CancellationToken,
    guard: Box<dyn Send + Sync>,
}

impl Leadership {
    /// A leadership that lasts as long as `guard` lives and says through `lost` when it ended before that.
    #[must_use]
    pub fn new(name: ProjectionName, epoch: Epoch, lost: CancellationToken, guard: impl Send + Sync + 'static) -> Self {
        Self { name, epoch, lost, guard: Box::new(guard) }
    }

    /// The projection that is led.
    #[must_use]
    pub const fn name(&self) -> &ProjectionName {
        &self.name
    }

    /// The number of this leadership.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Is cancelled when this instance can no longer be sure that it leads: it has to stop applying.
    #[must_use]
    pub const fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Gives up, and hands the guard to the adapter, which may want to wait for it.
    #[must_use]
    pub fn into_guard(self) -> Box<dyn Send + Sync> {
        self.guard
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership").field("name", &self.name).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// An error about leadership.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum LeadershipError {
    /// Another instance leads. Try again later.
    #[error("projection {name} is led by another instance")]
    Busy {
        /// The projection.
        name: ProjectionName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] EventStoreError),
}

/// The port that makes one of several instances the leader of a projection.
#[async_trait]
pub trait ProjectorCoordinator: Send + Sync {
    /// Takes the leadership of `name` if nobody has it, with an epoch higher than all before it. From then on whatever
    /// carries an older epoch is refused.
    ///
    /// It answers at once; who wants to wait asks again. A leader that died is replaced within seconds.
    ///
    /// # Errors
    /// [`LeadershipError::Busy`] if another instance leads, in this process or elsewhere, else what the store says.
    async fn acquire(&self, name: &ProjectionName) -> Result<Leadership, LeadershipError>;

    /// Gives the leadership up; when this returns, another instance can take it.
    ///
    /// # Errors
    /// What the store says. The leadership ends all the same.
    async fn release(&self, leadership: Leadership) -> Result<(), LeadershipError>;
}
