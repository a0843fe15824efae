//! `kill -9` at random moments, while commands and projections run.
//!
//! `EVENTCORE_KILLS` says how often; by default 8 times.

use crate::child::{Child, say};
use crate::support::{Home, stream};
use eventcore::{
    Command, CommandExecutor, CommandLogic, Epoch, Event, EventFilter, EventReader, EventStore, MaxAttempts, NewEvents,
    PageSize, ProjectionConfig, Projector, RecordedEvent, RetryPolicy, StreamId, run_projection,
};
use eventcore_sqlite::{SqliteContext, SqliteEventStore};
use eventcore_testing::{EffectLog, Effects};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// A checkpoint is saved after so many events at most.
const PAGE: u32 = 20;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "kills")]
enum Happened {
    Counted {},
}

/// Counts one up in two streams at once.
#[derive(Debug, Clone, Command)]
struct CountUp {
    #[stream]
    one: StreamId,
    #[stream]
    other: StreamId,
}

impl CommandLogic for CountUp {
    type Event = Happened;
    type State = ();
    type Error = std::convert::Infallible;

    fn apply(&self, (): &mut (), _: &RecordedEvent<Happened>) {}

    fn handle(&self, (): &(), streams: &CountUpStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&streams.one, Happened::Counted {}).append(&streams.other, Happened::Counted {}))
    }
}

/// How many events each stream has, in a table of the store's own file: exactly once.
struct Tally;

impl Projector for Tally {
    type Event = Happened;
    type Error = rusqlite::Error;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        "tally"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, page: &mut SqliteContext) -> rusqlite::Result<()> {
        let count = "insert into tally values (?1, 1) on conflict (stream) do update set n = n + 1";
        page.connection().execute(count, [event.stream_id().as_str()]).map(drop)
    }
}

/// Notes every event in a file beside the store: at least once.
struct Notes {
    log: EffectLog,
    /// How long it takes for each, so that a kill finds a page in hand.
    slow: Duration,
}

impl Notes {
    fn beside(store: &Path, slow: Duration) -> Self {
        Self { log: EffectLog::open(store.with_extension("effects")).unwrap(), slow }
    }
}

impl Projector for Notes {
    type Event = Happened;
    type Error = std::io::Error;
    type Context = ();

    fn name(&self) -> &str {
        "notes"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, (): &mut ()) -> std::io::Result<()> {
        self.log.note(event.position())?;
        tokio::time::sleep(self.slow).await;
        Ok(())
    }

    fn leading(&mut self, epoch: Epoch) {
        self.log.begin(epoch).unwrap();
    }
}

fn config() -> ProjectionConfig {
    ProjectionConfig::default().page_size(PageSize::try_new(PAGE).unwrap())
}

/// The child's part, until it is killed. Says which positions were acknowledged.
pub(crate) async fn work(store: SqliteEventStore) {
    say("ready");
    let tally = tokio::spawn({
        let store = store.clone();
        async move { run_projection(Tally, &store, config().continuous()).await.map(drop) }
    });
    let notes = tokio::spawn({
        let store = store.clone();
        let notes = Notes::beside(store.path(), Duration::from_millis(1));
        async move { run_projection(notes, &store, config().continuous()).await.map(drop) }
    });
    for task in 0..4 {
        let store = store.clone();
        tokio::spawn(async move {
            let patient = RetryPolicy::default().max_attempts(MaxAttempts::try_new(500).unwrap());
            let executor = CommandExecutor::new(&store).retry(patient);
            for round in 0.. {
                let (one, other) = (stream(&format!("own-{task}")), stream(&format!("shared-{}", round % 3)));
                let done = executor.execute(CountUp { one, other }).await.expect("a command failed");
                say(&done.events()[0].position.to_string());
            }
        });
    }
    let (tally, notes) = tokio::join!(tally, notes);
    panic!("a projection ended: {tally:?}, {notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_projections_lose_nothing_and_repeat_at_most_a_page() {
    let kills = std::env::var("EVENTCORE_KILLS").map_or(8, |kills| kills.parse().expect("a number"));
    let home = Home::new();
    home.open().await.close().await.unwrap();
    home.raw().execute_batch("create table tally (stream text primary key, n integer not null)").unwrap();
    let mut acknowledged = BTreeSet::new();
    for kill in 0..kills {
        let mut child = Child::start("be killed", &home);
        // Now and then before it has begun.
        if kill % 8 != 7 {
            assert_eq!(child.line().as_deref(), Some("ready"));
            for _ in 0..fastrand::u32(0..150) {
                let position = child.line().expect("the child works without end");
                acknowledged.insert(position.parse::<u64>().unwrap());
            }
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        child.kill();
        while let Some(said) = child.line() {
            acknowledged.extend(said.parse::<u64>().ok());
        }
    }

    let store = home.open().await;
    run_projection(Tally, &store, config()).await.unwrap();
    run_projection(Notes::beside(store.path(), Duration::ZERO), &store, config()).await.unwrap();
    let (mut streams, mut positions, mut after) = (BTreeMap::<String, i64>::new(), BTreeSet::new(), None);
    loop {
        let page = store.read_page(&EventFilter::all(), after, PageSize::default()).await.unwrap();
        for event in &page.events {
            *streams.entry(event.stream_id().to_string()).or_default() += 1;
            positions.insert(event.position().get());
        }
        after = page.position().or(after);
        if !page.more {
            break;
        }
    }
    assert!(acknowledged.is_subset(&positions), "an acknowledged command is lost");
    let raw = home.raw();
    let mut select = raw.prepare("select stream, n from tally").unwrap();
    let tally = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(tally.collect::<rusqlite::Result<BTreeMap<String, i64>>>().unwrap(), streams, "each event counted once");
    let effects = Effects::read(store.path().with_extension("effects")).unwrap();
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
    store.close().await.unwrap();
}
