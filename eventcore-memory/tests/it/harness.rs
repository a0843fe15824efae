//! The stores that the contract is tested with.

use eventcore_memory::{MemoryConfig, MemoryEventStore};
use eventcore_testing::{Harness, HarnessError, StoreLimits};

pub(crate) struct Memory;

impl Harness for Memory {
    type Store = MemoryEventStore;
    /// The store itself: every handle to it is an instance.
    type Place = MemoryEventStore;
    const NAME: &'static str = "memory";
    const GAPLESS: bool = true;
    const DURABLE: bool = false;

    async fn create(&self, limits: StoreLimits) -> Result<Self::Place, HarnessError> {
        let StoreLimits { append: limits, max_read_events } = limits;
        Ok(MemoryEventStore::with_config(MemoryConfig { limits, max_read_events }))
    }

    async fn open(&self, place: &Self::Place) -> Result<Self::Store, HarnessError> {
        Ok(place.clone())
    }
}
