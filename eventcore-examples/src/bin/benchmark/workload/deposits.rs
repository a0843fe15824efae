//! W1: deposits into 10,000 accounts, each a command that reads one stream, decides and appends one event.

use super::call;
use crate::Failure;
use crate::domain::{Account, Deposit};
use crate::lab::Lab;
use crate::outcome::{Case, Outcome};
use crate::raw::Insert;
use crate::resources::Cost;
use crate::timing::{Timed, closed_loop};
use eventcore::CommandExecutor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const ACCOUNTS: u32 = 10_000;
/// A store is replaced after so many deposits for each account: folding ever longer streams is another workload.
const DEPTH: u32 = 10;
/// How many callers fill a state cache before it is measured.
const WARMERS: usize = 64;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    for callers in lab.concurrency.iter().map(|callers| callers.get()) {
        let limit = lab
            .limit(format!("W1 limit, {callers} rows at once"), async || {
                lab.raw_inserts(ACCOUNTS, callers, Insert::Conditional).await
            })
            .await?;
        for (what, states) in [("deposits, 10,000 accounts", 0), ("the same with a state cache", ACCOUNTS as usize)] {
            let case = Case::new("W1", what, callers);
            let (timed, cost, commits) = measure(lab, callers, states).await?;
            done(Outcome::new(case, &timed, cost).group(commits).against(limit));
        }
    }
    Ok(())
}

/// With a cache of so many states; with none if that is 0.
async fn measure(lab: &Lab, callers: usize, states: usize) -> Result<(Timed, Cost, u64), Failure> {
    let mut total = Timed::new()?;
    let mut cost = Cost::default();
    let mut commits = 0;
    while total.elapsed < lab.time {
        lab.stage(format!("W1, opening the accounts of {callers} callers"))?;
        let store = lab.place.fresh().await?;
        let executor = CommandExecutor::new(store.clone());
        let executor = if states > 0 { executor.state_cache(states) } else { executor };
        // The accounts are there before, and what a cache keeps of them is in it.
        let known = u64::from(ACCOUNTS);
        if states == 0 {
            lab.fill(&store, ACCOUNTS, ACCOUNTS).await?;
        } else {
            let (executor, next) = (executor.clone(), Arc::new(AtomicU32::new(0)));
            closed_loop(WARMERS, &lab.until(Duration::MAX, known), move |_| {
                let executor = executor.clone();
                let account = Account(next.fetch_add(1, Ordering::Relaxed));
                async move { call(executor.execute(Deposit { account, amount: 1 }).await) }
            })
            .await?;
        }
        lab.stage(format!("W1, {callers} callers"))?;
        let warm = lab.verify(&store, None, known, i64::try_from(known)?).await?;
        let until = lab.until(left(lab.time, total.elapsed), u64::from(ACCOUNTS * DEPTH));
        let before = lab.meter.start();
        let timed =
            closed_loop(callers, &until, move |_| {
                let executor = executor.clone();
                async move {
                    call(executor.execute(Deposit { account: Account(fastrand::u32(..ACCOUNTS)), amount: 1 }).await)
                }
            })
            .await?;
        cost.add(lab.meter.spent(before));
        total.then(&timed)?;
        let deposits = known + timed.done;
        commits += lab.verify(&store, None, deposits, i64::try_from(deposits)?).await? - warm;
        store.close().await?;
    }
    Ok((total, cost, commits))
}

/// What is left of a measurement's time; never so little that nothing can be measured.
pub(super) fn left(time: Duration, elapsed: Duration) -> Duration {
    time.saturating_sub(elapsed).max(time / 20)
}
