//! Exactly-once pages, and projections beside commands.

use crate::fixtures::{CountUp, Counted, Log, PATIENCE, append_to, stream};
use crate::worker::say;
use eventcore::{
    Checkpoint, CheckpointError, CheckpointStore, CommandContext, CommandExecutor, Epoch, EventFilter, EventReader,
    EventStore, ExpectedVersion, LogCursor, PageSize, ProjectionConfig, ProjectionName, Projector,
    ProjectorCoordinator, RecordedEvent, Timestamp, UnitOfWork, execute, run_projection,
};
use eventcore_postgres::{PgContext, PostgresEventStore, SchemaName};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use std::sync::Arc;
use std::time::Duration;

/// A read model in the store's database: how many events each stream has, each event counted exactly once.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    name: String,
    sql: Arc<str>,
    slow: Duration,
    loud: bool,
}

impl Tally {
    pub(crate) fn of(schema: &SchemaName) -> Self {
        let sql = format!(
            "insert into {schema}.tally (stream, n) values ($1, 1) on conflict (stream) do update set n = {schema}.tally.n + 1"
        );
        Self { name: "tally".to_owned(), sql: sql.into(), slow: Duration::ZERO, loud: false }
    }

    pub(crate) const TABLE: &str = "create table @.tally (stream text primary key, n bigint not null)";

    /// Streams whose count is not that of their events; and the counts of streams without any.
    pub(crate) const WRONG: &str = "select count(*) from (select stream, count(*) n from @.events group by stream) e \
         full join @.tally t using (stream) where e.n is distinct from t.n";

    pub(crate) fn slow(mut self, slow: Duration) -> Self {
        self.slow = slow;
        self
    }

    /// Tells the test what it does.
    pub(crate) fn loud(mut self) -> Self {
        self.loud = true;
        self
    }

    fn named(mut self, name: String) -> Self {
        self.name = name;
        self
    }
}

impl Projector for Tally {
    type Event = Counted;
    type Error = sqlx::Error;
    type Context = PgContext;

    fn name(&self) -> &str {
        &self.name
    }

    async fn apply(&mut self, event: &RecordedEvent<Counted>, context: &mut PgContext) -> Result<(), sqlx::Error> {
        if self.loud {
            say(&format!("applying {}", event.position()));
        }
        let query = sqlx::query(AssertSqlSafe(Arc::clone(&self.sql))).bind(event.stream_id().as_str());
        query.execute(context.connection()).await?;
        tokio::time::sleep(self.slow).await;
        Ok(())
    }

    fn on_error(&mut self, _: &eventcore::FailureContext<'_, sqlx::Error>) -> eventcore::FailureStrategy {
        // Whatever the server says of a page that it has ended: the page is begun again.
        eventcore::FailureStrategy::Retry
    }

    fn leading(&mut self, epoch: Epoch) {
        if self.loud {
            say(&format!("leading {epoch}"));
        }
    }
}

/// How often leaders beat that a test watches.
const BEAT: Duration = Duration::from_millis(500);

/// Uses every port once. For roles that may do so and no more.
pub(crate) async fn everything_works(store: &PostgresEventStore) {
    let executor = CommandExecutor::new(store);
    let counter = stream("counter");
    for replayed in [false, true] {
        let context = CommandContext::new().command_id("command-1".parse().unwrap());
        let outcome = executor.execute_with(context, CountUp { counter: counter.clone() }).await.unwrap();
        assert_eq!(outcome.replayed(), replayed);
    }
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    assert_eq!(page.events.len(), 1);
    store.verify_cursor(&page.cursor.unwrap()).await.unwrap();
    let leader = store.acquire(&ProjectionName::new("p").unwrap()).await.unwrap();
    let checkpoint = checkpoint(store, &leader, page.cursor);
    let context: PgContext = store.begin(leader.name(), leader.epoch()).await.unwrap();
    store.commit(context, &checkpoint, leader.epoch()).await.unwrap();
    store.save_checkpoint(&checkpoint, leader.epoch()).await.unwrap();
    assert_eq!(store.list_checkpoints().await.unwrap().len(), 1);
    store.reset_checkpoint(leader.name(), leader.epoch()).await.unwrap();
    store.release(leader).await.unwrap();
    assert_eq!(store.prune_receipts(Timestamp::now()).await.unwrap(), 1);
    assert!(store.health().await.unwrap().horizon.is_some());
}

