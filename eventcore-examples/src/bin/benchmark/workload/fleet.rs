//! W11: a fleet of 64 stores with one caller each on one PostgreSQL, one event per append, while another instance follows.

use super::follower::follow;
use crate::Failure;
use crate::check::broken;
use crate::domain::Account;
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome, Throughput};
use crate::place::Place;
use crate::raw::{Insert, Raw, RawPostgres, RawRows};
use crate::resources::Cost;
use crate::timing::{Call, Timed, Until, closed_loop};
use eventcore::PageSize;
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const STORES: usize = 64;
/// Connections of each store's pool; two more are for wake-up and leadership.
const CONNECTIONS: u32 = 2;
const ACCOUNTS: u32 = 64 * 157;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    if !matches!(lab.place, Place::Postgres(_)) {
        return Ok(());
    }
    let case = Case::new("W11", "64 stores, followed by another", STORES);
    let (timed, cost, commits) = measure(lab).await?;
    let limit = lab.limit("W11 limit, 64 sessions", async || limit(lab, &lab.until(lab.time, u64::MAX)).await).await?;
    done(Outcome::new(case, &timed, cost).group(commits).against(limit));
    Ok(())
}

async fn measure(lab: &Lab) -> Result<(Timed, Cost, u64), Failure> {
    lab.stage("W11, connecting")?;
    let first = lab.place.fresh().await?;
    let mut stores = Vec::with_capacity(STORES);
    for _ in 0..STORES {
        stores.push(lab.place.small(CONNECTIONS).await?);
    }
    // A store connects when it is first used, and those that the limit is measured with stand ready as well.
    for (caller, store) in stores.iter().enumerate() {
        store.append(lab::deposits([Account(caller as u32)], 1)?).await?;
    }
    let all_written = CancellationToken::new();
    let follower = lab.place.another().await?;
    let following = {
        let (follower, all_written) = (Arc::clone(&follower), all_written.clone());
        tokio::spawn(async move {
            let mut seen = 0;
            follow(follower, PageSize::default(), all_written, |_| {
                seen += 1;
                Ok(())
            })
            .await
            .map(|()| seen)
        })
    };
    lab.stage("W11")?;
    let before = lab.meter.start();
    let timed = {
        let stores = stores.clone();
        closed_loop(STORES, &lab.until(lab.time, u64::MAX), move |caller| {
            let store = Arc::clone(&stores[caller]);
            async move {
                // Accounts of its own, as the sessions of the limit have them.
                let account = fastrand::u32(..ACCOUNTS / STORES as u32) * STORES as u32 + caller as u32;
                store.append(lab::deposits([Account(account)], 1)?).await?;
                Ok(Call::Done)
            }
        })
        .await?
    };
    let cost = lab.meter.spent(before);
    all_written.cancel();
    let followed: u64 = following.await??;
    let acknowledged = timed.done + STORES as u64;
    if followed != acknowledged {
        return Err(broken(format!("{acknowledged} events were acknowledged, the follower saw {followed}")));
    }
    let commits = lab.verify(&first, None, acknowledged, i64::try_from(acknowledged)?).await? - STORES as u64;
    for store in stores.iter().chain([&follower, &first]) {
        store.close().await?;
    }
    Ok((timed, cost, commits))
}

/// 64 sessions that insert a row each, with its condition, in a statement and a transaction of its own.
async fn limit(lab: &Lab, until: &Until) -> Result<Throughput, Failure> {
    let Raw::Postgres(first) = lab.place.raw(ACCOUNTS).await? else {
        return Err("the limit of W11 needs PostgreSQL".into());
    };
    let mut sessions: Vec<Mutex<(RawPostgres, RawRows)>> = Vec::with_capacity(STORES);
    for session in 0..STORES as u32 {
        let accounts = (0..ACCOUNTS / STORES as u32).map(|n| n * STORES as u32 + session).collect();
        sessions.push(Mutex::new((first.another().await?, RawRows::of(accounts))));
    }
    let sessions = Arc::new(sessions);
    let before = lab.meter.start();
    let timed = closed_loop(STORES, until, move |caller| {
        let sessions = Arc::clone(&sessions);
        async move {
            let (session, rows) = &mut *sessions[caller].lock().await;
            let inserted = session.insert(&rows.take(1)?, Insert::Conditional).await?;
            if inserted == 1 { Ok(Call::Done) } else { Err("the limit of W11 lost a row".into()) }
        }
    })
    .await?;
    Ok(Throughput::of(&timed, lab.meter.spent(before)))
}
