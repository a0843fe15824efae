//! W3: 16 writers on one stream, whose executor keeps its state and decides them one after the other on each other's events.

use super::{call, deposits::left};
use crate::Failure;
use crate::domain::{Account, Deposit};
use crate::lab::Lab;
use crate::outcome::{Case, Outcome};
use crate::raw::Insert;
use crate::resources::Cost;
use crate::timing::{Timed, closed_loop};
use eventcore::CommandExecutor;

const WRITERS: usize = 16;
/// A store is replaced after so many deposits.
const DEPTH: u64 = 20_000;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let case = Case::new("W3", "one stream, 16 writers, state cache", WRITERS);
    let mut total = Timed::new()?;
    let mut cost = Cost::default();
    let mut commits = 0;
    while total.elapsed < lab.time {
        lab.stage("W3")?;
        let store = lab.place.fresh().await?;
        let executor = CommandExecutor::new(store.clone()).state_cache(1);
        let until = lab.until(left(lab.time, total.elapsed), DEPTH);
        let before = lab.meter.start();
        let timed = closed_loop(WRITERS, &until, move |_| {
            let executor = executor.clone();
            async move { call(executor.execute(Deposit { account: Account(0), amount: 1 }).await) }
        })
        .await?;
        cost.add(lab.meter.spent(before));
        total.then(&timed)?;
        commits += lab.verify(&store, None, timed.done, i64::try_from(timed.done)?).await?;
        store.close().await?;
    }
    let limit =
        lab.limit("W3 limit, 16 rows at once", async || lab.raw_inserts(1, WRITERS, Insert::Plain).await).await?;
    done(Outcome::new(case, &total, cost).group(commits).against(limit));
    Ok(())
}