fn checkpoint(store: &PostgresEventStore, leader: &eventcore::Leadership, cursor: Option<LogCursor>) -> Checkpoint {
    Checkpoint {
        name: leader.name().clone(),
        cursor,
        filter: EventFilter::all().identity(),
        lineage: store.lineage(),
        updated_at: Timestamp::now(),
    }
}

#[tokio::test]
async fn a_page_and_its_checkpoint_commit_together_or_not_at_all() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    log.run(Tally::TABLE).await.unwrap();
    let appended = store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    assert_eq!(page.position(), Some(appended.events[0].position));
    let leader = store.acquire(&ProjectionName::new("tally").unwrap()).await.unwrap();
    let checkpoint = checkpoint(&store, &leader, page.cursor);
    let insert = log.sql("insert into @.tally values ('a', 1)");

    let mut context: PgContext = store.begin(leader.name(), leader.epoch()).await.unwrap();
    sqlx::query(AssertSqlSafe(insert.as_str())).execute(context.connection()).await.unwrap();
    store.rollback(context).await.unwrap();
    let mut dropped: PgContext = store.begin(leader.name(), leader.epoch()).await.unwrap();
    sqlx::query(AssertSqlSafe(insert.as_str())).execute(dropped.connection()).await.unwrap();
    drop(dropped);
    // An epoch that was never given out, at the end and at the beginning of a page.
    let other = leader.epoch().next();
    let mut fenced: PgContext = store.begin(leader.name(), leader.epoch()).await.unwrap();
    sqlx::query(AssertSqlSafe(insert.as_str())).execute(fenced.connection()).await.unwrap();
    let refused = store.commit(fenced, &checkpoint, other).await;
    assert!(matches!(refused, Err(CheckpointError::Fenced { .. })), "{refused:?}");
    let refused = UnitOfWork::<PgContext>::begin(&store, leader.name(), other).await.map(drop);
    assert!(matches!(refused, Err(CheckpointError::Fenced { .. })), "{refused:?}");
    assert_eq!(log.number("select count(*) from @.tally").await, 0);
    assert_eq!(store.load_checkpoint(leader.name()).await.unwrap(), None);

    let mut context: PgContext = store.begin(leader.name(), leader.epoch()).await.unwrap();
    sqlx::query(AssertSqlSafe(insert.as_str())).execute(context.connection()).await.unwrap();
    store.commit(context, &checkpoint, leader.epoch()).await.unwrap();
    assert_eq!(log.number("select count(*) from @.tally").await, 1);
    let resumed = UnitOfWork::<PgContext>::resume(&store, leader.name()).await.unwrap().unwrap();
    assert_eq!(resumed.cursor, page.cursor);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// The connection was cut when COMMIT had been sent, and the server is still at it: who reads the checkpoint now and goes on
/// from there would apply the page once more.
#[tokio::test]
async fn who_lost_the_answer_to_a_commit_goes_on_when_it_has_ended() {
    let log = Log::new().unwrap();
    let store = log.open().await.unwrap();
    store.append(append_to(&stream("a"), ExpectedVersion::Any)).await.unwrap();
    let page = store.read_page(&EventFilter::all(), None, PageSize::default()).await.unwrap();
    let leader = store.acquire(&ProjectionName::new("tally").unwrap()).await.unwrap();
    let checkpoint = checkpoint(&store, &leader, page.cursor);

    let mut committing: PgContext = store.begin(leader.name(), leader.epoch()).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(committing.connection()).await.unwrap();
    // As far as `commit` gets before it sends COMMIT.
    let save = log.sql("select @.save_checkpoint($1, $2, $3, $4, $5, $6)");
    let saved: i64 = sqlx::query_scalar(AssertSqlSafe(save))
        .bind(checkpoint.name.as_str())
        .bind(page.cursor.unwrap().position.get() as i64)
        .bind(page.cursor.unwrap().event_id.as_uuid())
        .bind(serde_json::to_string(&checkpoint.filter).unwrap())
        .bind(checkpoint.lineage.as_uuid())
        .bind(leader.epoch().get() as i64)
        .fetch_one(committing.connection())
        .await
        .unwrap();
    assert_eq!(saved, leader.epoch().get() as i64);

    let resuming = tokio::spawn({
        let (store, name) = (store.clone(), leader.name().clone());
        async move { UnitOfWork::<PgContext>::resume(&store, &name).await.unwrap() }
    });
    let waits = format!("select count(*) from pg_stat_activity where {pid} = any(pg_blocking_pids(pid))");
    let deadline = std::time::Instant::now() + PATIENCE;
    while log.number(&waits).await == 0 {
        assert!(!resuming.is_finished(), "it went on beside the commit: {:?}", resuming.await);
        assert!(std::time::Instant::now() < deadline, "nobody waits for the commit");
    }
    store.commit(committing, &checkpoint, leader.epoch()).await.unwrap();
    assert_eq!(resuming.await.unwrap().unwrap().cursor, page.cursor);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

/// Nobody takes over from a leader that lives, however long its page takes.
#[tokio::test]
async fn the_beats_of_a_leader_go_on_beside_its_page() {
    let log = Log::new().unwrap();
    let store = PostgresEventStore::connect(&log.url, log.config().beat_interval(BEAT)).await.unwrap();
    let name = ProjectionName::new("tally").unwrap();
    let beat = "select beat from @.leases";
    let deadline = std::time::Instant::now() + PATIENCE;
    let mut beats = 0;
    while beats < 2 {
        assert!(std::time::Instant::now() < deadline, "the page silences the beats");
        let leader = store.acquire(&name).await.unwrap();
        let page: PgContext = store.begin(&name, leader.epoch()).await.unwrap();
        let first = log.number(beat).await;
        // A machine that stands still costs the leadership, and a leader that lost it beats no more: then once more.
        while beats < 2 && !leader.lost().is_cancelled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            beats = log.number(beat).await - first;
        }
        drop(page);
        store.release(leader).await.unwrap();
    }
    store.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test]
