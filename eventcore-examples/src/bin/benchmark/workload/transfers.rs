//! W2: transfers between 1,000 accounts, each a command that reads and writes two streams.

use super::{call, deposits::left};
use crate::Failure;
use crate::domain::{Account, Transfer};
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome};
use crate::raw::Insert;
use crate::resources::Cost;
use crate::timing::{Timed, closed_loop};
use eventcore::CommandExecutor;

const ACCOUNTS: u32 = 1_000;
/// A store is replaced after so many transfers for each account.
const DEPTH: u32 = 10;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    for callers in lab.concurrency.iter().map(|callers| callers.get()) {
        let case = Case::new("W2", "transfers, 1,000 accounts", callers);
        let (timed, cost, commits) = measure(lab, callers).await?;
        let limit = lab
            .limit(format!("W2 limit, {callers} times two rows at once"), async || {
                Ok(lab.raw_inserts(ACCOUNTS, 2 * callers, Insert::Conditional).await?.grouped(2))
            })
            .await?;
        done(Outcome::new(case, &timed, cost).group(commits).against(limit));
    }
    Ok(())
}

async fn measure(lab: &Lab, callers: usize) -> Result<(Timed, Cost, u64), Failure> {
    let mut total = Timed::new()?;
    let mut cost = Cost::default();
    let mut commits = 0;
    while total.elapsed < lab.time {
        lab.stage(format!("W2, {callers} callers"))?;
        let store = lab.place.fresh().await?;
        // Enough that no transfer is refused.
        store.append(lab::deposits((0..ACCOUNTS).map(Account), 1_000_000_000)?).await?;
        let filled = store.head().await?;
        let executor = CommandExecutor::new(store.clone());
        let until = lab.until(left(lab.time, total.elapsed), u64::from(ACCOUNTS * DEPTH));
        let before = lab.meter.start();
        let timed = closed_loop(callers, &until, move |_| {
            let executor = executor.clone();
            async move {
                let from = fastrand::u32(..ACCOUNTS);
                let to = (from + fastrand::u32(1..ACCOUNTS)) % ACCOUNTS;
                call(executor.execute(Transfer { from: Account(from), to: Account(to), amount: 1 }).await)
            }
        })
        .await?;
        cost.add(lab.meter.spent(before));
        total.then(&timed)?;
        commits += lab.verify(&store, filled, 2 * timed.done, 0).await?;
        store.close().await?;
    }
    Ok((total, cost, commits))
}
