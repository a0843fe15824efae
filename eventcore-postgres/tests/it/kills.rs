//! `kill -9` at random moments, while commands and projections run.
//!
//! `EVENTCORE_KILLS` says how often; by default 8 times.

use crate::fixtures::{CountBoth, Counted, Log, PATIENCE, stream};
use crate::pages::Tally;
use crate::processes::Process;
use crate::worker::say;
use eventcore::{
    CommandExecutor, Epoch, EventFilter, EventReader, EventStore, MaxConsecutiveFailures, PageSize, ProjectionConfig,
    Projector, RecordedEvent, run_projection,
};
use eventcore_postgres::{PostgresConfig, PostgresEventStore};
use eventcore_testing::{EffectLog, Effects};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// A checkpoint is saved after so many events at most.
const PAGE: u32 = 20;
/// How long the projections take for each event, so that a kill finds a page in hand.
const SLOW: Duration = Duration::from_millis(1);

/// Notes every event in a file: at least once.
struct Notes {
    log: EffectLog,
    slow: Duration,
}

impl Notes {
    fn path(log: &Log) -> PathBuf {
        std::env::temp_dir().join(format!("eventcore-{}.effects", log.schema))
    }

    fn of(log: &Log, slow: Duration) -> Self {
        Self { log: EffectLog::open(Self::path(log)).unwrap(), slow }
    }
}

impl Projector for Notes {
    type Event = Counted;
    type Error = std::io::Error;
    type Context = ();

    fn name(&self) -> &str {
        "notes"
    }

    async fn apply(&mut self, event: &RecordedEvent<Counted>, (): &mut ()) -> std::io::Result<()> {
        self.log.note(event.position())?;
        tokio::time::sleep(self.slow).await;
        Ok(())
    }

    fn leading(&mut self, epoch: Epoch) {
        self.log.begin(epoch).unwrap();
    }
}

/// Leaders are replaced soon after they die.
pub(crate) fn config(log: &Log) -> PostgresConfig {
    log.config().beat_interval(Duration::from_millis(500))
}

/// A busy server that is late with an answer about leases ends no projection.
fn projection() -> ProjectionConfig {
    ProjectionConfig::default()
        .page_size(PageSize::try_new(PAGE).unwrap())
        .wait_for_leadership()
        .read_failures(MaxConsecutiveFailures::try_new(10_000).unwrap(), Duration::from_millis(10))
}

/// The process's part, until it is killed. Says which positions were acknowledged.
pub(crate) async fn work(log: Log, store: PostgresEventStore) {
    let tally = tokio::spawn({
        let (store, tally) = (store.clone(), Tally::of(&log.schema).slow(SLOW));
        async move { run_projection(tally, &store, projection().continuous()).await.map(drop) }
    });
    let notes = tokio::spawn({
        let (store, notes) = (store.clone(), Notes::of(&log, SLOW));
        async move { run_projection(notes, &store, projection().continuous()).await.map(drop) }
    });
    for task in 0..4 {
        let store = store.clone();
        tokio::spawn(async move {
            let executor = CommandExecutor::new(&store).retry(crate::processes::patient());
            for round in 0.. {
                let (one, two) = (stream(format!("own-{task}")), stream(format!("shared-{}", round % 3)));
                let done = executor.execute(CountBoth { one, two }).await.expect("a command failed");
                say(&done.events()[0].position.to_string());
            }
        });
    }
    tokio::select! {
        ended = tally => panic!("the tally ended: {ended:?}"),
        ended = notes => panic!("the notes ended: {ended:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_projections_lose_nothing_and_repeat_at_most_a_page() {
    let kills: usize = std::env::var("EVENTCORE_KILLS").map_or(8, |kills| kills.parse().expect("a number"));
    let log = Log::new().unwrap();
    let store = PostgresEventStore::connect(&log.url, config(&log)).await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    let mut acknowledged = BTreeSet::new();
    for kill in 0..kills {
        let led = || Effects::read(Notes::path(&log)).map_or(0, |effects| effects.runs());
        // Nobody is left who could begin another run.
        let before = led();
        let mut process = Process::start("be killed", &log, kill);
        process.go();
        for _ in 0..fastrand::u32(0..80) {
            acknowledged.insert(process.next().parse::<u64>().unwrap());
        }
        // Now and then only when another one leads, so that pages are under way.
        if kill % 2 == 0 {
            let patience = std::time::Instant::now() + PATIENCE;
            while led() == before && kill > 0 {
                assert!(std::time::Instant::now() < patience, "nobody leads");
                let soon = std::time::Instant::now() + Duration::from_millis(2);
                acknowledged.extend(process.next_by(soon).map(|said| said.parse::<u64>().unwrap()));
            }
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
        acknowledged.extend(process.kill().iter().filter_map(|said| said.parse::<u64>().ok()));
    }

    // What was committed last may still be on its way.
    run_projection(Tally::of(&log.schema), &store, projection()).await.unwrap();
    run_projection(Notes::of(&log, Duration::ZERO), &store, projection()).await.unwrap();
    let (mut positions, mut after, head) = (BTreeSet::new(), None, store.head().await.unwrap());
    while after < head {
        let page = store.read_page(&EventFilter::all(), after, PageSize::default()).await.unwrap();
        positions.extend(page.events.iter().map(|event| event.position().get()));
        after = page.position().or(after);
    }
    assert!(acknowledged.is_subset(&positions), "an acknowledged command is lost");
    assert_eq!(log.number(Tally::WRONG).await, 0, "streams whose events were not counted once each");
    let effects = Effects::read(Notes::path(&log)).unwrap();
    println!(
        "{kills} kills, {} events, {} acknowledged commands: counters off by 0; at least once: {} repeats in {} runs, at \
         most {} in one",
        positions.len(),
        acknowledged.len(),
        effects.repeats(),
        effects.runs(),
        effects.most_repeats_of_a_run()
    );
    assert_eq!(effects.missing_of(positions.iter().copied()), BTreeSet::new(), "events without effect");
    assert!(effects.positions().all(|position| positions.contains(&position)), "an effect of no event");
    assert!(effects.most_repeats_of_a_run() <= PAGE, "more repeats than since a checkpoint");
    std::fs::remove_file(Notes::path(&log)).unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
