//! W6: from the answer to an append until a projector applied it, at 50 appends a second. Beside it the same for a follower
//! that knows no wake-up and reads every 100 ms, as other libraries do.

use super::follow_raw;
use crate::Failure;
use crate::check::broken;
use crate::domain::{Account, LedgerEvent};
use crate::lab::{self, Lab};
use crate::outcome::{Case, Outcome, Percentiles};
use crate::place::Place;
use crate::timing::Timed;
use eventcore::{
    Backend, EventFilter, GlobalPosition, PageSize, ProjectionConfig, Projector, RecordedEvent, run_projection,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// 50 appends a second.
pub(super) const PACE: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(100);
/// How long an event may take before the benchmark calls it lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a follower saw, and when.
type Seen = (GlobalPosition, Instant);

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let limit = lab
        .limit("W6 limit", async || {
            let timed = follow_raw::measure(lab).await?;
            Percentiles::of(&timed.latency).ok_or_else(|| "the limit of W6 saw nothing".into())
        })
        .await?;
    let mut follower = async |what: &str, follow: Follow, foreign: bool| {
        lab.stage(format!("W6, {what}"))?;
        let case = Case::new("W6", what, 1);
        let store = lab.place.fresh().await?;
        let reader = if foreign { lab.place.another().await? } else { Arc::clone(&store) };
        let before = lab.meter.start();
        let timed = measure(lab, &store, Arc::clone(&reader), follow).await?;
        let cost = lab.meter.spent(before);
        reader.close().await?;
        store.close().await?;
        done(Outcome::new(case, &timed, cost).against(limit));
        Ok::<_, Failure>(())
    };
    follower("appended to applied", Follow::Projection, false).await?;
    if !matches!(lab.place, Place::Memory) {
        follower("the same, another instance", Follow::Projection, true).await?;
    }
    follower("the same, polling every 100 ms", Follow::Polling, false).await
}

#[derive(Debug, Clone, Copy)]
enum Follow {
    Projection,
    Polling,
}

async fn measure(
    lab: &Lab,
    store: &Arc<dyn Backend>,
    reader: Arc<dyn Backend>,
    follow: Follow,
) -> Result<Timed, Failure> {
    let (seen, mut sees) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let _ended = stop.clone().drop_guard();
    let follower: JoinHandle<Result<(), Failure>> = match follow {
        Follow::Projection => tokio::spawn(project(reader, seen, stop)),
        Follow::Polling => tokio::spawn(poll(reader, seen, stop)),
    };
    let mut timed = Timed::new()?;
    let started = Instant::now();
    while started.elapsed() < lab.time && !lab.stop.is_cancelled() {
        let append = store.append(lab::deposits([Account(fastrand::u32(..1_000))], 1)?).await?;
        let answered = Instant::now();
        let appended = append.events.last().map(|event| event.position);
        let (position, applied) = tokio::time::timeout(PATIENCE, sees.recv())
            .await
            .map_err(|_| broken(format!("{appended:?} was not followed within {PATIENCE:?}")))?
            .ok_or_else(|| broken("the follower ended".to_owned()))?;
        if Some(position) != appended {
            return Err(broken(format!("{appended:?} was appended, {position} was applied")));
        }
        // It may be faster than the answer.
        timed.record(applied.saturating_duration_since(answered))?;
        timed.done += 1;
        // Not in step with anybody's clock.
        tokio::time::sleep(PACE.mul_f64(0.5 + fastrand::f64())).await;
    }
    timed.elapsed = started.elapsed();
    drop(_ended);
    follower.await??;
    Ok(timed)
}

async fn project(
    reader: Arc<dyn Backend>,
    seen: mpsc::UnboundedSender<Seen>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let config = ProjectionConfig::default().continuous().shutdown(stop);
    run_projection(Telling(seen), &reader, config).await?;
    Ok(())
}

/// Tells when it applied an event.
struct Telling(mpsc::UnboundedSender<Seen>);

impl Projector for Telling {
    type Event = LedgerEvent;
    type Error = Infallible;
    type Context = ();

    fn name(&self) -> &str {
        "telling"
    }

    async fn apply(&mut self, event: &RecordedEvent<LedgerEvent>, _: &mut ()) -> Result<(), Infallible> {
        // Nobody listens any more when the measurement has ended.
        let _ = self.0.send((event.position(), Instant::now()));
        Ok(())
    }
}

async fn poll(
    reader: Arc<dyn Backend>,
    seen: mpsc::UnboundedSender<Seen>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut after = None;
    while !stop.is_cancelled() {
        let page = reader.read_page(&EventFilter::all(), after, PageSize::default()).await?;
        after = page.position().or(after);
        for event in page.events {
            let event = event.decode::<LedgerEvent>()?;
            let _ = seen.send((event.position(), Instant::now()));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
