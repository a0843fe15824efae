//! Read models in the store's own file, rebuilt while readers and commands go on, and while processes die.

use crate::child::{Child, say};
use crate::support::{Home, event_of, stream};
use eventcore::{
    AppendRequest, CheckpointStore, Event, EventStore, PageSize, Progress, ProjectionConfig, ProjectionName, Projector,
    ReadModel, ReadModelStore, ReadModelVersion, RecordedEvent, VersionedProjector, run_versioned_projection,
};
use eventcore_sqlite::{SqliteContext, SqliteEventStore};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum TestEvent {
    Counted { n: i64 },
}

/// Counts and sums by stream, in `<name>_v1`, `<name>_v2`, ..; readers find the version in force in the view `<name>`.
struct Totals {
    name: &'static str,
    version: ReadModelVersion,
}

impl Totals {
    fn table(&self) -> String {
        format!("{}_v{}", self.name, self.version)
    }
}

fn totals(name: &'static str) -> impl Fn(ReadModelVersion) -> Totals + Send + Sync {
    move |version| Totals { name, version }
}

impl Projector for Totals {
    type Event = TestEvent;
    type Error = rusqlite::Error;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        self.name
    }

    async fn apply(&mut self, event: &RecordedEvent<TestEvent>, page: &mut SqliteContext) -> rusqlite::Result<()> {
        let TestEvent::Counted { n } = event.payload();
        let add = format!(
            "insert into {} as t values (?1, 1, ?2) on conflict (stream) do update set count = t.count + 1, sum = t.sum + ?2",
            self.table()
        );
        page.connection().prepare_cached(&add)?.execute((event.stream_id().as_str(), n))?;
        Ok(())
    }
}

impl VersionedProjector for Totals {
    async fn prepare(&mut self, page: &mut SqliteContext) -> rusqlite::Result<()> {
        let table = format!("create table {} (stream text primary key, count integer, sum integer)", self.table());
        page.connection().execute_batch(&table)
    }

    async fn activate(&mut self, page: &mut SqliteContext) -> rusqlite::Result<()> {
        let (view, table) = (self.name, self.table());
        let swap = format!("drop view if exists {view}; create view {view} as select * from {table}");
        page.connection().execute_batch(&swap)
    }

    async fn retire(&mut self, page: &mut SqliteContext) -> rusqlite::Result<()> {
        page.connection().execute_batch(&format!("drop table {}", self.table()))
    }
}

