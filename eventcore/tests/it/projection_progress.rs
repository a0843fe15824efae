//! What a run tells of its progress, in virtual time, and how soon it heeds a stop.

use crate::troubled_store::TroubledStore;
use eventcore::{
    Activity, AppendRequest, Event, EventId, EventMetadata, EventStore, InMemory, NewEvent, PageSize, Progress,
    ProgressReport, ProjectionConfig, Projector, RecordedEvent, StreamId, run_projection,
};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum Happened {
    Once,
}

/// Counts; takes its time for each event, and stops its own run when it is told to.
#[derive(Default)]
struct Counter {
    seen: u64,
    takes: Option<Duration>,
    stops: Option<(u64, CancellationToken)>,
}

impl Projector for Counter {
    type Event = Happened;
    type Error = std::convert::Infallible;
    type Context = InMemory;

    fn name(&self) -> &str {
        "counter"
    }

    async fn apply(&mut self, _: &RecordedEvent<Happened>, _: &mut InMemory) -> Result<(), Self::Error> {
        if let Some(takes) = self.takes {
            tokio::time::sleep(takes).await;
        }
        self.seen += 1;
        if let Some((at, token)) = &self.stops
            && *at == self.seen
        {
            token.cancel();
        }
        Ok(())
    }
}

async fn store_with(events: u64) -> TroubledStore {
    let store = TroubledStore::default();
    append(&store, events).await;
    store
}

async fn append(store: &TroubledStore, events: u64) {
    let stream = StreamId::new("s").unwrap();
    let request = (0..events).fold(AppendRequest::builder(), |request, _| {
        let event = NewEvent::encode(EventId::generate(), &Happened::Once, EventMetadata::empty()).unwrap();
        request.event(stream.clone(), event)
    });
    store.append(request.build().unwrap()).await.unwrap();
}

/// All reports, and when they came.
type Reports = Arc<Mutex<Vec<(Instant, ProgressReport)>>>;

fn kept() -> (Reports, impl Fn(&ProgressReport) + Send + Sync + 'static) {
    let reports = Reports::default();
    let keep = Arc::clone(&reports);
    (reports, move |report: &ProgressReport| keep.lock().unwrap().push((Instant::now(), *report)))
}

fn pages_of(events: u32) -> ProjectionConfig {
    ProjectionConfig::default().page_size(PageSize::try_new(events).unwrap())
}

#[tokio::test(start_paused = true)]
async fn reports_come_once_per_interval_and_at_the_end() {
    let store = store_with(10).await;
    let (reports, keep) = kept();
    let began = Instant::now();
    let slow = Counter { takes: Some(Duration::from_millis(400)), ..Counter::default() };
    run_projection(slow, &store, pages_of(4).on_progress(keep)).await.unwrap();

    let reports = reports.lock().unwrap().clone();
    let times: Vec<_> = reports.iter().map(|(at, _)| (*at - began).as_millis()).collect();
    assert_eq!(times, [1_200, 2_400, 3_600, 4_000]);
    let numbers = |report: &ProgressReport| {
        (report.position.map_or(0, eventcore::GlobalPosition::get), report.lag, report.applied, report.rate)
    };
    let told: Vec<_> = reports.iter().map(|(_, report)| numbers(report)).collect();
    assert_eq!(told, [(0, 10, 0, 2.5), (4, 6, 4, 2.5), (8, 2, 8, 2.5), (10, 0, 10, 2.5)]);
    let head = store.store.head().await.unwrap();
    assert!(reports.iter().all(|(_, report)| report.head == head && report.lag_time.is_some()));
    let activities: Vec<_> = reports.iter().map(|(_, report)| report.activity).collect();
    assert_eq!(activities, [Activity::CatchingUp, Activity::CatchingUp, Activity::CatchingUp, Activity::Idle]);
    assert_eq!(reports[3].1.lag_time, Some(Duration::ZERO));
    assert_eq!(store.heads(), 1 + 4, "once by the batch itself, once per report");
}

