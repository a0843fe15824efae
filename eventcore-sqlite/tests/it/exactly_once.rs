//! Read models in the store's own file, committed together with their checkpoint.

use crate::child::{Child, say};
use crate::support::{Home, PATIENCE, append, event_of, one, stream};
use eventcore::{
    Activity, AppendRequest, Checkpoint, CheckpointError, CheckpointStore, Command, CommandError, CommandExecutor,
    CommandLogic, Epoch, Event, EventFilter, EventId, EventReader, EventStore, EventStoreError, GlobalPosition,
    LogCursor, MaxAttempts, MaxConsecutiveFailures, NewEvents, PageSize, Progress, ProjectionConfig, ProjectionContext,
    ProjectionName, Projector, ProjectorCoordinator, RecordedEvent, RetryPolicy, StreamId, Timestamp, UnitOfWork,
    run_projection,
};
use eventcore_sqlite::{SqliteConfig, SqliteContext, SqliteEventStore};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn name() -> ProjectionName {
    ProjectionName::new("sum").unwrap()
}

fn checkpoint(store: &SqliteEventStore, position: u64) -> Checkpoint {
    let position = GlobalPosition::try_new(position).unwrap();
    Checkpoint {
        name: name(),
        cursor: Some(LogCursor { position, event_id: EventId::generate() }),
        filter: EventFilter::all().identity(),
        lineage: store.lineage(),
        updated_at: Timestamp::now(),
    }
}

async fn begin(store: &SqliteEventStore, epoch: Epoch) -> Result<SqliteContext, CheckpointError> {
    store.begin(&name(), epoch).await
}

async fn saved(store: &SqliteEventStore) -> Option<u64> {
    store.load_checkpoint(&name()).await.unwrap().map(|checkpoint| checkpoint.cursor.unwrap().position.get())
}

fn rows(home: &Home) -> i64 {
    home.raw().query_row("select count(*) from model", [], |row| row.get(0)).unwrap()
}

/// A store with an empty read model, and an epoch in force.
async fn with_model(home: &Home) -> (SqliteEventStore, Epoch) {
    let store = home.open().await;
    home.raw().execute_batch("create table model (n integer)").unwrap();
    let epoch = store.acquire(&name()).await.unwrap().epoch();
    (store, epoch)
}

const INSERT: &str = "insert into model values (1)";

#[test]
fn the_context_says_what_it_promises() {
    const { assert!(SqliteContext::DURABLE && SqliteContext::TRANSACTIONAL) }
}

#[tokio::test]
async fn a_page_and_its_checkpoint_are_committed_together() {
    let home = Home::new();
    let (store, epoch) = with_model(&home).await;
    let mut page = begin(&store, epoch).await.unwrap();
    page.connection().execute(INSERT, []).unwrap();
    assert_eq!(rows(&home), 0, "nothing is visible before the commit");
    store.commit(page, &checkpoint(&store, 7), epoch).await.unwrap();
    assert_eq!((rows(&home), saved(&store).await), (1, Some(7)));
}

#[tokio::test]
async fn a_page_that_is_rolled_back_or_dropped_leaves_nothing() {
    let home = Home::new();
    let (store, epoch) = with_model(&home).await;
    let mut page = begin(&store, epoch).await.unwrap();
    page.connection().execute(INSERT, []).unwrap();
    UnitOfWork::<SqliteContext>::rollback(&store, page).await.unwrap();
    let mut page = begin(&store, epoch).await.unwrap();
    page.connection().execute(INSERT, []).unwrap();
    drop(page);
    // The next page and the writer get their turn.
    let page = begin(&store, epoch).await.unwrap();
    drop(page);
    append(&store, "s", "1").await.unwrap();
    assert_eq!((rows(&home), saved(&store).await), (0, None));
}

