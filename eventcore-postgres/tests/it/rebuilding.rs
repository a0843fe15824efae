//! Read models in the store's database, rebuilt while readers and commands go on, and while processes die.

use crate::fixtures::{Log, event_of, stream};
use crate::processes::Process;
use crate::worker::say;
use eventcore::{
    AppendRequest, CheckpointStore, Event, EventStore, PageSize, ProjectionConfig, ProjectionName, Projector,
    ReadModelStore, ReadModelVersion, RecordedEvent, VersionedProjector, run_versioned_projection,
};
use eventcore_postgres::{PgContext, PostgresEventStore, SchemaName};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

#[derive(Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum TestEvent {
    Counted { n: i64 },
}

/// Counts and sums by stream, in a table for each version; readers find the one in force in a view.
struct Totals {
    schema: SchemaName,
    name: &'static str,
    version: ReadModelVersion,
}

impl Totals {
    async fn run(&self, page: &mut PgContext, sql: &str) -> Result<(), sqlx::Error> {
        let (schema, name) = (self.schema.as_str(), self.name);
        let sql = sql.replace("@table", &format!("{schema}.{name}_v{}", self.version));
        let sql = sql.replace("@view", &format!("{schema}.{name}"));
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(page.connection()).await.map(drop)
    }
}

fn totals(log: &Log, name: &'static str) -> impl Fn(ReadModelVersion) -> Totals + Send + Sync + use<> {
    let schema = log.schema.clone();
    move |version| Totals { schema: schema.clone(), name, version }
}

impl Projector for Totals {
    type Event = TestEvent;
    type Error = sqlx::Error;
    type Context = PgContext;

    fn name(&self) -> &str {
        self.name
    }

    async fn apply(&mut self, event: &RecordedEvent<TestEvent>, page: &mut PgContext) -> Result<(), sqlx::Error> {
        let TestEvent::Counted { n } = event.payload();
        let add = format!(
            "insert into {}.{}_v{} as t values ($1, 1, $2) \
             on conflict (stream) do update set count = t.count + 1, sum = t.sum + excluded.sum",
            self.schema, self.name, self.version
        );
        let add = sqlx::query(AssertSqlSafe(add)).bind(event.stream_id().as_str()).bind(n);
        add.execute(page.connection()).await.map(drop)
    }
}

impl VersionedProjector for Totals {
    async fn prepare(&mut self, page: &mut PgContext) -> Result<(), sqlx::Error> {
        self.run(page, "create table @table (stream text primary key, count bigint, sum bigint)").await
    }

    async fn activate(&mut self, page: &mut PgContext) -> Result<(), sqlx::Error> {
        self.run(page, "drop view if exists @view; create view @view as select * from @table").await
    }

    async fn retire(&mut self, page: &mut PgContext) -> Result<(), sqlx::Error> {
        self.run(page, "drop table @table").await
    }
}

