//! `kill -9` at random moments, while events become dead letters and commands begin from snapshots.
//!
//! `EVENTCORE_KILLS` says how often; by default 6 times.

use crate::fixtures::{Log, PATIENCE, stream};
use crate::processes::Process;
use crate::worker::say;
use eventcore::{
    Command, CommandExecutor, CommandLogic, DeadLetter, DeadLetterStore, Event, EventFilter, EventReader, EventStore,
    FailureContext, FailureStrategy, MaxConsecutiveFailures, NewEvents, PageSize, ProjectionConfig, Projector,
    RecordedEvent, SnapshotPolicy, SnapshotState, StateFold, StreamId, StreamState, run_projection,
};
use eventcore_postgres::{PgContext, PostgresEventStore};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "letters")]
enum Happened {
    /// How many events the stream had before.
    Numbered { number: u64 },
}

/// How many events a stream has, from a snapshot if there is one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Count(u64);

impl StreamState for Count {
    type Event = Happened;

    fn apply(&mut self, _: &RecordedEvent<Happened>) {
        self.0 += 1;
    }
}

impl SnapshotState for Count {
    const NAME: &'static str = "letters.Count";
    const VERSION: u32 = 1;
}

#[derive(Debug, Clone, Command)]
struct Number {
    #[stream]
    to: StreamId,
}

impl CommandLogic for Number {
    type Event = Happened;
    type State = Count;
    type Error = Infallible;

    fn apply(&self, state: &mut Count, event: &RecordedEvent<Happened>) {
        StreamState::apply(state, event);
    }

    fn state_fold() -> StateFold<Self> {
        StateFold::with_snapshots()
    }

    fn handle(&self, state: &Count, streams: &NumberStreams) -> Result<NewEvents<Self>, Infallible> {
        Ok(NewEvents::new().append(&streams.to, Happened::Numbered { number: state.0 }))
    }
}

#[derive(Debug, thiserror::Error)]
enum NotApplied {
    #[error("this one never")]
    Refused,
    #[error("the read model could not be written")]
    Write(#[from] sqlx::Error),
}

fn is_refused(number: u64) -> bool {
    number % 5 == 3
}

/// Notes events in a table of the store's own database, and gives up on some, of which half the work is done by then.
struct Gives {
    insert: Arc<str>,
}

impl Gives {
    fn of(log: &Log) -> Self {
        Self { insert: log.sql("insert into @.applied values ($1)").into() }
    }
}

impl Projector for Gives {
    type Event = Happened;
    type Error = NotApplied;
    type Context = PgContext;

    fn name(&self) -> &str {
        "gives"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, page: &mut PgContext) -> Result<(), NotApplied> {
        let position = i64::try_from(event.position().get()).unwrap_or(i64::MAX);
        let insert = sqlx::query(AssertSqlSafe(Arc::clone(&self.insert))).bind(position);
        insert.execute(page.connection()).await?;
        let Happened::Numbered { number } = event.payload();
        if is_refused(*number) { Err(NotApplied::Refused) } else { Ok(()) }
    }