#[tokio::test]
async fn a_replaced_leader_begins_and_commits_nothing() {
    let home = Home::new();
    let (store, old) = with_model(&home).await;
    let new = store.acquire(&name()).await.unwrap().epoch();
    let fenced = begin(&store, old).await.unwrap_err();
    assert!(matches!(fenced, CheckpointError::Fenced { epoch, current, .. } if (epoch, current) == (old, new)));
    let mut page = begin(&store, new).await.unwrap();
    page.connection().execute(INSERT, []).unwrap();
    let fenced = store.commit(page, &checkpoint(&store, 7), old).await.unwrap_err();
    assert!(matches!(fenced, CheckpointError::Fenced { .. }));
    assert_eq!((rows(&home), saved(&store).await), (0, None));
}

#[tokio::test]
async fn a_projector_cannot_commit_by_itself() {
    let home = Home::new();
    let (store, epoch) = with_model(&home).await;
    for ending in ["commit", "commit; begin immediate", "rollback", "rollback; begin immediate; commit"] {
        let mut page = begin(&store, epoch).await.unwrap();
        page.connection().execute(INSERT, []).unwrap();
        let ended = page.connection().execute_batch(ending);
        assert_eq!(ended.is_err(), ending.contains("commit"), "{ending}");
        // Outside of a transaction every statement would commit itself.
        assert!(page.connection().execute(INSERT, []).is_err(), "{ending}");
        let error = store.commit(page, &checkpoint(&store, 7), epoch).await.unwrap_err();
        assert!(matches!(error, CheckpointError::Store(EventStoreError::Storage { .. })), "{ending}: {error:?}");
        assert_eq!((rows(&home), saved(&store).await), (0, None), "{ending}");
    }
    let mut page = begin(&store, epoch).await.unwrap();
    page.connection().execute(INSERT, []).unwrap();
    store.commit(page, &checkpoint(&store, 7), epoch).await.unwrap();
    assert_eq!((rows(&home), saved(&store).await), (1, Some(7)));
}

#[tokio::test]
async fn an_append_from_within_a_page_is_refused() {
    let home = Home::new();
    let (store, epoch) = with_model(&home).await;
    let inside = async |store: &SqliteEventStore| {
        let page = begin(store, epoch).await.unwrap();
        let refused = append(store, "s", "1").await;
        drop(page);
        refused
    };
    // In a task, and outside of any.
    assert!(matches!(inside(&store).await, Err(EventStoreError::WithinProjection)));
    let task = {
        let store = store.clone();
        tokio::spawn(async move {
            let page = begin(&store, epoch).await.unwrap();
            let refused = append(&store, "s", "1").await;
            drop(page);
            refused
        })
    };
    assert!(matches!(task.await.unwrap(), Err(EventStoreError::WithinProjection)));
    assert_eq!(append(&store, "s", "1").await.unwrap().events[0].position.get(), 1);
}

#[derive(Debug, Command)]
struct CountAgain {
    #[stream]
    stream: StreamId,
}

impl CommandLogic for CountAgain {
    type Event = TestEvent;
    type State = ();
    type Error = std::convert::Infallible;

    fn apply(&self, (): &mut (), _: &RecordedEvent<TestEvent>) {}

    fn handle(&self, (): &(), streams: &CountAgainStreams) -> Result<NewEvents<Self>, Self::Error> {
        Ok(NewEvents::new().append(&streams.stream, TestEvent::Counted { n: 1 }))
    }
}

/// Executes a command for each event, by itself or on a task that it waits for.
struct Meddling {
    store: SqliteEventStore,
    spawns: bool,
    answers: Vec<CommandError<std::convert::Infallible>>,
}

