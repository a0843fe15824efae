//! Running a projection as several workers that share its streams.

use super::driver::Run;
use super::parts::Partitions;
use super::workers::Workers;
use super::{ProjectionConfig, ProjectionError, Projector};
use crate::{EventReader, EventStore, GlobalPosition, InMemory, ProjectionContext, ProjectorCoordinator, UnitOfWork};

/// A context that several workers can have at once: [`InMemory`] and `()`.
///
/// A transaction cannot be shared: it is one connection, and commits one page. A projector that works in the store's
/// transaction is run by [`run_projection`](super::run_projection), whatever it costs to keep up; for more speed, give
/// projectors with filters of their own names of their own.
#[diagnostic::on_unimplemented(
    message = "a projector with the context `{Self}` cannot be split over partitions",
    label = "this projector's context is not shared by several workers",
    note = "a page of a transactional context is one transaction, which several workers cannot use at once; \
            run it with `run_projection`, or let the projector have the context `()` or `InMemory`"
)]
pub trait PartitionContext: ProjectionContext + Copy + Sync {}

impl PartitionContext for () {}

impl PartitionContext for InMemory {}

/// How a projection is run by several workers. Made by [`ProjectionConfig::partitions`].
#[derive(Debug, Clone)]
pub struct PartitionedConfig {
    config: ProjectionConfig,
    partitions: Partitions,
}

impl ProjectionConfig {
    /// Splits the projection over so many workers, by stream, for [`run_partitioned`]. Say it last.
    #[must_use]
    pub const fn partitions(self, partitions: Partitions) -> PartitionedConfig {
        PartitionedConfig { config: self, partitions }
    }
}

/// What a run of several workers did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PartitionedOutcome<P> {
    /// The projectors, one per partition. A read model in memory is the sum of its parts.
    pub projectors: Vec<P>,
    /// How far the log was examined without a gap; `None` if it is empty.
    pub position: Option<GlobalPosition>,
    /// How many events up to there were applied in this run.
    pub applied: u64,
    /// How many were left out because they failed and the projector chose to skip them.
    pub skipped: u64,
    /// How many failed and became dead letters.
    pub parked: u64,
}

/// Runs a projection as several workers at once, each with a projector that `make` makes from the number of its partition,
/// counted from 0. The first one's name and filter count.
///
/// Every stream belongs to one partition ([`Partitions::of`]), so its events are applied in order, by one projector; events
/// of different streams are applied in any order, on tasks of the current tokio runtime. A page is read, split, and applied;
/// when all workers are done with it, its one checkpoint is saved. So the checkpoint means the same whatever the number of
/// partitions, and that number may be another one in every run. A stream may then belong to another worker.
///
/// At-least-once, as with [`run_projection`](super::run_projection), but the workers are not equally fast: what has to be
/// applied again after a crash, a fault, a fatal error or a *stop* is what some of them were ahead of the others, at most a
/// page. A read model in memory that was told to stop may hold events behind the position of its outcome.
///
/// [`Projector::on_error`] is asked of the projector whose event failed. While an event is tried again its own partition
/// waits and the others do not. A fatal failure stops all after the event in hand. Dead letters are parked when the page is
/// done, before its checkpoint is saved.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use eventcore::{
/// #     AppendRequest, Event, EventId, EventMetadata, EventStore, InMemory, NewEvent, Partitions, ProjectionConfig,
/// #     Projector, RecordedEvent, StreamId, run_partitioned,
/// # };
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize, Event)]
/// # #[event(namespace = "bank")]
/// # enum BankEvent { Deposited { cents: u64 } }
/// # #[derive(Default)]
/// # struct Total(u64);
/// # impl Projector for Total {
/// #     type Event = BankEvent;
/// #     type Error = std::convert::Infallible;
/// #     type Context = InMemory;
/// #     fn name(&self) -> &str { "total" }
/// #     async fn apply(&mut self, event: &RecordedEvent<BankEvent>, _: &mut InMemory) -> Result<(), Self::Error> {
/// #         let BankEvent::Deposited { cents } = event.payload();
/// #         self.0 += cents;
/// #         Ok(())
/// #     }
/// # }
/// # let store = eventcore_memory::MemoryEventStore::new();
/// # for account in 1..=9 {
/// #     let event = NewEvent::encode(EventId::generate(), &BankEvent::Deposited { cents: 5 }, EventMetadata::empty())?;
/// #     let account = StreamId::new(format!("account-{account}"))?;
/// #     store.append(AppendRequest::builder().event(account, event).build()?).await?;
/// # }
/// let config = ProjectionConfig::default().partitions(Partitions::try_new(4)?);
/// let outcome = run_partitioned(|_| Total::default(), &store, config).await?;
/// assert_eq!(outcome.projectors.iter().map(|part| part.0).sum::<u64>(), 45);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// As [`run_projection`](super::run_projection).
pub async fn run_partitioned<P, B>(
    make: impl FnMut(usize) -> P,
    backend: &B,
    config: PartitionedConfig,
) -> Result<PartitionedOutcome<P>, ProjectionError<P::Error>>
where
    P: Projector + 'static,
    P::Context: PartitionContext,
    B: EventStore + EventReader + ProjectorCoordinator + UnitOfWork<P::Context> + ?Sized,
{
    let PartitionedConfig { config, partitions } = config;
    let mut projectors: Vec<P> = (0..partitions.get()).map(make).collect();
    let first = projectors.remove(0);
    let crew = Workers::new(projectors, partitions, config.retry, config.retries.into_inner());
    let (outcome, others) = Run::new(first, backend, &config, Some(Box::new(crew)))?.drive_in_span(&config).await?;
    Ok(PartitionedOutcome {
        projectors: std::iter::once(outcome.projector).chain(others).collect(),
        position: outcome.position,
        applied: outcome.applied,
        skipped: outcome.skipped,
        parked: outcome.parked,
    })
}
