//! W5: a projection of the whole log into a map, with the checkpoints of the default settings.

use crate::Failure;
use crate::check::broken;
use crate::domain::Balances;
use crate::lab::Lab;
use crate::outcome::{Case, Outcome, Throughput};
use crate::raw::RawRows;
use crate::resources::Cost;
use crate::timing::Timed;
use eventcore::{ProjectionConfig, ProjectionName, Projector, reset_projection, run_projection};
use std::collections::HashMap;
use std::time::Instant;

const ACCOUNTS: u32 = 10_000;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let events = lab.events;
    let case = Case::new("W5", format!("projection of {events} events"), 1);
    lab.stage(format!("W5, filling the store with {events} events"))?;
    let store = lab.place.fresh().await?;
    lab.fill(&store, events, ACCOUNTS).await?;
    let name = ProjectionName::new(Balances::default().name())?;

    let mut total = Timed::new()?;
    let mut cost = Cost::default();
    while total.elapsed < lab.time {
        lab.stage("W5")?;
        reset_projection(&store, &name).await?;
        let before = lab.meter.start();
        let began = Instant::now();
        let outcome = run_projection(Balances::default(), &store, ProjectionConfig::default()).await?;
        total.elapsed += began.elapsed();
        cost.add(lab.meter.spent(before));
        total.done += outcome.applied;
        check("the projection", &outcome.projector.by_account, events)?;
    }
    store.close().await?;

    let limit = lab.limit("W5 limit, filling its table", async || limit(lab).await).await?;
    done(Outcome::new(case, &total, cost).against(limit));
    Ok(())
}

async fn limit(lab: &Lab) -> Result<Throughput, Failure> {
    let events = lab.events;
    let mut raw = lab.place.raw(ACCOUNTS).await?;
    lab.fill_raw(&mut raw, &mut RawRows::new(ACCOUNTS), events).await?;
    lab.stage("W5 limit")?;
    let before = lab.meter.start();
    let timed = lab.repeat(u64::from(events), async || check("the limit", &raw.fold_all().await?, events)).await?;
    Ok(Throughput::of(&timed, lab.meter.spent(before)))
}

/// Every event deposited 1.
fn check(who: &str, balances: &HashMap<u32, i64>, events: u32) -> Result<(), Failure> {
    let sum: i64 = balances.values().sum();
    if sum == i64::from(events) { Ok(()) } else { Err(broken(format!("{who} holds {sum} instead of {events}"))) }
}
