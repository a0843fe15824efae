//! W7: one stream of 10,000 events loaded into the state of a command. Counted in events.

use crate::Failure;
use crate::check::broken;
use crate::domain::{Account, Inspect};
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome, Throughput};
use crate::raw::Insert;
use eventcore::execute;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const LENGTH: u32 = 10_000;
const ONE: Account = Account(0);

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let case = Case::new("W7", format!("one stream of {LENGTH} events"), 1);
    lab.stage("W7, filling the stream")?;
    let store = lab.place.fresh().await?;
    for _ in 0..LENGTH / 1_000 {
        store.append(lab::deposits(std::iter::repeat_n(ONE, 1_000), 1)?).await?;
    }
    lab.stage("W7")?;
    let seen = Arc::new(AtomicI64::new(0));
    let before = lab.meter.start();
    let timed = lab
        .repeat(u64::from(LENGTH), async || {
            execute(&store, Inspect { account: ONE, seen: Arc::clone(&seen) }).await?;
            check("the state", seen.swap(0, Ordering::Relaxed))
        })
        .await?;
    let cost = lab.meter.spent(before);
    store.close().await?;

    let limit = lab.limit("W7 limit", async || limit(lab).await).await?;
    done(Outcome::new(case, &timed, cost).against(limit));
    Ok(())
}

async fn limit(lab: &Lab) -> Result<Throughput, Failure> {
    let mut raw = lab.place.raw(1).await?;
    let mut rows = crate::raw::RawRows::new(1);
    for _ in 0..LENGTH / 1_000 {
        raw.insert(&rows.take(1_000)?, Insert::Plain).await?;
    }
    let before = lab.meter.start();
    let timed = lab.repeat(u64::from(LENGTH), async || check("the limit", raw.fold_one(ONE).await?)).await?;
    Ok(Throughput::of(&timed, lab.meter.spent(before)))
}

fn check(who: &str, balance: i64) -> Result<(), Failure> {
    if balance == i64::from(LENGTH) {
        Ok(())
    } else {
        Err(broken(format!("{who} holds {balance} instead of {LENGTH}")))
    }
}
