//! The workloads, one file each.

mod bulk;
mod deposits;
mod fleet;
mod follow;
mod follow_raw;
mod follower;
mod growth;
mod hot;
mod idle;
mod import;
mod load;
mod no_miss;
mod projection;
mod recover;
mod transfers;

use crate::Failure;
use crate::cli::Choice;
use crate::lab::Lab;
use crate::outcome::Outcome;
use crate::timing::Call;
use eventcore::{CommandError, ErrorKind, ExecutionOutcome};
use std::error::Error as StdError;

pub(crate) use recover::write_until_killed;

/// Runs a workload once, and hands each figure to `done` as soon as it is there.
pub(crate) async fn run(choice: Choice, lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    match choice {
        Choice::W1 => deposits::run(lab, done).await,
        Choice::W2 => transfers::run(lab, done).await,
        Choice::W3 => hot::run(lab, done).await,
        Choice::W4 => bulk::run(lab, done).await,
        Choice::W5 => projection::run(lab, done).await,
        Choice::W6 => follow::run(lab, done).await,
        Choice::W7 => load::run(lab, done).await,
        Choice::W8 => no_miss::run(lab, done).await,
        Choice::W9 => growth::run(lab, done).await,
        Choice::W10 => recover::run(lab, done).await,
        Choice::W11 => fleet::run(lab, done).await,
        Choice::Idle => idle::run(lab, done).await,
        Choice::Import => import::run(lab, done).await,
        // Resolved into the others before.
        Choice::All => Ok(()),
    }
}

/// A command that lost every race is counted; any other failure ends the benchmark.
fn call<E: StdError + Send + Sync + 'static>(
    executed: Result<ExecutionOutcome, CommandError<E>>,
) -> Result<Call, Failure> {
    match executed {
        Ok(_) => Ok(Call::Done),
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(Call::GaveUp),
        Err(error) => Err(Box::new(error)),
    }
}
