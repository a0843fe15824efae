//! Projections split over partitions: every stream in order and nothing lost, whatever their number.

use crate::Environment;
use crate::domain::Money;
use crate::faults::{FaultyStore, ReadFault, SaveFault};
use crate::fixtures::*;
use crate::harness::OpenStore;
use crate::violation::{ensure, ensure_eq};
use eventcore::{
    EventId, EventMetadata, EventStore, InMemory, MaxConsecutiveFailures, NewEvent, PageSize, PartitionedConfig,
    Partitions, ProjectionConfig, Projector, RecordedEvent, StreamId, run_partitioned,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Durable effects: what was seen of each account stays, whatever becomes of the run.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<BTreeMap<StreamId, Vec<i64>>>>);

impl Statements {
    fn of(&self, account: &StreamId) -> Vec<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(account).cloned().unwrap_or_default()
    }
}

impl Projector for Statements {
    type Event = Money;
    type Error = std::convert::Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "statements"
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, (): &mut ()) -> Result<(), Self::Error> {
        // So that the workers take turns.
        tokio::task::yield_now().await;
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(event.stream_id().clone()).or_default().push(event.payload().change());
        Ok(())
    }
}

/// A read model in memory.
#[derive(Default)]
struct Totals(BTreeMap<StreamId, Vec<i64>>);

impl Projector for Totals {
    type Event = Money;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "totals"
    }

    async fn apply(&mut self, event: &RecordedEvent<Money>, _: &mut InMemory) -> Result<(), Self::Error> {
        self.0.entry(event.stream_id().clone()).or_default().push(event.payload().change());
        Ok(())
    }
}

/// Deposits of `from` to `to` to every account, in turns.
async fn deposit(store: &OpenStore, accounts: &[StreamId], from: i64, to: i64) -> Outcome {
    for amount in from..=to {
        let events = accounts.iter().map(|account| {
            let event = Money::Deposited { amount };
            Ok((account, NewEvent::encode(EventId::generate(), &event, EventMetadata::empty())?))
        });
        store.append(request(&[], events.collect::<Checked<_>>()?)?).await?;
    }
    Ok(())
}

fn config(pages: u32, partitions: u32) -> Checked<PartitionedConfig> {
    let config = ProjectionConfig::default().page_size(PageSize::try_new(pages)?);
    let config = config.read_failures(MaxConsecutiveFailures::default(), Duration::from_millis(1));
    Ok(config.partitions(Partitions::try_new(partitions)?))
}

pub(crate) async fn partitions_keep_the_order_of_every_stream(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let accounts = streams(&["account-1", "account-2", "account-3", "account-4", "account-5", "account-6"])?;
    let statements = Statements::default();
    let [fine, down, lost] = [SaveFault::None, SaveFault::Unavailable, SaveFault::AnswerLost];
    // Another number of partitions each time: the checkpoint does not know of them.
    for (round, partitions) in (0..).zip([3, 8, 1, 5]) {
        deposit(&store, &accounts, round * 10 + 1, round * 10 + 10).await?;
        let faulty = FaultyStore::new(Arc::clone(&store));
        faulty.faults().of_saves([fine, down, fine, lost, fine]);
        faulty.faults().of_reads([ReadFault::None, ReadFault::Unavailable, ReadFault::None, ReadFault::Unavailable]);
        let outcome = run_partitioned(|_| statements.clone(), &faulty, config(7, partitions)?).await?;
        ensure!(faulty.faults().are_used_up(), "a planned fault did not happen");
        ensure_eq!(outcome.position, store.head().await?, "position at the end");
        ensure_eq!(outcome.projectors.len(), partitions as usize, "projectors that come back");
    }
    for account in &accounts {
        let seen = statements.of(account);
        let mut highest = 0;
        for amount in &seen {
            ensure!(*amount <= highest + 1, "{account}: deposit {amount} came after {highest}");
            highest = highest.max(*amount);
        }
        ensure_eq!(highest, 40, "last deposit seen of {account}");
    }
    Ok(())
}

pub(crate) async fn a_read_model_in_memory_is_the_sum_of_its_parts(env: &Environment) -> Outcome {
    let store = env.fresh().await?;
    let accounts = streams(&["account-1", "account-2", "account-3", "account-4", "account-5", "account-6"])?;
    deposit(&store, &accounts, 1, 20).await?;
    let expected: BTreeMap<_, _> = accounts.iter().map(|account| (account.clone(), (1..=20).collect())).collect();
    for partitions in [1, 2, 7, 32] {
        let outcome = run_partitioned(|_| Totals::default(), &store, config(11, partitions)?).await?;
        ensure_eq!((outcome.applied, outcome.skipped), (120, 0), "events applied and left out");
        let mut together = BTreeMap::new();
        for part in outcome.projectors {
            for (account, amounts) in part.0 {
                ensure!(together.insert(account.clone(), amounts).is_none(), "{account} is in two partitions");
            }
        }
        ensure_eq!(together, expected, "deposits of {partitions} partitions together");
    }
    Ok(())
}