impl Projector for Meddling {
    type Event = TestEvent;
    type Error = rusqlite::Error;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        "sum"
    }

    async fn apply(
        &mut self,
        event: &RecordedEvent<TestEvent>,
        page: &mut SqliteContext,
    ) -> Result<(), rusqlite::Error> {
        let (store, command) = (self.store.clone(), CountAgain { stream: event.stream_id().clone() });
        let execute = async move {
            let once = RetryPolicy::default().max_attempts(MaxAttempts::try_new(1).unwrap());
            CommandExecutor::new(store).retry(once).execute(command).await
        };
        let answer = if self.spawns { tokio::spawn(execute).await.unwrap() } else { execute.await };
        self.answers.push(answer.expect_err("the page is open"));
        page.connection().execute(INSERT, []).map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_from_within_a_projection_is_refused_and_the_projection_goes_on() {
    for spawns in [false, true] {
        let home = Home::new();
        // So long the spawned one waits.
        let store = home.open_with(SqliteConfig::default().busy_timeout(Duration::from_millis(50))).await;
        home.raw().execute_batch("create table model (n integer)").unwrap();
        append_counted(&store, 2).await;
        let projector = Meddling { store: store.clone(), spawns, answers: Vec::new() };
        // Every page holds one event only, so that the command of the second one comes after a page has ended.
        let config = ProjectionConfig::default().hold_time(Duration::ZERO);
        let outcome = run_projection(projector, &store, config).await.unwrap();
        assert_eq!((outcome.applied, rows(&home)), (2, 2), "the projection goes on");
        assert_eq!(outcome.projector.answers.len(), 2);
        for answer in outcome.projector.answers {
            match (spawns, &answer) {
                (false, CommandError::Store(EventStoreError::WithinProjection)) => {}
                (true, CommandError::Store(EventStoreError::Unavailable { source })) => {
                    assert!(source.to_string().contains("waits for a task that it spawned"), "{source}");
                }
                _ => panic!("spawned: {spawns}: {answer:?}"),
            }
        }
        assert_eq!(store.head().await.unwrap().unwrap().get(), 2, "nothing was appended");
        append(&store, "s", "1").await.unwrap();
    }
}

async fn append_counted(store: &SqliteEventStore, events: i64) {
    let events = (1..=events).map(|n| event_of("test.Counted", format!(r#"{{"n":{n}}}"#)));
    let request = events.fold(AppendRequest::builder(), |builder, event| builder.event(stream("s"), event));
    store.append(request.build().unwrap()).await.unwrap();
}

#[tokio::test]
async fn an_append_beside_a_page_waits_for_it() {
    let home = Home::new();
    let (store, epoch) = with_model(&home).await;
    // The same task, but not from within: the page goes on and ends. A machine that stands still for half a second makes
    // that look like an append from within, so it may take more than one try.
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "an append beside a page is always refused");
        let mut page = begin(&store, epoch).await.unwrap();
        let beside = append(&store, "s", "1");
        let commit = async {
            tokio::task::yield_now().await;
            page.connection().execute(INSERT, []).unwrap();
            store.commit(page, &checkpoint(&store, 7), epoch).await
        };
        let (appended, committed) = tokio::join!(beside, commit);
        committed.unwrap();
        match appended {
            Err(EventStoreError::WithinProjection) => {}
            appended => break drop(appended.unwrap()),
        }
    }
    // Another task.
    let page = begin(&store, epoch).await.unwrap();
    let elsewhere = {
        let store = store.clone();
        tokio::spawn(async move { store.append(one("s", "2")).await })
    };
    store.commit(page, &checkpoint(&store, 8), epoch).await.unwrap();
    assert_eq!(elsewhere.await.unwrap().unwrap().events[0].position.get(), 2);
}

#[tokio::test]
async fn an_append_gives_up_on_a_page_that_does_not_end() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().busy_timeout(Duration::from_millis(10))).await;
    let page = begin(&store, Epoch::NONE).await.unwrap();
    let elsewhere = {
        let store = store.clone();
        tokio::spawn(async move { append(&store, "s", "1").await })
    };
    let error = elsewhere.await.unwrap().unwrap_err();
    assert!(matches!(error, EventStoreError::Unavailable { .. }), "{error:?}");
    drop(page);
    // A page that was dropped ends a moment later, which may be too long for the next try too.
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = append(&store, "s", "1").await {
        assert!(matches!(error, EventStoreError::Unavailable { .. }), "{error:?}");
        assert!(Instant::now() < deadline, "the page does not end");
    }
}

#[derive(Debug, Serialize, Deserialize, Event)]
#[event(namespace = "test")]
enum TestEvent {
    Counted { n: i64 },
}

/// Keeps the count and the sum of all events.
struct Sum;

