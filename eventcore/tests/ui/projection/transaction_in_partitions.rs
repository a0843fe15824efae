//! A page that is one transaction cannot be shared by several workers.

use eventcore::{
    Backend, Event, Partitions, ProjectionConfig, ProjectionContext, Projector, RecordedEvent, UnitOfWork, run_partitioned,
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "bank")]
struct Opened;

/// The transaction of some store.
struct Transaction;

impl ProjectionContext for Transaction {
    const DURABLE: bool = true;
    const TRANSACTIONAL: bool = true;
}

struct Accounts;

impl Projector for Accounts {
    type Event = Opened;
    type Error = std::convert::Infallible;
    type Context = Transaction;

    fn name(&self) -> &str {
        "accounts"
    }

    async fn apply(&mut self, _: &RecordedEvent<Opened>, _: &mut Transaction) -> Result<(), Self::Error> {
        Ok(())
    }
}

async fn run(store: impl Backend + UnitOfWork<Transaction>) {
    let config = ProjectionConfig::default().partitions(Partitions::default());
    let _ = run_partitioned(|_| Accounts, &store, config).await;
}

fn main() {}