async fn append(store: &PostgresEventStore, from: i64, to: i64) {
    let numbers: Vec<_> = (from..=to).collect();
    for numbers in numbers.chunks(500) {
        let request = numbers.iter().fold(AppendRequest::builder(), |request, n| {
            request.event(stream(format!("s-{}", n % 7)), event_of("test.Counted", &format!(r#"{{"n":{n}}}"#)))
        });
        store.append(request.build().unwrap()).await.unwrap();
    }
}

/// The last event of the second version that is committed while it is built; `None` when it is in force.
async fn built(store: &PostgresEventStore) -> Option<u64> {
    let name = ProjectionName::new("totals").unwrap();
    let model = store.read_model(&name).await.unwrap().unwrap();
    if model.in_force > ReadModelVersion::try_new(1).ok() {
        return None;
    }
    let Some(version) = model.building else { return Some(0) };
    let checkpoint = store.load_checkpoint(&version.checkpoint_name(&name).unwrap()).await.unwrap();
    Some(checkpoint.and_then(|checkpoint| checkpoint.cursor).map_or(0, |cursor| cursor.position.get()))
}

/// The process's part: one of several instances that may follow and rebuild.
pub(crate) async fn rebuild(log: Log, store: PostgresEventStore, told_to_end: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    let config = ProjectionConfig::default()
        .continuous()
        .wait_for_leadership()
        .page_size(PageSize::try_new(100).unwrap())
        .shutdown(stop.clone());
    let running = tokio::spawn(async move { run_versioned_projection(totals(&log, "totals"), &store, config).await });
    told_to_end.await;
    stop.cancel();
    say(&format!("ended {:?}", running.await.unwrap().map(|model| model.in_force.map(ReadModelVersion::into_inner))));
}

/// 3,000 events, or as many as `EVENTCORE_REBUILD_EVENTS` says.
fn size() -> i64 {
    std::env::var("EVENTCORE_REBUILD_EVENTS").ok().map_or(3_000, |events| events.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rebuild_goes_on_in_other_processes_and_no_reader_sees_half_of_it() {
    let (log, events) = (Log::new().unwrap(), size());
    let store = log.open().await.unwrap();
    append(&store, 1, events).await;
    run_versioned_projection(totals(&log, "totals"), &store, ProjectionConfig::default()).await.unwrap();

    let done = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let (log, done, mut connection) = (log.clone(), Arc::clone(&done), log.connection().await);
        async move {
            let sql = log.sql("select coalesce(sum(count), 0)::bigint, coalesce(sum(sum), 0)::bigint from @.totals");
            let (mut seen, mut looks) = (events, 0_u64);
            while !done.load(Ordering::SeqCst) {
                let row = sqlx::query(AssertSqlSafe(sql.as_str())).fetch_one(&mut connection).await.unwrap();
                let (count, sum): (i64, i64) = (row.get(0), row.get(1));
                assert!(count >= seen, "{count} events after {seen} were seen");
                assert_eq!(sum, count * (count + 1) / 2, "the sum of the first {count} events");
                (seen, looks) = (count, looks + 1);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            looks
        }
    });
    let writing = tokio::spawn({
        let (store, done) = (store.clone(), Arc::clone(&done));
        async move {
            let mut last = events;
            while !done.load(Ordering::SeqCst) {
                append(&store, last + 1, last + 1).await;
                last += 1;
                // As many as a projection keeps up with on a machine that does much else.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            last
        }
    });

    let asked = Instant::now();
    store.request_rebuild(&ProjectionName::new("totals").unwrap()).await.unwrap();
    let (mut came, mut in_the_middle) = (0, 0);
    for kill in 1..=2 {
        let mut process = Process::start("rebuild", &log, kill);
        process.go();
        while built(&store).await.is_some_and(|at| at <= came) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        process.signal("-KILL");
        // On a machine that does much else it may be over by now; then the rest is about what comes after it.
        if let Some(at) = built(&store).await {
            (came, in_the_middle) = (at, in_the_middle + 1);
        }
    }
    let mut process = Process::start("rebuild", &log, 3);
    process.go();
    let name = ProjectionName::new("totals").unwrap();
    let second = ReadModelVersion::try_new(2).unwrap();
    loop {
        let model = store.read_model(&name).await.unwrap().unwrap();
        if model.in_force == Some(second) && model.retired.is_none() {
            break;
        }
        assert!(!reading.is_finished(), "a reader saw something else than it should");
        assert!(asked.elapsed() < Duration::from_secs(600), "{model:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = asked.elapsed();
    done.store(true, Ordering::SeqCst);
    let (last, looks) = (writing.await.unwrap(), reading.await.unwrap());
    while log.number("select coalesce(sum(count), 0)::bigint from @.totals").await < last {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(process.finish(), ["ended Ok(Some(2))"]);

    // It equals what a fresh run makes.
    run_versioned_projection(totals(&log, "fresh"), &store, ProjectionConfig::default()).await.unwrap();
    for (one, other) in [("totals", "fresh"), ("fresh", "totals")] {
        let differ = format!("select count(*) from (select * from @.{one} except select * from @.{other}) d");
        assert_eq!(log.number(&differ).await, 0);
    }
    assert_eq!(log.number("select sum(count)::bigint from @.totals").await, last);
    assert_eq!(log.number("select count(*) from pg_class where relname like 'totals_v%' and relnamespace = '@'::regnamespace and relkind = 'r'").await, 1);
    let commands = last - events;
    let what = format!(
        "{events} events rebuilt by three processes, {in_the_middle} killed in the middle of it, in {took:?} beside {commands} commands, looked at {looks} times"
    );
    writeln!(std::io::stderr(), "{what}").unwrap();
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
