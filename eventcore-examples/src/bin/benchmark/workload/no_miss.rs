//! W8: nothing is missed, timed. Writers of two instances append one to three events at a time while a follower of a third
//! reads pages of seven; it has to see every acknowledged event once and in order.

use crate::Failure;
use crate::check::broken;
use crate::domain::Account;
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome};
use crate::place::Place;
use crate::timing::{Call, Timed, closed_loop};
use eventcore::{Backend, EventFilter, GlobalPosition, PageSize};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const WRITERS: usize = 16;
const PAGE: u32 = 7;
/// How long the last events may take to become visible after the last answer.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let following = tokio::spawn(follow(Arc::clone(&follower), all_written.clone()));
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

/// Follows until everything is written and the end of the log is reached and seen.
async fn follow(store: Arc<dyn Backend>, all_written: CancellationToken) -> Result<BTreeSet<GlobalPosition>, Failure> {
    let mut log = store.watch_log();
    let mut seen = BTreeSet::new();
    let mut after = None;
    let mut patience = None;
    loop {
        // Asked before the page is read: what is acknowledged by then has to be at or below the head.
        let finished = all_written.is_cancelled();
        let head = if finished { store.head().await? } else { None };
        let page = store.read_page(&EventFilter::all(), after, PageSize::try_new(PAGE)?).await?;
        after = page.position().or(after);
        for event in page.events {
            if seen.last().is_some_and(|last| *last >= event.position()) {
                return Err(broken(format!("position {} came out of order", event.position())));
            }
            seen.insert(event.position());
        }
        if finished && after >= head {
            return Ok(seen);
        }
        if !page.more {
            // Whatever it saw until then is compared, and what is missing told.
            if finished && patience.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return Ok(seen);
            }
            // A wake-up may come late; the follower also looks by itself.
            let _ = tokio::time::timeout(Duration::from_millis(50), log.changed()).await;
        }
    }
}

fn lock(positions: &Positions) -> std::sync::MutexGuard<'_, BTreeSet<GlobalPosition>> {
    positions.lock().unwrap_or_else(PoisonError::into_inner)
}