impl Projector for Sum {
    type Event = TestEvent;
    type Error = rusqlite::Error;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        "sum"
    }

    async fn apply(
        &mut self,
        event: &RecordedEvent<TestEvent>,
        context: &mut SqliteContext,
    ) -> Result<(), rusqlite::Error> {
        let TestEvent::Counted { n } = event.payload();
        context.connection().execute("update sums set count = count + 1, sum = sum + ?1", [n])?;
        Ok(())
    }
}

/// The child's part: projects until it is killed, and says how far it came.
pub(crate) async fn project(store: SqliteEventStore) {
    let told = async {
        let mut last = None;
        loop {
            let now = saved(&store).await;
            if now != last {
                last = now;
                say(&now.unwrap_or_default().to_string());
            }
            // Now and then, to leave the machine to the projection.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let config = ProjectionConfig::default().continuous().page_size(PageSize::try_new(10).unwrap());
    tokio::select! {
        ended = run_projection(Sum, &store, config) => drop(ended.unwrap()),
        () = told => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_projection_has_counted_every_event_once() {
    const EVENTS: i64 = 2_000;
    let home = Home::new();
    let store = home.open().await;
    home.raw().execute_batch("create table sums (count integer, sum integer); insert into sums values (0, 0)").unwrap();
    append_counted(&store, EVENTS).await;

    let read = || {
        let raw = home.raw();
        raw.query_row("select count, sum from sums", [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
            .unwrap()
    };
    for kill in 1..=3 {
        let mut child = Child::start("project", &home);
        let mut came = 0;
        while came < kill * 400 {
            came = child.line().expect("the child does not come to the end of the log so soon").parse().unwrap();
        }
        child.kill();
        let (count, sum) = read();
        assert_eq!(saved(&store).await.unwrap() as i64, count, "read model and checkpoint agree");
        assert_eq!(sum, count * (count + 1) / 2);
        assert!(count >= came);
    }
    let outcome = run_projection(Sum, &store, ProjectionConfig::default()).await.unwrap();
    assert_eq!(read(), (EVENTS, EVENTS * (EVENTS + 1) / 2));
    assert_eq!(outcome.position.unwrap().get() as i64, EVENTS);
}

/// Is kept from its first page by another program, which locks the file as soon as it leads.
struct Delayed(Arc<Mutex<rusqlite::Connection>>);

impl Projector for Delayed {
    type Event = TestEvent;
    type Error = rusqlite::Error;
    type Context = SqliteContext;

    fn name(&self) -> &str {
        "sum"
    }

    fn leading(&mut self, _: Epoch) {
        self.0.lock().unwrap().execute_batch("begin immediate").unwrap();
    }

    async fn apply(
        &mut self,
        event: &RecordedEvent<TestEvent>,
        context: &mut SqliteContext,
    ) -> Result<(), rusqlite::Error> {
        Sum.apply(event, context).await
    }
}

/// The page that was read ahead meanwhile must not be taken for the one that could not be begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_could_not_be_begun_is_applied_later() {
    let home = Home::new();
    let store = home.open_with(SqliteConfig::default().busy_timeout(Duration::from_millis(5))).await;
    home.raw().execute_batch("create table sums (count integer, sum integer); insert into sums values (0, 0)").unwrap();
    append_counted(&store, 20).await;

    let other = Arc::new(Mutex::new(home.raw()));
    let progress = Progress::default();
    let config = ProjectionConfig::default()
        .page_size(PageSize::try_new(5).unwrap())
        .read_failures(MaxConsecutiveFailures::try_new(100_000).unwrap(), Duration::from_millis(1))
        .progress(progress.clone());
    let run = tokio::spawn({
        let (store, projector) = (store.clone(), Delayed(Arc::clone(&other)));
        async move { run_projection(projector, &store, config).await.map(|outcome| outcome.applied) }
    });
    progress.wait_until(Activity::Reconnecting).await.unwrap();
    other.lock().unwrap().execute_batch("rollback").unwrap();
    assert_eq!(run.await.unwrap().unwrap(), 20);
}
