//! W8: nothing is missed, timed. Writers of two instances append one to three events at a time while a follower of a third
//! reads pages of seven; it has to see every acknowledged event once and in order.

use super::follower::follow;
use crate::Failure;
use crate::check::broken;
use crate::domain::Account;
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome};
use crate::place::Place;
use crate::timing::{Call, Timed, closed_loop};
use eventcore::{Backend, GlobalPosition, PageSize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 16;
const PAGE: u32 = 7;

type Positions = Arc<Mutex<BTreeSet<GlobalPosition>>>;

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    lab.stage("W8")?;
    let case = Case::new("W8", "events, none missed by pages of 7", WRITERS);
    let first = lab.place.fresh().await?;
    let (second, follower) = match lab.place {
        Place::Memory => (Arc::clone(&first), Arc::clone(&first)),
        _ => (lab.place.another().await?, lab.place.another().await?),
    };
    let writers = [Arc::clone(&first), second];
    let acknowledged = Positions::default();
    let before = lab.meter.start();
    let all_written = CancellationToken::new();
    let following = tokio::spawn(watch(Arc::clone(&follower), all_written.clone()));
    let written = {
        let (writers, acknowledged) = (writers.clone(), Arc::clone(&acknowledged));
        closed_loop(WRITERS, &lab.until(lab.time, u64::MAX), move |writer| {
            let (store, acknowledged) = (Arc::clone(&writers[writer % 2]), Arc::clone(&acknowledged));
            async move {
                let account = Account(fastrand::u32(..1_000));
                let append = lab::deposits(std::iter::repeat_n(account, fastrand::usize(1..=3)), 1)?;
                let appended = store.append(append).await?;
                lock(&acknowledged).extend(appended.events.iter().map(|event| event.position));
                Ok(Call::Done)
            }
        })
        .await?
    };
    all_written.cancel();
    let seen = following.await??;
    let cost = lab.meter.spent(before);
    let acknowledged = std::mem::take(&mut *lock(&acknowledged));
    if seen != acknowledged {
        let (missed, more) = (acknowledged.difference(&seen).count(), seen.difference(&acknowledged).count());
        return Err(broken(format!("the follower missed {missed} events and saw {more} that nobody was answered")));
    }
    let timed = Timed { done: seen.len() as u64, ..written };
    for store in [&first, &writers[1], &follower] {
        store.close().await?;
    }
    done(Outcome::new(case, &timed, cost));
    Ok(())
}

/// What the follower saw, once and in order.
async fn watch(store: Arc<dyn Backend>, all_written: CancellationToken) -> Result<BTreeSet<GlobalPosition>, Failure> {
    let mut seen = BTreeSet::new();
    follow(store, PageSize::try_new(PAGE)?, all_written, |event| {
        if seen.last().is_some_and(|last| *last >= event.position()) {
            return Err(broken(format!("position {} came out of order", event.position())));
        }
        seen.insert(event.position());
        Ok(())
    })
    .await?;
    Ok(seen)
}

fn lock(positions: &Positions) -> std::sync::MutexGuard<'_, BTreeSet<GlobalPosition>> {
    positions.lock().unwrap_or_else(PoisonError::into_inner)
}
