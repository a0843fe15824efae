//! `kill -9` at random moments, while events become dead letters and commands begin from snapshots.
//!
//! `EVENTCORE_KILLS` says how often; by default 6 times.

use crate::child::{Child, say};
use crate::support::{Home, stream};
use eventcore::{
    Command, CommandExecutor, CommandLogic, DeadLetter, DeadLetterStore, Event, EventFilter, EventReader, EventStore,
    FailureContext, FailureStrategy, MaxAttempts, NewEvents, PageSize, ProjectionConfig, Projector, RecordedEvent,
    RetryPolicy, SnapshotPolicy, SnapshotState, StateFold, StreamId, StreamState, run_projection,
};
use eventcore_sqlite::{SqliteContext, SqliteEventStore};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
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
    Write(#[from] rusqlite::Error),
}

fn is_refused(number: u64) -> bool {
    number % 5 == 3
}

/// Notes events in a table of the store's own file, and gives up on some, of which half the work is done by then.
struct Gives;

impl Projector for Gives {
    type Event = Happened;
    type Error = NotApplied;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        "gives"
    }

    async fn apply(&mut self, event: &RecordedEvent<Happened>, page: &mut SqliteContext) -> Result<(), NotApplied> {
        let position = i64::try_from(event.position().get()).unwrap_or(i64::MAX);
        page.connection().execute("insert into applied values (?1)", [position])?;
        let Happened::Numbered { number } = event.payload();
        if is_refused(*number) { Err(NotApplied::Refused) } else { Ok(()) }
    }

    fn on_error(&mut self, _: &FailureContext<'_, NotApplied>) -> FailureStrategy {
        FailureStrategy::DeadLetter
    }
}

fn config() -> ProjectionConfig {
    ProjectionConfig::default().page_size(PageSize::try_new(20).unwrap())
}

/// The child's part, until it is killed. Says what was acknowledged.
pub(crate) async fn work(store: SqliteEventStore) {
    say("ready");
    for task in 0..4 {
        let store = store.clone();
        tokio::spawn(async move {
            let patient = RetryPolicy::default().max_attempts(MaxAttempts::try_new(500).unwrap());
            let executor = CommandExecutor::new(store).retry(patient).snapshots(SnapshotPolicy::every(3));
            for round in 0.. {
                let to = if round % 3 == 0 { stream("shared") } else { stream(&format!("own-{task}")) };
                let done = executor.execute(Number { to }).await.expect("a command failed");
                say(&done.events()[0].position.to_string());
            }
        });
    }
    let ended = run_projection(Gives, &store, config().continuous()).await.map(drop);
    panic!("the projection ended: {ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_letters_are_parked_once_and_no_snapshot_is_believed_that_is_wrong() {
    let kills = std::env::var("EVENTCORE_KILLS").map_or(6, |kills| kills.parse().expect("a number"));
    let home = Home::new();
    home.open().await.close().await.unwrap();
    home.raw().execute_batch("create table applied (position integer not null)").unwrap();
    let (mut acknowledged, mut snapshots) = (BTreeSet::new(), 0_i64);
    for kill in 0..kills {
        let mut child = Child::start("be killed with letters", &home);
        assert_eq!(child.line().as_deref(), Some("ready"));
        for _ in 0..fastrand::u32(20..150) {
            acknowledged.insert(child.line().expect("the child works without end").parse::<u64>().unwrap());
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..20_000)));
        child.kill();
        while let Some(said) = child.line() {
            acknowledged.extend(said.parse::<u64>().ok());
        }
        // Worse than what a kill leaves behind: snapshots that are gone, or torn.
        let raw = home.raw();
        snapshots += raw.query_row("select count(*) from eventcore_snapshots", [], |row| row.get::<_, i64>(0)).unwrap();
        match kill % 3 {
            0 => raw.execute("delete from eventcore_snapshots", []).map(drop).unwrap(),
            1 => raw.execute("update eventcore_snapshots set payload = x'7b'", []).map(drop).unwrap(),
            _ => {}
        }
    }
    assert!(snapshots > 0, "no command had a snapshot to begin from");

    let store = home.open().await;
    run_projection(Gives, &store, config()).await.unwrap();
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
    let raw = home.raw();
    let mut select = raw.prepare("select position from applied order by position").unwrap();
    let applied = select.query_map([], |row| row.get::<_, i64>(0)).unwrap().map(|row| row.unwrap() as u64);
    assert_eq!(applied.collect::<Vec<_>>(), wanted, "each event that was not given up has its effect once");
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
}