async fn a_page_that_stands_still_is_ended_by_the_server_and_holds_up_nobody() {
    let log = Log::new().unwrap();
    let config = log.config().page_idle_timeout(Duration::from_millis(100)).beat_interval(Duration::from_millis(50));
    let [one, two] = [
        PostgresEventStore::connect(&log.url, config.clone()).await.unwrap(),
        PostgresEventStore::connect(&log.url, config).await.unwrap(),
    ];
    let name = ProjectionName::new("tally").unwrap();
    let leader = one.acquire(&name).await.unwrap();
    let page: PgContext = one.begin(&name, leader.epoch()).await.unwrap();
    // The leader ends as if by SIGKILL: no beats, and a page left open that the server has to end.
    log.run("update @.leases set owner = gen_random_uuid()").await.unwrap();
    let lost = tokio::time::timeout(PATIENCE, leader.lost().cancelled()).await;
    assert!(lost.is_ok(), "a leader whose lease is another's is told");
    let deadline = std::time::Instant::now() + PATIENCE;
    let successor = loop {
        match two.acquire(&name).await {
            Ok(leadership) => break leadership,
            Err(_) => assert!(std::time::Instant::now() < deadline, "nobody took over"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(successor.epoch() > leader.epoch());
    let checkpoint = checkpoint(&one, &leader, None);
    assert!(one.commit(page, &checkpoint, leader.epoch()).await.is_err(), "a page of a leader that was replaced");
    drop((leader, successor));
    one.close().await.unwrap();
    two.close().await.unwrap();
    log.remove().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_projections_on_a_pool_of_five_run_and_commands_go_on() {
    let log = Log::new().unwrap();
    let pool = PgPoolOptions::new().max_connections(5).connect(&log.url).await.unwrap();
    let store = PostgresEventStore::with_pool(pool, log.config()).await.unwrap();
    for index in 0..20 {
        let table = Tally::TABLE.replace("tally", &format!("tally_{index}"));
        log.run(&table).await.unwrap();
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let running: Vec<_> = (0..20)
        .map(|index| {
            let mut tally = Tally::of(&log.schema).slow(Duration::from_millis(1)).named(format!("tally_{index}"));
            tally.sql = tally.sql.replace("tally", &tally.name).into();
            let config = ProjectionConfig::default().continuous().shutdown(stop.clone());
            let store = store.clone();
            tokio::spawn(async move { run_projection(tally, &store, config).await.map(drop) })
        })
        .collect();
    for round in 0..60 {
        execute(&store, CountUp { counter: stream(format!("s-{}", round % 7)) }).await.unwrap();
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    for index in 0..20 {
        let wrong = Tally::WRONG.replace("tally", &format!("tally_{index}"));
        while log.number(&wrong).await > 0 {
            assert!(std::time::Instant::now() < deadline, "projection {index} did not get there");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    stop.cancel();
    for projection in running {
        projection.await.unwrap().unwrap();
    }
    assert!(store.pool().size() <= 5);
    store.close().await.unwrap();
    log.remove().await.unwrap();
}