/// When reports came while nothing happened for so long, in milliseconds. The store hardly needs to be looked at.
async fn idle_reports(interval: Duration, time: Duration) -> Vec<u128> {
    let store = store_with(3).await;
    store.tend();
    let (reports, keep) = kept();
    let stop = CancellationToken::new();
    let config = pages_of(10).continuous().on_progress(keep).progress_interval(interval).shutdown(stop.clone());
    let began = Instant::now();
    let run = tokio::spawn(async move { run_projection(Counter::default(), &store, config).await.unwrap() });
    tokio::time::sleep(time).await;
    stop.cancel();
    assert_eq!(run.await.unwrap().applied, 3);
    let reports = reports.lock().unwrap();
    reports.iter().map(|(at, _)| (*at - began).as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_store_that_tells_him_reports_as_often() {
    let times = idle_reports(Duration::from_secs(1), Duration::from_millis(6_500)).await;
    assert_eq!(times, [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 6_500]);
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_to_do_does_not_spin_for_reports() {
    let mut times = idle_reports(Duration::ZERO, Duration::from_millis(450)).await;
    times.dedup();
    assert_eq!(times, [0, 100, 200, 300, 400, 450]);
}

#[tokio::test(start_paused = true)]
async fn quick_events_ask_the_store_for_nothing() {
    let store = store_with(5_000).await;
    let (reports, keep) = kept();
    run_projection(Counter::default(), &store, pages_of(1_000).on_progress(keep)).await.unwrap();
    assert_eq!((reports.lock().unwrap().len(), store.heads()), (1, 2));
    let quiet = run_projection(Counter::default(), &store, pages_of(1_000)).await.unwrap();
    assert_eq!((quiet.applied, store.heads()), (5_000, 3), "nobody is told, nothing is asked");
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_store_is_reported_with_the_head_known_last() {
    let store = store_with(3).await;
    let (reports, keep) = kept();
    let (progress, stop) = (Progress::default(), CancellationToken::new());
    let config = pages_of(10).continuous().on_progress(keep).progress(progress.clone()).shutdown(stop.clone());
    let config =
        config.read_failures(eventcore::MaxConsecutiveFailures::try_new(1_000).unwrap(), Duration::from_millis(100));
    let run = tokio::spawn({
        let store = store.clone();
        async move { run_projection(Counter::default(), &store, config).await.unwrap() }
    });
    progress.wait_until(Activity::Live).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    store.unplug();
    append(&store, 2).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    store.plug_in();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stop.cancel();
    assert_eq!(run.await.unwrap().applied, 5);
    let reports = reports.lock().unwrap().clone();
    let told: Vec<_> = reports.iter().map(|(_, report)| (report.activity, report.lag)).collect();
    assert!(told.starts_with(&[(Activity::Live, 0), (Activity::Reconnecting, 0)]), "{told:?}");
    assert!(told.contains(&(Activity::Live, 0)) && told.last() == Some(&(Activity::Idle, 0)), "{told:?}");
    assert_eq!(reports.last().unwrap().1.position, store.store.head().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_is_not_called_again_and_the_run_goes_on() {
    let store = store_with(10).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let config = pages_of(2).on_progress(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        panic!("on purpose");
    });
    let slow = Counter { takes: Some(Duration::from_secs(2)), ..Counter::default() };
    let outcome = run_projection(slow, &store, config).await.unwrap();
    assert_eq!((outcome.applied, calls.load(Ordering::SeqCst)), (10, 1));
}

#[tokio::test]
async fn a_stop_is_heeded_before_the_next_event() {
    let store = store_with(1_000).await;
    for at in [1, 5, 63, 64, 500, 999] {
        let token = CancellationToken::new();
        let projector = Counter { stops: Some((at, token.clone())), ..Counter::default() };
        let outcome = run_projection(projector, &store, pages_of(1_000).shutdown(token)).await.unwrap();
        assert_eq!((outcome.projector.seen, outcome.applied), (at, at));
    }
}