    fn on_error(&mut self, _: &FailureContext<'_, NotApplied>) -> FailureStrategy {
        FailureStrategy::DeadLetter
    }
}

/// A busy server that is late with an answer about leases ends no projection.
fn config() -> ProjectionConfig {
    ProjectionConfig::default()
        .page_size(PageSize::try_new(20).unwrap())
        .wait_for_leadership()
        .read_failures(MaxConsecutiveFailures::try_new(10_000).unwrap(), Duration::from_millis(10))
}

/// The process's part, until it is killed. Says what was acknowledged.
pub(crate) async fn work(log: Log, store: PostgresEventStore) {
    for task in 0..4 {
        let store = store.clone();
        tokio::spawn(async move {
            let executor = CommandExecutor::new(store).retry(crate::processes::patient());
            let executor = executor.snapshots(SnapshotPolicy::every(3));
            for round in 0.. {
                let to = if round % 3 == 0 { stream("shared") } else { stream(format!("own-{task}")) };
                let done = executor.execute(Number { to }).await.expect("a command failed");
                say(&done.events()[0].position.to_string());
            }
        });
    }
    let ended = run_projection(Gives::of(&log), &store, config().continuous()).await.map(drop);
    panic!("the projection ended: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_letters_are_parked_once_and_no_snapshot_is_believed_that_is_wrong() {
    let kills = std::env::var("EVENTCORE_KILLS").map_or(6, |kills| kills.parse().expect("a number"));
    let log = Log::new().unwrap();
    let store = PostgresEventStore::connect(&log.url, crate::kills::config(&log)).await.unwrap();
    log.run("create table @.applied (position bigint not null)").await.unwrap();
    let (mut acknowledged, mut snapshots) = (BTreeSet::new(), 0_i64);
    for kill in 0..kills {
        let mut process = Process::start("be killed with letters", &log, kill);
        process.go();
        for _ in 0..fastrand::u32(20..80) {
            acknowledged.insert(process.next().parse::<u64>().unwrap());
        }
        // Now and then only when pages are under way: the one before has to be replaced first.
        let applied = log.number("select count(*) from @.applied").await;
        let patience = std::time::Instant::now() + PATIENCE;
        while kill % 2 == 0 && log.number("select count(*) from @.applied").await == applied {
            assert!(std::time::Instant::now() < patience, "nobody leads");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_micros(fastrand::u64(0..20_000))).await;
        acknowledged.extend(process.kill().iter().filter_map(|said| said.parse::<u64>().ok()));
        // Worse than what a kill leaves behind: snapshots that are gone, or torn.
        snapshots += log.number("select count(*) from @.snapshots").await;
        match kill % 3 {
            0 => log.run("delete from @.snapshots").await.unwrap(),
            1 => log.run("update @.snapshots set payload = '\\x7b'").await.unwrap(),
            _ => {}
        }
    }
    assert!(snapshots > 0, "no command had a snapshot to begin from");

    run_projection(Gives::of(&log), &store, config()).await.unwrap();
    let (mut lengths, mut refused, mut wanted, mut after) = (BTreeMap::new(), Vec::new(), Vec::new(), None);
    loop {
        let page = store.read_page(&EventFilter::all(), after, PageSize::default()).await.unwrap();
        after = page.position().or(after);
        let more = page.more;
        for event in page.events {
            let event = event.decode::<Happened>().unwrap();
            let length = lengths.entry(event.stream_id().clone()).or_insert(0);
            let Happened::Numbered { number } = event.payload();
            assert_eq!(number, length, "decided on a state that never was");
            *length += 1;
            if is_refused(*number) { &mut refused } else { &mut wanted }.push(event.position().get());
        }
        if !more {
            break;
        }
    }
    let all: BTreeSet<u64> = refused.iter().chain(&wanted).copied().collect();
    assert!(acknowledged.is_subset(&all), "an acknowledged command is lost");
    let mut connection = log.connection().await;
    let select = log.sql("select position from @.applied order by position");
    let applied: Vec<i64> =
        sqlx::query_scalar(AssertSqlSafe(select.as_str())).fetch_all(&mut connection).await.unwrap();
    let applied: Vec<u64> = applied.into_iter().map(|position| position as u64).collect();
    assert_eq!(applied, wanted, "each event that was not given up has its effect once");
    let mut letters: Vec<DeadLetter> = Vec::new();
    loop {
        let last = letters.last().map(|letter| letter.id.clone());
        let page = store.dead_letters(None, last.as_ref(), PageSize::default()).await.unwrap();
        if page.is_empty() {
            break;
        }
        letters.extend(page);
    }
    let parked: Vec<u64> = letters.iter().map(|letter| letter.id.position.get()).collect();
    assert_eq!(parked, refused, "each event that was given up has its letter");
    assert!(letters.iter().all(|letter| letter.attempts == 1), "an event was tried again after it was parked");
    println!("{kills} kills, {} events, {} dead letters, {snapshots} snapshots", all.len(), letters.len());
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