/// Appends the events of `from` to `to` to some streams, a thousand at a time.
async fn append(store: &SqliteEventStore, from: i64, to: i64) {
    let numbers: Vec<_> = (from..=to).collect();
    for numbers in numbers.chunks(1_000) {
        let request = numbers.iter().fold(AppendRequest::builder(), |request, n| {
            request.event(stream(&format!("s-{}", n % 7)), event_of("test.Counted", format!(r#"{{"n":{n}}}"#)))
        });
        store.append(request.build().unwrap()).await.unwrap();
    }
}

/// The count and the sum that a view or a table holds, by one statement.
fn held(raw: &rusqlite::Connection, relation: &str) -> rusqlite::Result<(i64, i64)> {
    let sql = format!("select coalesce(sum(count), 0), coalesce(sum(sum), 0) from {relation}");
    raw.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
}

async fn stands(store: &SqliteEventStore) -> ReadModel {
    store.read_model(&name("totals")).await.unwrap().unwrap_or_default()
}

fn name(text: &str) -> ProjectionName {
    ProjectionName::new(text).unwrap()
}

/// 20,000 events, or as many as `EVENTCORE_REBUILD_EVENTS` says.
fn size() -> i64 {
    std::env::var("EVENTCORE_REBUILD_EVENTS").ok().map_or(20_000, |events| events.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_commands_never_see_half_a_rebuild() {
    let (home, events) = (Home::new(), size());
    let store = home.open().await;
    append(&store, 1, events).await;
    run_versioned_projection(totals("totals"), &store, ProjectionConfig::default()).await.unwrap();

    let (stop, progress) = (CancellationToken::new(), Progress::default());
    let config = ProjectionConfig::default().continuous().shutdown(stop.clone()).progress(progress.clone());
    let following = tokio::spawn({
        let store = store.clone();
        async move { run_versioned_projection(totals("totals"), &store, config).await }
    });
    let done = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (store, done) = (store.clone(), Arc::clone(&done));
        async move {
            let mut last = events;
            while !done.load(Ordering::SeqCst) {
                append(&store, last + 1, last + 1).await;
                last += 1;
            }
            last
        }
    });
    let looks = Arc::new(AtomicU64::new(0));
    let reading = std::thread::spawn({
        let (raw, done, looks) = (home.raw(), Arc::clone(&done), Arc::clone(&looks));
        raw.busy_timeout(Duration::from_secs(60)).unwrap();
        move || {
            let mut seen = events;
            while !done.load(Ordering::SeqCst) {
                let (count, sum) = held(&raw, "totals").unwrap();
                assert!(count >= seen, "{count} events after {seen} were seen");
                assert_eq!(sum, count * (count + 1) / 2, "the sum of the first {count} events");
                seen = count;
                looks.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let asked = Instant::now();
    store.request_rebuild(&name("totals")).await.unwrap();
    let mut while_building = 0;
    loop {
        let model = stands(&store).await;
        if model.building.is_some() {
            while_building = looks.load(Ordering::SeqCst);
        }
        if model.in_force == Some(ReadModelVersion::try_new(2).unwrap()) && model.retired.is_none() {
            break;
        }
        assert!(!reading.is_finished() && !following.is_finished(), "{model:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = asked.elapsed();
    done.store(true, Ordering::SeqCst);
    let last = writing.await.unwrap();
    reading.join().unwrap();
    progress.wait_for(store.head().await.unwrap().unwrap()).await.unwrap();
    stop.cancel();
    following.await.unwrap().unwrap();
    assert!(while_building > 0, "nobody looked while it was rebuilt");

    // It equals what a fresh run makes.
    run_versioned_projection(totals("fresh"), &store, ProjectionConfig::default()).await.unwrap();
    let raw = home.raw();
    assert_eq!(held(&raw, "totals").unwrap(), (last, last * (last + 1) / 2));
    for (one, other) in [("totals", "fresh"), ("fresh", "totals")] {
        let differ = format!("select count(*) from (select * from {one} except select * from {other})");
        assert_eq!(raw.query_row(&differ, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    }
    assert!(!raw.table_exists(None, "totals_v1").unwrap(), "the old tables are gone");
    let (commands, looks) = (last - events, looks.load(Ordering::SeqCst));
    let what = format!("{events} events rebuilt in {took:?} beside {commands} commands, looked at {looks} times");
    writeln!(std::io::stderr(), "{what}").unwrap();
}

/// The child's part: follows and rebuilds until it is killed, and says whenever something has changed.
pub(crate) async fn rebuild(store: SqliteEventStore) {
    let told = async {
        let mut last = None;
        loop {
            let model = stands(&store).await;
            let at = match model.building {
                Some(version) => {
                    store.load_checkpoint(&version.checkpoint_name(&name("totals")).unwrap()).await.unwrap()
                }
                None => None,
            };
            let now = Some((model, at.and_then(|checkpoint| checkpoint.cursor)));
            if now != last {
                last = now;
                say("on it goes");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let config = ProjectionConfig::default().continuous().page_size(PageSize::try_new(50).unwrap());
    tokio::select! {
        ended = run_versioned_projection(totals("totals"), &store, config) => drop(ended.unwrap()),
        () = told => {}
    }
}

/// Another moment each time: after so many changes, up to a little more than a rebuild makes.
fn moment(round: u64) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(round) % 40
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_killed_at_any_moment_leaves_one_version_whole() {
    const EVENTS: i64 = 1_500;
    let home = Home::new();
    let store = home.open().await;
    append(&store, 1, EVENTS).await;
    run_versioned_projection(totals("totals"), &store, ProjectionConfig::default()).await.unwrap();
    let position = |name: ProjectionName| {
        let store = store.clone();
        async move {
            let checkpoint = store.load_checkpoint(&name).await.unwrap();
            checkpoint.and_then(|checkpoint| checkpoint.cursor).map_or(0, |cursor| cursor.position.get() as i64)
        }
    };
    let (mut in_the_middle, mut swapped) = (0, 0);
    for round in 0..8 {
        let before = stands(&store).await.in_force;
        store.request_rebuild(&name("totals")).await.unwrap();
        let mut child = Child::start("rebuild", &home);
        for _ in 0..=moment(round) {
            // A rebuild that is over says nothing more: ask for the next one.
            store.request_rebuild(&name("totals")).await.unwrap();
            child.line().expect("the child does not end");
        }
        child.kill();

        let (model, raw) = (stands(&store).await, home.raw());
        assert!(model.in_force >= before, "{model:?}");
        let whole = held(&raw, "totals").unwrap();
        assert_eq!(whole, (EVENTS, EVENTS * (EVENTS + 1) / 2), "the version in force, {model:?}");
        assert_eq!(position(name("totals")).await, EVENTS, "{model:?}");
        swapped += i32::from(model.in_force > before);
        if let Some(version) = model.building {
            // What is there of the new one is what its checkpoint says.
            let (count, sum) = held(&raw, &format!("totals_v{version}")).unwrap();
            assert_eq!(position(version.checkpoint_name(&name("totals")).unwrap()).await, count);
            assert_eq!(sum, count * (count + 1) / 2);
            in_the_middle += 1;
        }
    }
    let stands = run_versioned_projection(totals("totals"), &store, ProjectionConfig::default()).await.unwrap();
    assert_eq!((stands.building, stands.retired, stands.requested), (None, None, false));
    assert_eq!(held(&home.raw(), "totals").unwrap(), (EVENTS, EVENTS * (EVENTS + 1) / 2));
    writeln!(std::io::stderr(), "8 kills: {in_the_middle} while a version was built, {swapped} after a swap").unwrap();
}
