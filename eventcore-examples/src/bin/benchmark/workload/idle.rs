//! What waiting costs: an idle log with 100 projections, each with a checkpoint and a leadership of its own, and one with 1,000
//! subscriptions.

use crate::Failure;
use crate::domain::LedgerEvent;
use crate::lab::Lab;
use crate::outcome::{Case, Outcome};
use crate::timing::Timed;
use eventcore::{
    Backend, EventFilter, FeedItem, Progress, ProjectionConfig, Projector, RecordedEvent, StartFrom, run_projection,
    subscribe,
};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PROJECTIONS: usize = 100;
const SUBSCRIPTIONS: usize = 1_000;
/// So many times as long as another measurement: there is little to be measured.
const TIMES: u32 = 10;
/// How long it takes at most until all of them wait.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(lab: &Lab, done: &mut dyn FnMut(Outcome)) -> Result<(), Failure> {
    let (waits, waiting) = mpsc::unbounded_channel();
    let projections = |store: &Arc<dyn Backend>, stop: &CancellationToken| {
        let mut tasks = JoinSet::new();
        for number in 0..PROJECTIONS {
            let projector = Idle { name: format!("idle-{number}") };
            let (store, waits) = (Arc::clone(store), waits.clone());
            let progress = Progress::default();
            let config = ProjectionConfig::default().continuous().shutdown(stop.clone()).progress(progress.clone());
            tasks.spawn(async move {
                let head = store.head().await?;
                let told = async {
                    if let Some(head) = head {
                        progress.wait_for(head).await?;
                    }
                    // Who counts may be gone.
                    let _ = waits.send(number);
                    Ok::<(), Failure>(())
                };
                let (ran, ()) = tokio::try_join!(async { Ok(run_projection(projector, &store, config).await?) }, told)?;
                drop(ran);
                Ok(())
            });
        }
        tasks
    };
    measure(lab, "idle projections", PROJECTIONS, projections, waiting, done).await?;

    let (waits, waiting) = mpsc::unbounded_channel();
    let subscriptions = |store: &Arc<dyn Backend>, stop: &CancellationToken| {
        let mut tasks = JoinSet::new();
        for number in 0..SUBSCRIPTIONS {
            let (store, waits, stop) = (Arc::clone(store), waits.clone(), stop.clone());
            tasks.spawn(async move {
                let mut subscription = subscribe(store, EventFilter::of::<LedgerEvent>(), StartFrom::Beginning);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        item = subscription.next() => if matches!(item?, FeedItem::CaughtUp) {
                            let _ = waits.send(number);
                        }
                    }
                }
            });
        }
        tasks
    };
    measure(lab, "idle subscriptions", SUBSCRIPTIONS, subscriptions, waiting, done).await
}

async fn measure(
    lab: &Lab,
    what: &'static str,
    count: usize,
    start: impl FnOnce(&Arc<dyn Backend>, &CancellationToken) -> JoinSet<Result<(), Failure>>,
    mut waiting: mpsc::UnboundedReceiver<usize>,
    done: &mut dyn FnMut(Outcome),
) -> Result<(), Failure> {
    lab.stage(what)?;
    let store = lab.place.fresh().await?;
    lab.fill(&store, 1_000, 100).await?;
    let stop = CancellationToken::new();
    let mut tasks = start(&store, &stop);
    let mut waits = vec![false; count];
    let all_wait = async {
        while waits.contains(&false) {
            if let Some(number) = waiting.recv().await {
                waits[number] = true;
            }
        }
    };
    tokio::select! {
        waited = tokio::time::timeout(PATIENCE, all_wait) => waited.map_err(|_| format!("{what} do not wait after {PATIENCE:?}"))?,
        Some(ended) = tasks.join_next() => ended??,
    }

    let mut timed = Timed::new()?;
    let before = lab.meter.start();
    let began = Instant::now();
    tokio::select! {
        () = lab.stop.cancelled() => {}
        () = tokio::time::sleep(lab.time * TIMES) => {}
    }
    timed.elapsed = began.elapsed();
    let cost = lab.meter.spent(before);
    let sessions = lab.place.sessions().await?;
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    store.close().await?;
    lab.stage(what)?;
    done(Outcome::new(Case::new("idle", what, count), &timed, cost).idle(sessions));
    Ok(())
}

/// Has effects of its own, so that it needs a leadership and a checkpoint.
struct Idle {
    name: String,
}

impl Projector for Idle {
    type Event = LedgerEvent;
    type Error = Infallible;
    type Context = ();

    fn name(&self) -> &str {
        &self.name
    }

    async fn apply(&mut self, _: &RecordedEvent<LedgerEvent>, (): &mut ()) -> Result<(), Infallible> {
        Ok(())
    }
}
