//! W9: growth. Deposits, a projection of everything and the load of one stream, in stores of different sizes. The streams of
//! deposits stay as short as they are: there are more of them. Flat is the limit, so each figure is held against that of the
//! smallest store.

use super::call;
use crate::Failure;
use crate::check::broken;
use crate::domain::{Account, Balances, Deposit, Inspect};
use crate::lab::{self, Lab};
use crate::outcome::{Case, Limit, Outcome, Throughput};
use crate::resources::Cost;
use crate::timing::{Timed, closed_loop};
use eventcore::{Backend, CommandExecutor, ProjectionConfig, execute, run_projection};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Events of a stream that gets deposits.
const DEPTH: u32 = 10;
/// Events of the stream that is loaded, spread over the whole log.
const LONG: u32 = 10_000;
const APPEND: u32 = 1_000;
const CALLERS: usize = 64;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let mut smallest: Vec<Throughput> = Vec::new();
    for &size in &lab.sizes {
        let (outcomes, store) = one_size(lab, size).await?;
        store.close().await?;
        if smallest.is_empty() {
            let all = outcomes.iter();
            smallest = all.map(|o| Throughput { per_second: o.per_second, cpu_micros: o.cpu_micros }).collect();
        }
        for (outcome, limit) in outcomes.into_iter().zip(&smallest) {
            done(outcome.against(Some(Limit::Throughput(*limit))));
        }
    }
    Ok(())
}

async fn one_size(lab: &Lab, size: u32) -> Result<(Vec<Outcome>, Arc<dyn Backend>), Failure> {
    let case = |what: &str, callers| Case { events: Some(size), ..Case::new("W9", what, callers) };
    lab.stage(format!("W9, filling a store with {size} events"))?;
    let store = lab.place.fresh().await?;
    let accounts = size.div_ceil(DEPTH);
    let long = fill(lab, &store, size, accounts).await?;

    lab.stage(format!("W9, loading a stream among {size} events"))?;
    let seen = Arc::new(AtomicI64::new(0));
    let before = lab.meter.start();
    let loaded = lab
        .repeat(u64::from(long), async || {
            execute(&store, Inspect { account: Account(accounts), seen: Arc::clone(&seen) }).await?;
            let balance = seen.swap(0, Ordering::Relaxed);
            if balance == i64::from(long) {
                Ok(())
            } else {
                Err(broken(format!("{long} were deposited, {balance} are there")))
            }
        })
        .await?;
    let loaded = Outcome::new(case("one stream, events", 1), &loaded, lab.meter.spent(before));

    lab.stage(format!("W9, projecting {size} events"))?;
    let mut projected = Timed::new()?;
    let before = lab.meter.start();
    let began = Instant::now();
    let outcome = run_projection(Balances::default(), &store, ProjectionConfig::default()).await?;
    projected.elapsed = began.elapsed();
    projected.done = outcome.applied;
    if outcome.projector.by_account.values().sum::<i64>() != i64::from(size) {
        return Err(broken(format!("the projection does not hold the {size} that were deposited")));
    }
    let projected = Outcome::new(case("projection, events", 1), &projected, lab.meter.spent(before));

    let mut outcomes = vec![projected, loaded];
    for callers in [1, CALLERS] {
        let (timed, cost, commits) = deposit(lab, &store, accounts, callers, size).await?;
        outcomes.push(Outcome::new(case("deposits", callers), &timed, cost).group(commits));
    }
    Ok((outcomes, store))
}

/// Fills the store, and tells how many of the events are in the long stream, which comes after the accounts.
async fn fill(lab: &Lab, store: &Arc<dyn Backend>, size: u32, accounts: u32) -> Result<u32, Failure> {
    let long = LONG.min(size / 2);
    let (mut written, mut in_long, mut next) = (0, 0, 0);
    while written < size {
        lab.stage(format!("W9, filling a store: {written} of {size} events"))?;
        let now = APPEND.min(size - written);
        // As many of the long stream as keep it spread evenly.
        let share = (u64::from(long) * u64::from(written + now) / u64::from(size)) as u32 - in_long;
        let others = (0..now - share).map(|n| Account((next + n) % accounts));
        store.append(lab::deposits(std::iter::repeat_n(Account(accounts), share as usize).chain(others), 1)?).await?;
        next = (next + now - share) % accounts;
        in_long += share;
        written += now;
    }
    Ok(in_long)
}

async fn deposit(
    lab: &Lab,
    store: &Arc<dyn Backend>,
    accounts: u32,
    callers: usize,
    size: u32,
) -> Result<(Timed, Cost, u64), Failure> {
    lab.stage(format!("W9, {callers} callers among {size} events"))?;
    let head = store.head().await?;
    let executor = CommandExecutor::new(Arc::clone(store));
    let before = lab.meter.start();
    // So that streams are no more than twice as long in the end.
    let timed = closed_loop(callers, &lab.until(lab.time, size.into()), move |_| {
        let executor = executor.clone();
        async move { call(executor.execute(Deposit { account: Account(fastrand::u32(..accounts)), amount: 1 }).await) }
    })
    .await?;
    let cost = lab.meter.spent(before);
    let commits = lab.verify(store, head, timed.done, i64::try_from(timed.done)?).await?;
    Ok((timed, cost, commits))
}
